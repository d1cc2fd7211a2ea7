#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/format/archive_writer.h"
#include "program.h"
#include "weights_files.h"

namespace ckpt::test {
namespace {

TEST(Inspect, ShowsAnArchive) {
  const auto json = ckpt({"inspect", "--json", archive("tensors-2.13.0.pt")}).json();
  EXPECT_EQ(json.at("format"), "archive");
  std::map<std::string, nlohmann::json> tensors;
  for (const auto& tensor : json.at("tensors")) {
    EXPECT_EQ(tensor.size(), 4u);
    tensors[tensor.at("name")] = tensor;
  }
  EXPECT_EQ(tensors.at("bfloat16"),
            (nlohmann::json{{"name", "bfloat16"}, {"dtype", "bfloat16"}, {"shape", {2, 3}}, {"bytes", 12}}));
  EXPECT_EQ(tensors.at("scalar").at("shape"), nlohmann::json::array());
  EXPECT_EQ(tensors.at("empty").at("bytes"), 0);
  const Outcome text = ckpt({"inspect", archive("tensors-2.13.0.pt")});
  EXPECT_EQ(text.code, 0);
  EXPECT_EQ(text.err, "");
  EXPECT_NE(text.out.find("bfloat16"), std::string::npos);
  EXPECT_NE(text.out.find("[2, 3]"), std::string::npos);
}

TEST(Inspect, ShowsValuesThatAreNoTensors) {
  const auto metadata = ckpt({"inspect", "--json", archive("values-1.13.1.pt")}).json().at("metadata");
  EXPECT_EQ(metadata.at("int"), -5);
  EXPECT_EQ(metadata.at("infinity"), "Infinity");
  EXPECT_EQ(metadata.at("text"), "a \"quoted\" text\nwith \xc3\xa9");
  EXPECT_EQ(metadata.at("inner").at("n"), 1);
  const Outcome text = ckpt({"inspect", archive("values-1.13.1.pt")});
  EXPECT_NE(text.out.find("inner.deep.w"), std::string::npos) << text.out;
}

TEST(Inspect, ShowsSafetensors) {
  TempDir dir;
  const std::string header =
      R"({"__metadata__":{"format":"pt","note":"\u001b[31m"},"a\nb":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  write_all(dir / "x", file + header + "1234");
  const auto json = ckpt({"inspect", "--json", dir / "x"}).json();
  EXPECT_EQ(json.at("format"), "safetensors");
  EXPECT_EQ(json.at("metadata").at("format"), "pt");
  EXPECT_EQ(json.at("tensors"),
            (nlohmann::json{{{"name", "a\nb"}, {"dtype", "float16"}, {"shape", {1, 2}}, {"bytes", 4}}}));
  const Outcome text = ckpt({"inspect", dir / "x"});
  EXPECT_EQ(text.out.find('\x1b'), std::string::npos);
  EXPECT_NE(text.out.find("\"a\\nb\""), std::string::npos) << text.out;
}

TEST(Inspect, ShowsACheckpointAndARun) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 100});
  const std::string newest = add_checkpoint(run, {.iteration = 200,
                                                  .epoch = 2,
                                                  .metrics = {{"loss", std::nan("")}},
                                                  .monitor = run::Monitor{"loss", Mode::kMin},
                                                  .metadata = {{"note", "a text"}}});
  for (const auto& [path, format] :
       std::map<std::string, std::string>{{run, "run"}, {newest, "checkpoint"}, {run + "/latest", "checkpoint"}}) {
    const auto json = ckpt({"inspect", "--json", path}).json();
    EXPECT_EQ(json.at("format"), format);
    EXPECT_GT(json.at("tensors").size(), 10u);
    const auto& metadata = json.at("metadata");
    EXPECT_EQ(metadata.at("iteration"), 200);
    EXPECT_EQ(metadata.at("epoch"), 2);
    EXPECT_EQ(metadata.at("metrics").at("loss"), "NaN");
    EXPECT_EQ(metadata.at("monitor"), (nlohmann::json{{"metric", "loss"}, {"mode", "min"}}));
    EXPECT_EQ(metadata.at("metadata").at("note"), "a text");
    EXPECT_NE(ckpt({"inspect", path}).out.find("a text"), std::string::npos);
  }
}

