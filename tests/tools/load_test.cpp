#include <gtest/gtest.h>

#include "core/format/archive.h"
#include "core/format/safetensors.h"
#include "program.h"

namespace ckpt::test {
namespace {

const run::Monitor kLoss{"loss", Mode::kMin};

std::string three_in(const std::string& run) {
  add_checkpoint(run, {.iteration = 100, .epoch = 1, .metrics = {{"loss", 3}}, .monitor = kLoss});
  add_checkpoint(run, {.iteration = 200, .epoch = 2, .metrics = {{"loss", 1}}, .monitor = kLoss});
  add_checkpoint(run, {.iteration = 300, .epoch = 3, .metrics = {{"loss", 2}}, .monitor = kLoss});
  return run;
}

TEST(Load, PrintsThePathAloneOnStdout) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  const Outcome outcome = ckpt({"load", run});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, run + "/step-000000000300\n");
  EXPECT_EQ(outcome.err, "iteration 300, epoch 3, loss 2\n");
  EXPECT_EQ(ckpt({"load", "--quiet", run}).err, "");
  EXPECT_EQ(ckpt({"load", run + "/latest"}).out, run + "/step-000000000300\n");
}

TEST(Load, GivesEveryFieldInJson) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  EXPECT_EQ(ckpt({"load", "--json", run, "--which", "200"}).json(),
            (nlohmann::json{{"schema", 1},
                            {"path", run + "/step-000000000200"},
                            {"iteration", 200},
                            {"epoch", 2},
                            {"metrics", {{"loss", 1.0}}},
                            {"passed_over", nlohmann::json::array()}}));
}

TEST(Load, FindsLatestBestAndAnIteration) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  EXPECT_EQ(ckpt({"load", run, "--which", "latest"}).out, run + "/step-000000000300\n");
  EXPECT_EQ(ckpt({"load", run, "--which", "best"}).out, run + "/step-000000000200\n");
  EXPECT_EQ(ckpt({"load", run, "--which", "0100"}).out, run + "/step-000000000100\n");
  const Outcome absent = ckpt({"load", run, "--which", "150", "--json"});
  EXPECT_EQ(absent.code, 6);
  EXPECT_EQ(absent.error().at("code"), "not_found");
}

TEST(Load, IsNotFoundWhereThereIsNothingYet) {
  TempDir dir;
  EXPECT_EQ(ckpt({"load", dir / "absent"}).code, 6);
  std::filesystem::create_directory(dir / "run");
  const Outcome empty = ckpt({"load", dir / "run"});
  EXPECT_EQ(empty.code, 6);
  EXPECT_EQ(empty.out, "");
  EXPECT_EQ(lines_of(empty.err).size(), 1u);
  add_checkpoint(dir / "run", {.iteration = 1, .metrics = {{"loss", 1}}});
  EXPECT_EQ(ckpt({"load", dir / "run", "--which", "best"}).code, 6);  // nothing is monitored
}

TEST(Load, PassesOverDamagedOnesAndSaysSo) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  flip_byte(run + "/step-000000000300/state.pt", 2000);
  const Outcome text = ckpt({"load", run});
  EXPECT_EQ(text.code, 0);
  EXPECT_EQ(text.out, run + "/step-000000000200\n");
  EXPECT_NE(text.err.find("passed over " + run + "/step-000000000300: "), std::string::npos) << text.err;
  const auto json = ckpt({"load", run, "--json"}).json();
  EXPECT_EQ(json.at("path"), run + "/step-000000000200");
  ASSERT_EQ(json.at("passed_over").size(), 1u);
  EXPECT_EQ(json.at("passed_over").at(0).at("path"), run + "/step-000000000300");
  EXPECT_FALSE(json.at("passed_over").at(0).at("reason").get<std::string>().empty());
  EXPECT_EQ(json.at("warnings").size(), 1u);
}

TEST(Load, IsCorruptWhereAllAreDamaged) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  for (const char* step : {"100", "200", "300"}) {
    std::filesystem::resize_file(run + "/step-000000000" + step + "/state.pt", 10);
  }
  const Outcome outcome = ckpt({"load", run, "--json"});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_EQ(outcome.error().at("code"), "corrupt");
  EXPECT_EQ(ckpt({"load", run}).out, "");
}

TEST(Load, TakesAFileOfWeights) {
  TempDir dir;
  const std::string file = data("python_checkpoints/adam.pt");
  const Outcome outcome = ckpt({"load", "--json", file});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("iteration"), 3);
  EXPECT_EQ(outcome.json().at("epoch"), 1);
  EXPECT_EQ(outcome.json().at("metrics"), (nlohmann::json{{"best_metric", 0.875}}));
  EXPECT_EQ(ckpt({"load", file, "--part", "ema", "--out", dir / "ema.safetensors"}).code, 0);
  EXPECT_EQ(ckpt({"load", file, "--out", dir / "model.pt"}).code, 0);
  EXPECT_EQ(ckpt({"diff", file, dir / "model.pt"}).code, 0);
  EXPECT_EQ(ckpt({"diff", dir / "ema.safetensors", dir / "model.pt"}).code, 1);
  EXPECT_EQ(ckpt({"load", file, "--which", "best"}).code, 2);
  EXPECT_EQ(ckpt({"load", file, "--part", "optimizer", "--out", dir / "o.pt"}).code, 2);
  std::filesystem::copy_file(data("torch/state_dict.pt"), dir / "damaged.pt");
  const std::string bytes = read_all(dir / "damaged.pt");
  flip_byte(dir / "damaged.pt", bytes.find("data/0") + 64);
  EXPECT_EQ(ckpt({"load", dir / "damaged.pt"}).code, 4);
}

