// Weights found in files of PyTorch and in checkpoints.
#include <gtest/gtest.h>

#include "ckpt/average.h"
#include "core/format/torch_builder.h"
#include "core/run/run_testing.h"
#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

using Names = std::vector<std::string>;

std::string data(const std::string& name) { return std::string(CKPT_TEST_DATA) + "/" + name; }
Weights open(const std::string& name, const OpenOptions& options = {}) { return Weights::open(data(name), options); }

const Names kModel = {"conv.weight",
                      "conv.bias",
                      "norm.weight",
                      "norm.bias",
                      "norm.running_mean",
                      "norm.running_var",
                      "norm.num_batches_tracked",
                      "fc.weight",
                      "fc.bias"};

TEST(OpenTorchTest, TheStateDictOfATrainingFileIsFound) {
  for (const char* name : {"torch/training-protocol2.pt", "torch/training-protocol5.pt", "torch/state_dict.pt"}) {
    const Weights weights = open(name);
    EXPECT_EQ(weights.format(), Format::kTorch);
    EXPECT_EQ(test::names_of(weights), kModel);
    EXPECT_EQ(weights.module_metadata()["norm"]["version"], 2);
    EXPECT_EQ(test::values_of<float>(test::read(weights, "fc.bias")), (std::vector<float>{0, 1, 2}));
    EXPECT_TRUE(weights.warnings().empty());
    EXPECT_TRUE(weights.foreign().empty());
    EXPECT_FALSE(weights.globals().empty());
  }
}

TEST(OpenTorchTest, AKeyLeadsAnywhereIntoATrainingFile) {
  const std::string name = "torch/training-protocol2.pt";
  EXPECT_EQ(test::names_of(open(name, {.key = "optimizer"})), (Names{"state.0.step", "state.0.exp_avg"}));
  EXPECT_EQ(test::names_of(open(name, {.key = "optimizer.state.0"})), (Names{"step", "exp_avg"}));
  EXPECT_EQ(test::names_of(open(name, {.key = "list"})), (Names{"0", "1.0"}));
  EXPECT_EQ(test::names_of(open(name, {.key = "list.1"})), (Names{"0"}));
  EXPECT_EQ(test::names_of(open(name, {.key = "list.1.0"})), (Names{"tensor"}));
  EXPECT_EQ(test::names_of(open(name, {.key = "model_state_dict.fc.bias"})), (Names{"tensor"}));
}

TEST(OpenTorchTest, TheWholeFileHasEveryTensorUnderItsWholeName) {
  const Weights weights = open("torch/training-protocol2.pt", {.whole = true});
  EXPECT_NE(weights.find("model_state_dict.fc.bias"), nullptr);
  EXPECT_NE(weights.find("optimizer.state.0.exp_avg"), nullptr);
  EXPECT_NE(weights.find("parameter"), nullptr);
}

TEST(OpenTorchTest, AnAbsentKeyIsNotFoundAndTheMessageSaysWhatIsThere) {
  const auto message = [](const OpenOptions& options) {
    const Error error = test::error_of([&] { open("torch/training-protocol2.pt", options); });
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    return error.message();
  };
  EXPECT_EQ(message({.key = "optimizer.states.0"}),
            "has no \"optimizer.states.0\"; \"optimizer\" holds \"state\", \"param_groups\"");
  EXPECT_NE(message({.key = "model"}).find("it holds \"epoch\", \"model_state_dict\""), std::string::npos)
      << message({.key = "model"});
  EXPECT_NE(message({.ema = true}).find("has no averaged weights"), std::string::npos);
  EXPECT_EQ(message({.key = "epoch"}), "holds no tensors");
  EXPECT_EQ(message({.key = "list.7"}), "has no \"list.7\"; \"list\" holds \"0\", \"1\"");
}

TEST(OpenTorchTest, ForeignValuesAreLeftOutAndNamed) {
  const Weights weights = open("torch/foreign.pt");
  EXPECT_EQ(test::names_of(weights), (Names{"weight", "last"}));
  EXPECT_EQ(weights.foreign(), (Names{"args", "scalar", "array", "color", "hostile", "meta", "class"}));
  ASSERT_EQ(weights.warnings().size(), 1u);
  EXPECT_NE(weights.warnings()[0].find("\"hostile\""), std::string::npos);
  bool found = false;
  for (const auto& global : weights.globals()) found = found || (global.name == "posix.system" && !global.understood);
  EXPECT_TRUE(found);
}