TEST(Inspect, ShowsPartsAndOptionsOfAState) {
  TempDir dir;
  add_checkpoint(dir / "run", {.iteration = 200, .state = data("tools/parts.pt")});
  const Outcome json = ckpt({"inspect", "--json", dir / "run"});
  const auto state = json.json().at("metadata").at("state");
  EXPECT_EQ(state.at("ckpt").at("description").at("parts").at("optimizer").at("type"), "SGD");
  EXPECT_EQ(state.at("optimizer").at("description").at("groups").at(0).at("options").at("lr"), 0.1);
  EXPECT_NE(json.out.find("\"model.layer.in\""), std::string::npos) << "not unescaped: " << json.out;
  const Outcome text = ckpt({"inspect", dir / "run"});
  for (const char* part : {"SGD", "momentum", "0.9", "model.transposed"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << text.out;
  }
}

TEST(Inspect, TakesTheNewestGoodOneOfARunAndSaysSo) {
  TempDir dir;
  add_checkpoint(dir / "run", {.iteration = 1});
  std::filesystem::resize_file(add_checkpoint(dir / "run", {.iteration = 2}) + "/state.pt", 5);
  const auto json = ckpt({"inspect", "--json", dir / "run"}).json();
  EXPECT_EQ(json.at("metadata").at("iteration"), 1);
  EXPECT_EQ(json.at("warnings").size(), 1u);
  EXPECT_EQ(ckpt({"inspect", dir / "run/step-000000000002"}).code, 4);
}

TEST(Inspect, ShowsTheWeightsOfATrainingFileAndItsValues) {
  const auto json = ckpt({"inspect", "--json", data("torch/training-protocol2.pt")}).json();
  EXPECT_EQ(json.at("format"), "torch");
  EXPECT_EQ(json.at("tensors").at(0).at("name"), "conv.weight");
  EXPECT_EQ(json.at("metadata").at("epoch"), 3);
  EXPECT_EQ(json.at("metadata").at("optimizer").at("param_groups").at(0).at("lr"), 0.1);
  const auto moved =
      ckpt({"inspect", "--json", data("python_checkpoints/adam.pt"), "--key", "optim_state_dict.state.0"});
  EXPECT_EQ(moved.json().at("tensors").size(), 3u) << moved.out;
  const auto ema = ckpt({"inspect", "--json", data("python_checkpoints/adam.pt"), "--ema"});
  EXPECT_EQ(ema.json().at("tensors").size(), 8u);
  EXPECT_EQ(ckpt({"inspect", data("torch/training-protocol2.pt"), "--key", "epoch"}).code, 6);
  EXPECT_EQ(ckpt({"inspect", data("torch/training-protocol2.pt"), "--ema"}).code, 6);
}

TEST(Inspect, ShowsAStateWhoseWeightsHaveNoPartOfTheirOwn) {
  TempDir dir;
  using Level = format::ArchiveToWrite;
  const auto level = [](std::vector<std::pair<std::string, format::ArchiveValueToWrite>> members) {
    return std::make_shared<const Level>(Level{std::move(members)});
  };
  const std::string parts = R"({"parts":{"critic":{"kind":"module"},"actor":{"kind":"module"}}})";
  const Level root{{{"ckpt", level({{"version", int64_t{1}}, {"description", parts}})},
                    {"critic", level({{"w", format::TensorPlace{0}}})},
                    {"actor", level({{"w", format::TensorPlace{1}}})}}};
  const std::vector<float> values{1, 2};
  const ByteView bytes = std::as_bytes(std::span(values));
  const std::vector<format::TensorToWrite> tensors{{.name = "a", .shape = {2}, .data = bytes},
                                                   {.name = "b", .shape = {2}, .data = bytes}};
  io::replace_file(dir / "state.pt", [&](io::BlockWriter& writer) { format::write_archive(writer, root, tensors); });
  const Outcome outcome = ckpt({"inspect", "--json", dir / "state.pt"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("tensors").at(0).at("name"), "critic.w");
  EXPECT_EQ(ckpt({"inspect", "--json", dir / "state.pt", "--key", "actor"}).json().at("tensors").size(), 1u);
}

TEST(Inspect, TellsTheFormatOfEveryKindOfFile) {
  for (const auto& [name, format] :
       std::map<std::string, std::string>{{"torch/state_dict.pt", "torch"},
                                          {"torch/shapes-legacy.pt", "torch-legacy"},
                                          {"torch/traced.pt", "torchscript"},
                                          {"torch/scripted.pt", "torchscript"},
                                          {"archives/model-2.13.0.pt", "archive"},
                                          {"pt2/net.pt2", "pt2"},
                                          {"sharded/model.safetensors.index.json", "safetensors-index"},
                                          {"safetensors/python.safetensors", "safetensors"}}) {
    const Outcome outcome = ckpt({"inspect", "--json", data(name)});
    ASSERT_EQ(outcome.code, 0) << name << outcome.err;
    EXPECT_EQ(outcome.json().at("format"), format) << name;
    EXPECT_FALSE(outcome.json().at("tensors").empty()) << name;
    EXPECT_EQ(ckpt({"inspect", data(name)}).code, 0) << name;
  }
}

TEST(Inspect, GivesStatisticsOnRequest) {
  TempDir dir;
  write_floats(dir / "x.safetensors",
               {{"a", {{4}, {1, 2, std::nanf(""), -std::numeric_limits<float>::infinity()}}}, {"b", {{0}, {}}}});
  const auto json = ckpt({"inspect", "--json", "--stats", dir / "x.safetensors"}).json();
  EXPECT_EQ(json.at("stats").at("a"),
            (nlohmann::json{{"min", 1.0}, {"max", 2.0}, {"mean", 1.5}, {"std", 0.5}, {"nan", 1}, {"inf", 1}}));
  EXPECT_EQ(json.at("stats").at("b").at("min"), nullptr);
  EXPECT_FALSE(ckpt({"inspect", "--json", dir / "x.safetensors"}).json().contains("stats"));
  EXPECT_NE(ckpt({"inspect", "--stats", dir / "x.safetensors"}).out.find("mean"), std::string::npos);
}

TEST(Inspect, ChoosesTensorsByName) {
  const auto json =
      ckpt({"inspect", "--json", data("torch/training-protocol2.pt"), "--match", "^norm.*(bias|weight)$"}).json();
  ASSERT_EQ(json.at("tensors").size(), 2u);
  EXPECT_EQ(json.at("tensors").at(0).at("name"), "norm.weight");
  EXPECT_EQ(ckpt({"inspect", data("torch/training-protocol2.pt"), "--match", "("}).code, 1);
}

TEST(Inspect, ListsForeignGlobalsAndRunsNone) {
  const Outcome outcome = ckpt({"inspect", "--json", data("torch/foreign.pt")});
  const auto json = outcome.json();
  EXPECT_EQ(json.at("tensors").size(), 2u);
  const auto& foreign = json.at("foreign");
  EXPECT_NE(std::find(foreign.begin(), foreign.end(), "posix.system"), foreign.end());
  EXPECT_EQ(json.at("warnings").size(), 1u);
  EXPECT_TRUE(json.at("warnings").at(0).get<std::string>().starts_with(data("torch/foreign.pt"))) << outcome.err;
  EXPECT_NE(ckpt({"inspect", data("torch/foreign.pt")}).out.find("never imported or run"), std::string::npos);
}

TEST(Inspect, TellsTiesAndWastedStorage) {
  const auto json = ckpt({"inspect", "--json", data("torch/shapes.pt")}).json();
  EXPECT_EQ(json.at("ties"), nlohmann::json::array({nlohmann::json::array({"base", "tied"})}));
  EXPECT_EQ(json.at("wasted_bytes"), 0);
  const auto row = ckpt({"inspect", "--json", data("torch/shapes.pt"), "--key", "row"}).json();
  EXPECT_EQ(row.at("wasted_bytes"), 3 * 6 * 4) << "three of the four rows of its storage";
}

TEST(Inspect, RefusesOtherKindsWithWhatTheyAre) {
  TempDir dir;
  std::filesystem::create_directory(dir / "empty");
  EXPECT_EQ(ckpt({"inspect", dir / "empty"}).code, 6);
  write_all(dir / "notes.txt", "hello");
  EXPECT_EQ(ckpt({"inspect", dir / "notes.txt"}).code, 7);
  write_all(dir / "nothing.pt", "");
  EXPECT_EQ(ckpt({"inspect", dir / "nothing.pt"}).code, 4);
  write_all(dir / "old.pt", std::string("\x80\x02\x8a\x0al\xfc", 6));
  const Outcome old = ckpt({"inspect", dir / "old.pt", "--json"});
  EXPECT_EQ(old.code, 4) << "it is cut off";
  EXPECT_EQ(old.error().at("code"), "corrupt");
  std::filesystem::copy_file(archive("model-1.13.1.pt"), dir / "cut.pt");
  std::filesystem::resize_file(dir / "cut.pt", 3000);
  EXPECT_EQ(ckpt({"inspect", dir / "cut.pt"}).code, 4);
}

}  // namespace
}  // namespace ckpt::test