TEST(Load, TakesOneCheckpoint) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  const std::string checkpoint = run + "/step-000000000100";
  EXPECT_EQ(ckpt({"load", checkpoint}).out, checkpoint + "\n");
  EXPECT_EQ(ckpt({"load", checkpoint, "--which", "best"}).code, 2);
  flip_byte(checkpoint + "/state.pt", 2000);
  EXPECT_EQ(ckpt({"load", checkpoint}).code, 4);
}

TEST(Load, WritesTheTensorsOfAPartAsSafetensors) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 1, .state = data("tools/parts.pt")});
  const std::string out = dir / "model.safetensors";
  const Outcome outcome = ckpt({"load", run, "--out", out});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, run + "/step-000000000001\n");

  const format::ArchiveFile state = format::ArchiveFile::open(data("tools/parts.pt"));
  const io::File file = io::File::open(out);
  std::map<std::string, format::StoredTensor> written;
  for (const auto& named : format::read_safetensors(file).tensors) written[named.name] = named.stored;
  const auto expected = format::tensors_of(*state.root().nested("model"), true);
  EXPECT_EQ(written.size() + format::read_safetensors(file).metadata.size(), expected.size() + 1);
  for (const format::NamedTensor& named : expected) {
    const std::string& name = named.name;
    const format::StoredTensor& tensor = named.stored;
    if (!written.contains(name)) continue;  // tied
    EXPECT_EQ(written[name].shape, tensor.shape) << name;
    EXPECT_EQ(written[name].dtype, tensor.dtype) << name;
    if (tensor.contiguous()) {
      EXPECT_EQ(file.read_at(written[name].file_offset, tensor.bytes),
                state.file().read_at(tensor.file_offset, tensor.bytes))
          << name;
    }
  }
}

TEST(Load, GathersTensorsThatAreNotContiguous) {
  TempDir dir;
  add_checkpoint(dir / "run", {.iteration = 1, .state = data("tools/parts.pt")});
  ASSERT_EQ(ckpt({"load", dir / "run", "--out", dir / "m.safetensors"}).code, 0);
  const io::File file = io::File::open(dir / "m.safetensors");
  std::map<std::string, std::vector<float>> values;
  for (const format::NamedTensor& named : format::read_safetensors(file).tensors) {
    const auto bytes = file.read_at(named.stored.file_offset, named.stored.bytes);
    values[named.name].resize(bytes.size() / sizeof(float));
    std::memcpy(values[named.name].data(), bytes.data(), bytes.size());
  }
  // The base is 1, 2, ... 6 in two rows of three.
  EXPECT_EQ(values.at("base"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(values.at("transposed"), (std::vector<float>{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(values.at("stepped"), (std::vector<float>{1, 3, 4, 6}));
  EXPECT_EQ(values.at("expanded"), (std::vector<float>{7, 7, 7}));
  EXPECT_FALSE(values.contains("tied"));
  EXPECT_EQ(format::read_safetensors(file).metadata.at("tied"), "base");
}

TEST(Load, CopiesTheWholeState) {
  TempDir dir;
  const std::string path = add_checkpoint(dir / "run", {.iteration = 1});
  ASSERT_EQ(ckpt({"load", dir / "run", "--part", "all", "--out", dir / "all.pt"}).code, 0);
  EXPECT_EQ(read_all(dir / "all.pt"), read_all(path + "/state.pt"));
}

TEST(Load, AMissingPartIsNotFoundAndLeavesTheOutputAsItWas) {
  TempDir dir;
  add_checkpoint(dir / "run", {.iteration = 1});
  write_all(dir / "old.safetensors", "old");
  const Outcome outcome = ckpt({"load", dir / "run", "--part", "ema", "--out", dir / "old.safetensors", "--json"});
  EXPECT_EQ(outcome.code, 6);
  EXPECT_EQ(outcome.error().at("code"), "not_found");
  EXPECT_EQ(read_all(dir / "old.safetensors"), "old");
}

TEST(Load, ReplacesAnOutputAndFailsCleanlyWhereItCannot) {
  TempDir dir;
  add_checkpoint(dir / "run", {.iteration = 1, .state = data("tools/parts.pt")});
  write_all(dir / "model.safetensors", "old");
  EXPECT_EQ(ckpt({"load", dir / "run", "--out", dir / "model.safetensors"}).code, 0);
  EXPECT_GT(std::filesystem::file_size(dir / "model.safetensors"), 100u);
  const Outcome outcome = ckpt({"load", dir / "run", "--out", dir / "absent/model.safetensors", "--json"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(outcome.error().at("code"), "io");
}

}  // namespace
}  // namespace ckpt::test
