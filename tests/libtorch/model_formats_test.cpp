// Loading weights from files of other programs: golden ones of Python's torch, and those of LibTorch and ckpt.
#include <gtest/gtest.h>

#include "ckpt/checkpoint_manager.h"
#include "ckpt/training_state.h"
#include "libtorch/weights_helpers.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::SmallNet;
using test::TempDir;

std::string golden(const std::string& name) { return std::string(CKPT_TEST_DATA) + "/torch/" + name; }

/// model() of tests/data/make_torch_files.py.
struct PythonNet : torch::nn::Module {
  PythonNet() {
    register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 2, 2)));
    register_module("norm", torch::nn::BatchNorm2d(2));
    register_module("fc", torch::nn::Linear(2, 3));
    test::fill(*this, -1);
  }
};

/// Each tensor is 0, 1, 2, ...
void expect_filled(const torch::nn::Module& module, const std::string& where) {
  for (const auto& [name, tensor] : state_dict(module)) {
    const torch::Tensor expected = torch::arange(tensor.numel()).to(tensor.scalar_type()).view(tensor.sizes());
    EXPECT_TRUE(identical(tensor, expected)) << where << ": " << name;
  }
}

TEST(ModelFormats, LoadsWhatPythonWrote) {
  for (const auto& [name, format] :
       std::vector<std::pair<std::string, Format>>{{"state_dict.pt", Format::kTorch},
                                                   {"training-protocol2.pt", Format::kTorch},
                                                   {"training-protocol5.pt", Format::kTorch},
                                                   {"training-legacy-protocol2.pt", Format::kTorchLegacy},
                                                   {"training-legacy-protocol4.pt", Format::kTorchLegacy},
                                                   {"traced.pt", Format::kTorchScript}}) {
    PythonNet net;
    const auto weights = ModelState::open(golden(name));
    EXPECT_EQ(weights.format(), format) << name;
    weights.load_into(net);
    expect_filled(net, name);
  }
}

TEST(ModelFormats, FindsWeightsByKey) {
  PythonNet net;
  ModelState::open(golden("training-protocol2.pt"), {.key = "model_state_dict"}).load_into(net);
  expect_filled(net, "model_state_dict");
  EXPECT_EQ(error_of([&] { ModelState::open(golden("training-protocol2.pt"), {.key = "absent"}); }).code(),
            ErrorCode::kNotFound);
  EXPECT_EQ(error_of([&] { ModelState::open(golden("training-protocol2.pt"), {.ema = true}); }).code(),
            ErrorCode::kNotFound);
}

TEST(ModelFormats, ReadsTensorsOfAnyShapeAndStrides) {
  const torch::Tensor base = torch::arange(24, torch::kFloat).view({4, 6});
  for (const char* name : {"shapes.pt", "shapes-legacy.pt"}) {
    const auto weights = ModelState::open(golden(name));
    EXPECT_TRUE(identical(weights.tensor("scalar"), torch::tensor(2.5f)));
    EXPECT_TRUE(identical(weights.tensor("empty"), torch::zeros({0, 4})));
    EXPECT_TRUE(identical(weights.tensor("row"), base[2]));
    EXPECT_TRUE(identical(weights.tensor("transposed"), base.t()));
    EXPECT_TRUE(identical(weights.tensor("stepped"), base.slice(0, 0, 4, 2).slice(1, 1, 6, 2)));
    EXPECT_TRUE(identical(weights.tensor("overlapping"), base.as_strided({3, 4}, {2, 1})));
    EXPECT_TRUE(identical(weights.tensor("expanded"), torch::full({3}, 7.0f)));
    EXPECT_TRUE(identical(weights.slice("transposed", 0, 1, 4), base.t().narrow(0, 1, 3)));
    EXPECT_EQ(weights.find("tied")->tied_to, "base");
    const torch::Tensor live = torch::zeros({6, 4}), last = torch::zeros({4, 6}).t();
    weights.load_into({{"transposed", live}}, {.strict = false});
    weights.load_into({{"transposed", last}}, {.strict = false});
    EXPECT_TRUE(identical(live, base.t()) && identical(last, base.t())) << name;
  }
}

TEST(ModelFormats, ConvertsDtypesThatThisLibTorchMayNotHave) {
  const auto weights = ModelState::open(golden("dtypes.pt"));
  const torch::Tensor expected = torch::arange(6, torch::kFloat).view({2, 3});
  for (const char* name :
       {"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float16", "bfloat16", "float64", "int64"}) {
    const torch::Tensor live = torch::zeros({2, 3});
    weights.load_into({{name, live}}, {.strict = false, .convert_dtype = true});
    EXPECT_TRUE(identical(live, expected)) << name;
  }
}