TEST(OpenTorchTest, ScriptsArchivesAndPackagesAreToldApart) {
  const auto format = [](const std::string& name) { return to_string(open(name).format()); };
  EXPECT_EQ(format("torch/traced.pt"), "torchscript");
  EXPECT_EQ(format("torch/scripted.pt"), "torchscript");
  EXPECT_EQ(format("archives/model-1.13.1.pt"), "archive");
  EXPECT_EQ(format("archives/adam-2.13.0.pt"), "archive");
  EXPECT_EQ(format("tools/parts.pt"), "archive");
  EXPECT_EQ(format("torch/module.pt"), "torch");
  EXPECT_EQ(format("pt2/net.pt2"), "pt2");
  EXPECT_EQ(format("sharded/model.safetensors.index.json"), "safetensors-index");
  EXPECT_EQ(test::names_of(open("torch/traced.pt")), kModel);
}

TEST(OpenTorchTest, ShardsAreReadFromTheirFiles) {
  const Weights weights = open("sharded/model.safetensors.index.json");
  EXPECT_EQ(weights.files().size(), 2u);
  EXPECT_EQ(weights.find("b.weight")->file, 1u);
  EXPECT_EQ(test::values_of<float>(test::read(weights, "b.weight")), (std::vector<float>{0, 1, 2, 3, 4}));
  EXPECT_EQ(test::values_of<float>(test::read(weights, "a.weight")), (std::vector<float>{0, 1, 2, 3, 4, 5}));
}

TEST(OpenTorchTest, APackageHasItsModelsUnderTheirNames) {
  const Weights weights = open("pt2/two.pt2", {.key = "a"});
  EXPECT_EQ(test::names_of(weights), (Names{"w"}));
}

TEST(OpenTorchTest, TiedTensorsAndViewsShareAStorage) {
  const Weights weights = open("torch/shapes.pt");
  EXPECT_EQ(weights.find("tied")->tied_to, weights.find("base") - weights.tensors().data());
  EXPECT_EQ(weights.find("transposed")->tied_to, -1);
  EXPECT_EQ(weights.find("row")->stored.storage_offset, weights.find("base")->stored.storage_offset);
  EXPECT_EQ(test::values_of<float>(test::read(weights, "fortran")), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(test::values_of<float>(test::read(weights, "expanded")), (std::vector<float>{7, 7, 7}));
  EXPECT_EQ(weights.wasted_bytes(), 0u);
}

TEST(OpenTorchTest, OfATrainingStateTheModelIsTaken) {
  const Weights weights = open("tools/parts.pt");
  EXPECT_EQ(test::names_of(weights), (Names{"base", "expanded", "stepped", "tied", "transposed", "layer.in"}));
  EXPECT_EQ(test::names_of(open("tools/parts.pt", {.key = "model.layer"})), (Names{"in"}));
  EXPECT_EQ(test::names_of(open("tools/parts.pt", {.key = "model.layer.in"})), (Names{"tensor"}));
  EXPECT_NE(open("tools/parts.pt", {.whole = true}).find("model.layer.in"), nullptr);
  EXPECT_EQ(test::error_of([] { open("tools/parts.pt", {.key = "ema"}); }).message(),
            "has no \"ema\"; it holds \"ckpt\", \"model\", \"optimizer\"");
  EXPECT_EQ(test::error_of([] { open("tools/parts.pt", {.ema = true}); }).code(), ErrorCode::kNotFound);
  EXPECT_EQ(test::error_of([] { open("tools/parts.pt", {.key = "optimizer"}); }).code(), ErrorCode::kNotFound);
}

TEST(OpenTorchTest, WhatAnAverageSaysOfItselfIsMetadata) {
  test::TempDir dir;
  const auto metadata = [&](const std::string& provenance) {
    test::ZipImage zip = test::pickled::archive(test::pickled::state_dict(test::pickled::Tensor().stream()));
    zip.entries.push_back(test::zip_entry(std::string("a/") + kAverageProvenance, provenance));
    test::write_all(dir / "f.pt", zip.bytes());
    return Weights::open(dir / "f.pt").metadata();
  };
  using Metadata = std::map<std::string, std::string>;
  EXPECT_EQ(metadata("{\"method\": \"mean\"}"), (Metadata{{"ckpt.average", "{\"method\": \"mean\"}"}}));
  EXPECT_EQ(metadata("\xff"), Metadata());
  EXPECT_EQ(metadata(std::string((4 << 20) + 1, ' ')), Metadata());
}

class DamagedTorchTest : public testing::Test {
 protected:
  /// shapes.pt with a bit flipped in the record of `tensor`.
  Weights with_damage_in(const std::string& tensor) {
    std::string bytes = test::read_all(data("torch/shapes.pt"));
    bytes[open("torch/shapes.pt").find(tensor)->stored.file_offset] ^= 1;
    test::write_all(dir_ / "f.pt", bytes);
    return Weights::open(dir_ / "f.pt");
  }

  test::TempDir dir_;
};

TEST_F(DamagedTorchTest, OnlyTheRecordsThatAreAskedForAreVerified) {
  const Weights weights = with_damage_in("fortran");
  const Tensor* damaged = weights.find("fortran");
  for (const Tensor& tensor : weights.tensors()) {
    const Tensor* const one[] = {&tensor};
    if (&tensor != damaged) {
      EXPECT_NO_THROW(weights.verify(one, 2)) << tensor.name;
    }
  }
  const Tensor* const both[] = {weights.find("base"), damaged};
  const Error error = test::error_of([&] { weights.verify(both, 2); });
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error.tensor(), "fortran");
  EXPECT_EQ(error.message(), "record \"" + damaged->stored.record + "\", tensor \"fortran\": wrong CRC-32");
}

