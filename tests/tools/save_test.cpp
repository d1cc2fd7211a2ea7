// `ckpt save` of files of every format; what LibTorch restores from it: save_torch_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/format/archive.h"
#include "core/format/archive_writer.h"
#include "core/format/pickle_writer.h"
#include "core/format/torch_writer.h"
#include "core/format/zip_writer.h"
#include "program.h"
#include "weights_files.h"

namespace ckpt::test {
namespace {

const std::vector<float> kWeight{1, 2, 3, 4, 5, 6}, kBias{7, 8};

std::vector<format::TensorToWrite> linear() {
  return {{"weight", DType::kFloat32, {2, 3}, std::as_bytes(std::span(kWeight)), true},
          {"bias", DType::kFloat32, {2}, std::as_bytes(std::span(kBias)), true}};
}

/// torch::nn::Linear(3, 2), of which the optimizers in tests/data/archives are.
std::string write_linear(const std::string& path) {
  const auto tensors = linear();
  io::replace_file(
      path, [&](io::BlockWriter& writer) { format::write_archive(writer, format::archive_of(tensors), tensors); });
  return path;
}

Outcome save(const std::string& run, std::vector<std::string> flags) {
  flags.insert(flags.begin(), {"save", run, "--iteration", "1"});
  return ckpt(flags);
}

format::ArchiveFile state_of(const std::string& run) { return format::ArchiveFile::open(run + "/latest/state.pt"); }

nlohmann::json description_of(const std::string& run) {
  const format::ArchiveFile state = state_of(run);
  return nlohmann::json::parse(*state.root().nested("optimizer")->get<std::string>("description"));
}

std::vector<std::string> names_of(const format::Archive& level) {
  std::vector<std::string> names;
  for (const auto& named : format::tensors_of(level, true)) names.push_back(named.name);
  return names;
}

TEST(SaveFiles, TakesTheWeightsOfEveryFormat) {
  TempDir dir;
  for (const char* name : {"torch/state_dict.pt", "torch/module-legacy.pt", "torch/traced.pt", "pt2/net.pt2",
                           "safetensors/python.safetensors", "sharded/model.safetensors.index.json",
                           "archives/model-1.13.1.pt", "archives/model-2.13.0.pt", "python_checkpoints/adam.pt"}) {
    const Outcome outcome = save(dir / "run", {"--model", data(name)});
    ASSERT_EQ(outcome.code, 0) << name << ": " << outcome.err;
    EXPECT_EQ(ckpt({"diff", dir / "run", data(name)}).code, 0) << name;
    EXPECT_EQ(ckpt({"verify", dir / "run"}).code, 0) << name;
  }
}

TEST(SaveFiles, TakesBigEndianWeights) {
  TempDir dir;
  auto tensors = linear();
  std::vector<std::vector<std::byte>> swapped;
  for (auto& tensor : tensors) {
    swapped.emplace_back(tensor.data.memory.begin(), tensor.data.memory.end());
    swap_byte_order(swapped.back(), DType::kFloat32);
    tensor.data = ByteView(swapped.back());
  }
  io::replace_file(dir / "big.pt", [&](io::BlockWriter& writer) {
    format::PickleWriter pickle(format::PickleReader::kPython, tensors);
    pickle.value(format::state_dict_value(tensors, {format::PickleValue::None()}));
    format::ZipWriter zip(writer, "archive");
    zip.add_text("data.pkl", pickle.finish());
    zip.add_text("byteorder", "big");
    for (size_t i = 0; i < tensors.size(); ++i) zip.add("data/" + std::to_string(i), tensors[i].data);
    zip.add_text("version", "3\n");
    zip.finish();
  });
  const Outcome outcome = save(dir / "run", {"--model", dir / "big.pt"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(floats_in(dir / "run"), (std::map<std::string, std::vector<float>>{{"weight", kWeight}, {"bias", kBias}}));
}

TEST(SaveFiles, NamesTheParametersOfAnOptimizerByPosition) {
  TempDir dir;
  const std::string model = write_linear(dir / "model.pt");
  struct Case {
    const char* optimizer;
    std::vector<std::string> flags;
    const char* type;
    size_t tensors;
  };
  for (const std::string version : {"1.13.1", "2.13.0"}) {
    for (const Case& test : {Case{"sgd", {}, "SGD", 2}, Case{"adam", {}, "unknown", 6},
                             Case{"adam", {"--optimizer-type", "adam"}, "Adam", 6},
                             Case{"adam", {"--optimizer-type", "adamw"}, "AdamW", 6}, Case{"lbfgs", {}, "LBFGS", 0}}) {
      std::vector<std::string> flags{"--model", model, "--optimizer",
                                     archive(std::string(test.optimizer) + "-" + version + ".pt")};
      flags.insert(flags.end(), test.flags.begin(), test.flags.end());
      const Outcome outcome = save(dir / "run", flags);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      const nlohmann::json description = description_of(dir / "run");
      EXPECT_EQ(description.at("type"), test.type);
      EXPECT_EQ(description.at("groups").at(0).at("parameters"), (nlohmann::json{"model/weight", "model/bias"}));
      EXPECT_EQ(description.at("state").contains("model/weight"), true);
      const format::ArchiveFile state = state_of(dir / "run");
      const auto names = names_of(*state.root().nested("optimizer")->nested("state"));
      if (test.tensors) {
        EXPECT_EQ(names.size(), test.tensors);
      }
      if (std::string(test.optimizer) == "sgd") {
        EXPECT_EQ(names, (std::vector<std::string>{"momentum_buffer.model/weight", "momentum_buffer.model/bias"}));
      }
    }
  }
}

TEST(SaveFiles, APartOfAStateGoesOnAsItWas) {
  TempDir dir;
  const std::string model = write_linear(dir / "model.pt");
  ASSERT_EQ(
      save(dir / "a", {"--model", model, "--optimizer", archive("adam-2.13.0.pt"), "--optimizer-type", "adamw"}).code,
      0);
  const std::string state = dir / "a/latest/state.pt";
  const Outcome outcome = save(dir / "b", {"--model", state, "--optimizer", state});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read_all(dir / "b/latest/state.pt"), read_all(state));
  EXPECT_EQ(save(dir / "c", {"--model", model, "--ema", state}).code, 6);
}

TEST(SaveFiles, KeepsModulesThatHoldNothing) {
  TempDir dir;
  ASSERT_EQ(save(dir / "run", {"--model", archive("model-1.13.1.pt")}).code, 0);
  const format::ArchiveFile state = state_of(dir / "run");
  const format::Archive* tail = state.root().nested("model")->nested("tail");
  ASSERT_NE(tail, nullptr);
  ASSERT_NE(tail->nested("1"), nullptr);
  EXPECT_TRUE(tail->nested("1")->members.empty());
}

TEST(SaveFiles, PutsACopyOfAllWeightsBeside) {
  TempDir dir;
  const std::string model = write_linear(dir / "model.pt");
  ASSERT_EQ(save(dir / "run", {"--model", model, "--weights-copy"}).code, 0);
  EXPECT_EQ(floats_in(dir / "run/latest/weights.safetensors").size(), 2u);
  ASSERT_EQ(save(dir / "run", {"--model", model, "--ema", model, "--weights-copy"}).code, 0);
  const auto both = floats_in(dir / "run/latest/weights.safetensors");
  EXPECT_EQ(both.at("model.weight"), kWeight);
  EXPECT_EQ(both.at("ema.bias"), kBias);
}

TEST(SaveFiles, RefusesAnOptimizerThatDoesNotFit) {
  TempDir dir;
  const std::string model = write_linear(dir / "model.pt"), adam = archive("adam-2.13.0.pt");
  write_floats(dir / "other.safetensors", {{"a", {{3}, {1, 2, 3}}}, {"b", {{1}, {1}}}});
  struct Case {
    std::vector<std::string> flags;
    int code;
    const char* message;
  };
  const std::vector<Case> cases{
      {{"--model", archive("model-2.13.0.pt"), "--optimizer", adam}, 5, "expected an optimizer of 9 parameters"},
      {{"--model", dir / "other.safetensors", "--optimizer", adam}, 5, "does not fit the optimizer adam"},
      {{"--model", model, "--optimizer", adam, "--optimizer-type", "sgd"}, 5, "found those of adam"},
      {{"--model", model, "--optimizer", model}, 5, "expected an optimizer"},
      {{"--model", model, "--optimizer", dir / "other.safetensors"}, 7, "that LibTorch or Python saved"},
      {{"--model", adam}, 5, "found an optimizer"},
      {{"--model", data("torch/sparse.pt")}, 7, "sparse"},
      {{"--model", data("torch/quantized.pt")}, 7, "quantized"},
  };
  for (const Case& test : cases) {
    const Outcome outcome = save(dir / "run", test.flags);
    EXPECT_EQ(outcome.code, test.code) << test.flags.back() << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(test.message), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(dir / "run")) << test.flags.back();
  }
}

}  // namespace
}  // namespace ckpt::test