TEST(ModelFormats, ListsSparseAndQuantizedTensorsAndRefusesToReadThem) {
  for (const auto& [file, name] : {std::pair("sparse.pt", "coo"), std::pair("quantized.pt", "tensor")}) {
    const auto weights = ModelState::open(golden(file));
    ASSERT_TRUE(weights.contains(name)) << file;
    EXPECT_EQ(error_of([&] { weights.tensor(name); }).code(), ErrorCode::kUnsupported) << file;
    EXPECT_EQ(error_of([&] { weights.slice(name, 0, 0, 1); }).code(), ErrorCode::kUnsupported) << file;
    EXPECT_EQ(error_of([&] { weights.state_dict(); }).code(), ErrorCode::kUnsupported) << file;
    const torch::Tensor live = torch::zeros({2, 3});
    EXPECT_EQ(error_of([&] { weights.load_into({{name, live}}, {.strict = false}); }).code(), ErrorCode::kMismatch);
  }
}

TEST(ModelFormats, LoadsWhatIsBesideForeignValues) {
  const auto weights = ModelState::open(golden("foreign.pt"));
  EXPECT_FALSE(weights.warnings().empty());
  const torch::Tensor live = torch::zeros({2, 2});
  weights.load_into({{"weight", live}}, {.strict = false});
  EXPECT_EQ(live.sum().item<float>(), 6.0f);
}

TEST(ModelFormats, LoadsWhatLibTorchWrote) {
  const TempDir dir;
  SmallNet saved, live;
  torch::save(saved, dir / "model.pt");
  const auto weights = ModelState::open(dir / "model.pt");
  EXPECT_EQ(weights.format(), Format::kArchive);
  EXPECT_TRUE(weights.find("conv.weight")->is_parameter);
  weights.load_into(*live);
  EXPECT_TRUE(identical(*saved, *live));
}

TEST(ModelFormats, LoadsCheckpointsAndRuns) {
  const TempDir dir;
  SmallNet model, ema, live;
  TrainingState state;
  state.add_module("model", *model).add_module("ema", *ema);
  state.iteration = 5;
  CheckpointManager manager(dir / "run");
  const std::string checkpoint = manager.save(state).path;
  for (const std::string& path : {dir / "run", checkpoint, checkpoint + "/state.pt"}) {
    ModelState::open(path).load_into(*live);
    EXPECT_TRUE(identical(*model, *live)) << path;
    ModelState::open(path, {.ema = true}).load_into(*live);
    EXPECT_TRUE(identical(*ema, *live)) << path;
  }
  EXPECT_EQ(ModelState::open(dir / "run").path(), checkpoint);
}

TEST(ModelFormats, FindsADamagedRecordBeforeItTouchesTheModule) {
  const TempDir dir;
  SmallNet saved, live;
  test::fill(*live, 9);
  torch::save(saved, dir / "model.pt");
  std::string bytes = test::read_all(dir / "model.pt");
  const TensorInfo damaged = *ModelState::open(dir / "model.pt").find("norm.running_var");
  bytes[damaged.file_offset] ^= 1;
  test::write_all(dir / "model.pt", bytes);

  const auto weights = ModelState::open(dir / "model.pt");
  const Error error = error_of([&] { weights.load_into(*live); });
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error.tensor(), "norm.running_var");
  EXPECT_NE(std::string(error.what()).find(damaged.record), std::string::npos) << error.what();
  for (const torch::Tensor& tensor : test::tensors_of(*live)) {
    EXPECT_TRUE((tensor == 9).all().item<bool>());
  }
  EXPECT_EQ(error_of([&] { weights.state_dict(); }).code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of([&] { weights.tensor("norm.running_var"); }).code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of([&] { weights.save(dir / "out", Format::kSafetensors); }).code(), ErrorCode::kCorrupt);
  EXPECT_TRUE(identical(weights.tensor("conv.weight"), saved->conv->weight)) << "damage elsewhere is no matter";
  weights.load_into(*live, {.exclude = {"running_var"}});
  EXPECT_TRUE(identical(live->fc->weight, saved->fc->weight));
  weights.load_into(*live, {.verify = false});
  EXPECT_FALSE(identical(live->norm->running_var, saved->norm->running_var));
}

}  // namespace
}  // namespace ckpt