TEST_F(DamagedTorchTest, DamageIsSeenWhileAWholeRecordIsStreamed) {
  const Weights weights = with_damage_in("base");
  const Error error = test::error_of([&] { weights.stream(*weights.find("base"), [](ByteView) {}); });
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error.tensor(), "base");
  EXPECT_NO_THROW(weights.stream(*weights.find("scalar"), [](ByteView) {}));
}

class OpenRunTest : public testing::Test {
 protected:
  /// Commits checkpoints whose state.pt is tests/data/tools/parts.pt.
  void save(std::initializer_list<uint64_t> iterations) {
    run::RunWriter writer(dir_ / "run");
    for (const uint64_t iteration : iterations) {
      const std::string state = test::read_all(data("tools/parts.pt"));
      const auto file = [&](std::string_view name, const std::string& text) {
        return run::FileToWrite{std::string(name), text.size(),
                                [&text](io::BlockWriter& to) { to.append(as_bytes(text)); }};
      };
      const run::testing::Sample sample{iteration};
      const std::string copy = sample.weights();
      writer.commit(sample.head(), {file(run::kStateName, state), file(run::kWeightsName, copy)}, {}, {});
    }
  }
  std::string path(const std::string& name) { return dir_ / ("run/" + name); }

  test::TempDir dir_;
};

TEST_F(OpenRunTest, TheNewestCheckpointOfARunIsOpened) {
  save({1, 2});
  const Weights weights = Weights::open(dir_ / "run");
  EXPECT_EQ(weights.format(), Format::kRun);
  EXPECT_EQ(weights.path(), path("step-000000000002"));
  EXPECT_NE(weights.find("layer.in"), nullptr);
  EXPECT_TRUE(weights.warnings().empty());

  const Weights linked = Weights::open(path("latest"));
  EXPECT_EQ(linked.format(), Format::kCheckpoint);
  EXPECT_EQ(linked.path(), path("latest"));
  EXPECT_EQ(test::names_of(linked), test::names_of(weights));
}

TEST_F(OpenRunTest, DamagedCheckpointsArePassedOverWithAWarning) {
  save({1, 2});
  const std::string state = path("step-000000000002/state.pt");
  std::string bytes = test::read_all(state);
  bytes[open("tools/parts.pt").find("base")->stored.file_offset] ^= 1;
  test::write_all(state, bytes);
  const Weights weights = Weights::open(dir_ / "run");
  EXPECT_EQ(weights.path(), path("step-000000000001"));
  ASSERT_EQ(weights.warnings().size(), 1u);
  EXPECT_NE(weights.warnings()[0].find("step-000000000002"), std::string::npos);

  const Error error = test::error_of([&] { Weights::open(path("step-000000000002")); });
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error.path(), path("step-000000000002"));
  EXPECT_NE(error.message().find("\"state.pt\""), std::string::npos) << error.message();
  EXPECT_EQ(Weights::open(dir_ / "run", {.verify = false}).path(), path("step-000000000002"));
  EXPECT_NO_THROW(Weights::open(path("step-000000000002"), {.verify = false}));
}

TEST_F(OpenRunTest, TheCopyOfTheWeightsIsReadWhereThereIsNoState) {
  run::RunWriter writer(dir_ / "run");
  run::testing::save(writer, {1});
  EXPECT_EQ(test::names_of(Weights::open(dir_ / "run")), (Names{"w"}));
  EXPECT_EQ(test::error_of([&] { Weights::open(dir_ / "run", {.ema = true}); }).code(), ErrorCode::kNotFound);
}

TEST_F(OpenRunTest, AnEmptyRunAndAPartialCheckpointAreErrors) {
  std::filesystem::create_directory(dir_ / "empty");
  EXPECT_EQ(test::error_of([&] { Weights::open(dir_ / "empty"); }).code(), ErrorCode::kNotFound);
  save({1});
  std::filesystem::remove(path("step-000000000001/MANIFEST.json"));
  for (const bool verify : {false, true}) {
    const OpenOptions options{.verify = verify};
    EXPECT_EQ(test::error_of([&] { Weights::open(path("step-000000000001"), options); }).code(), ErrorCode::kCorrupt);
    EXPECT_EQ(test::error_of([&] { Weights::open(dir_ / "run", options); }).code(), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace ckpt::weights
