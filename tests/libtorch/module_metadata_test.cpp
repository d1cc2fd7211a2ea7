// A state_dict's `_metadata` of live modules, and archives that LibTorch loads into modules without tensors.
#include <gtest/gtest.h>

#include "core/weights/training_files.h"
#include "core/weights/weights.h"
#include "libtorch/weights_helpers.h"
#include "support/python.h"

namespace ckpt {
namespace {

using test::identical;
using test::SmallNet;
using test::TempDir;

const std::string kGolden = CKPT_TEST_DATA "/torch/state_dict.pt";

/// "path:version" of every module, in order.
std::vector<std::string> modules_in(const std::string& path) {
  const auto weights = weights::Weights::open(path);
  std::vector<std::string> modules;
  for (const auto& [module, value] : weights.module_metadata().items()) {
    modules.push_back(module + ":" + std::to_string(value.at("version").get<int>()));
  }
  return modules;
}

std::vector<std::string> modules_of(const torch::nn::Module& module) {
  const TempDir dir;
  ModelState::of(module).save(dir / "w.pt", Format::kTorch);
  return modules_in(dir / "w.pt");
}

/// As tests/data/make_torch_files.py has it.
torch::nn::Sequential golden_model() {
  using namespace torch::nn;
  return Sequential({{"conv", AnyModule(Conv2d(1, 2, 2))},
                     {"norm", AnyModule(BatchNorm2d(2))},
                     {"flat", AnyModule(Flatten())},
                     {"fc", AnyModule(Linear(2, 3))}});
}

struct ManyKindsImpl : torch::nn::Module {
  ManyKindsImpl() {
    using namespace torch::nn;
    register_module("bn1", BatchNorm1d(2));
    register_module("bn3", BatchNorm3d(BatchNorm3dOptions(2).affine(false).track_running_stats(false)));
    register_module("in2", InstanceNorm2d(2));
    register_module("in3", InstanceNorm3d(InstanceNorm3dOptions(2).affine(true).track_running_stats(true)));
    register_module("ln", LayerNorm(LayerNormOptions({2})));
    register_module("gn", GroupNorm(1, 2));
    register_module("emb", Embedding(3, 2));
    register_module("lstm", LSTM(2, 2));
    register_module("cell", GRUCell(2, 2));
    register_module("mha", MultiheadAttention(4, 2));
    register_module("layer", TransformerEncoderLayer(4, 2));
    register_module("prelu", PReLU());
    register_module("tail", Sequential(Linear(1, 1), Dropout(), Functional(torch::relu)));
  }
};
TORCH_MODULE(ManyKinds);

/// The same in Python.
constexpr const char* kManyKindsInPython = R"(
import sys, torch
from torch.nn import *
net = Module()
for name, kind in dict(bn1=BatchNorm1d(2), bn3=BatchNorm3d(2, affine=False, track_running_stats=False),
        in2=InstanceNorm2d(2), in3=InstanceNorm3d(2, affine=True, track_running_stats=True), ln=LayerNorm(2),
        gn=GroupNorm(1, 2), emb=Embedding(3, 2), lstm=LSTM(2, 2), cell=GRUCell(2, 2), mha=MultiheadAttention(4, 2),
        layer=TransformerEncoderLayer(4, 2), prelu=PReLU(), tail=Sequential(Linear(1, 1), Dropout())).items():
    net.register_module(name, kind)
read = torch.load(sys.argv[1], weights_only=True)
net.load_state_dict(read)
print(list(read._metadata.items()) == list(net.state_dict()._metadata.items()) and list(read) == list(net.state_dict()))
)";

TEST(ModuleMetadata, OfLiveModulesIsWhatPythonHas) {
  EXPECT_EQ(modules_of(*golden_model()), modules_in(kGolden));
  EXPECT_EQ(modules_of(*ManyKinds()), (std::vector<std::string>{":1",
                                                                "bn1:2",
                                                                "bn3:2",
                                                                "in2:2",
                                                                "in3:2",
                                                                "ln:1",
                                                                "gn:1",
                                                                "emb:1",
                                                                "lstm:1",
                                                                "cell:1",
                                                                "mha:1",
                                                                "mha.out_proj:1",
                                                                "layer:1",
                                                                "layer.self_attn:1",
                                                                "layer.self_attn.out_proj:1",
                                                                "layer.linear1:1",
                                                                "layer.dropout:1",
                                                                "layer.linear2:1",
                                                                "layer.norm1:1",
                                                                "layer.norm2:1",
                                                                "layer.dropout1:1",
                                                                "layer.dropout2:1",
                                                                "prelu:1",
                                                                "tail:1",
                                                                "tail.0:1",
                                                                "tail.1:1"}));
}

TEST(ModuleMetadata, IsWithoutTheWrapper) {
  const auto inner = std::make_shared<torch::nn::SequentialImpl>(torch::nn::BatchNorm1d(2), torch::nn::Dropout());
  EXPECT_EQ(modules_of(test::Wrapper("module", inner)), (std::vector<std::string>{":1", "0:2", "1:1"}));
  const TempDir dir;
  ModelState::of({{"a", torch::ones({2})}}).save(dir / "w.pt", Format::kTorch);
  EXPECT_TRUE(modules_in(dir / "w.pt").empty()) << "a list of tensors has no modules";
}

TEST(ModuleMetadata, IsTakenByPython) {
  if (test::python() == nullptr) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  const TempDir dir;
  ModelState::of(*ManyKinds()).save(dir / "w.pt", Format::kTorch);
  test::write_all(dir / "load.py", kManyKindsInPython);
  EXPECT_EQ(test::output_of({test::python(), dir / "load.py", dir / "w.pt"}), "True\n");
}

TEST(ModuleMetadata, OfAPythonFileLetsLibTorchLoadTheArchive) {
  const TempDir dir;
  const auto golden = ModelState::open(kGolden);
  golden.save(dir / "a.pt", Format::kArchive);
  ModelState::open(dir / "a.pt").save(dir / "again.pt", Format::kArchive);
  for (const char* name : {"a.pt", "again.pt"}) {
    torch::nn::Sequential live = golden_model(), expected = golden_model();
    golden.load_into(*expected);
    torch::load(live, dir / name);
    EXPECT_TRUE(identical(*live, *expected)) << name;
    for (const torch::Tensor& parameter : live->parameters()) EXPECT_TRUE(parameter.requires_grad());
  }
}

TEST(ModuleMetadata, OfALiveModuleLetsLibTorchLoadWhatBecameOfIt) {
  const TempDir dir;
  SmallNet net;
  test::fill(*net, 2);
  ModelState::of(*net).save(dir / "torch.pt", Format::kTorch);
  ModelState::open(dir / "torch.pt").save(dir / "a.pt", Format::kArchive);
  ModelState::of(*net).save(dir / "b.pt", Format::kArchive);
  for (const char* name : {"a.pt", "b.pt"}) {
    SmallNet live;
    torch::load(live, dir / name);
    EXPECT_TRUE(identical(*live, *net)) << name;
  }
}

TEST(ModuleMetadata, LetsLibTorchLoadAConvertedCheckpoint) {
  const TempDir dir;
  const auto report = weights::convert_to_run(kGolden, dir / "run");
  torch::serialize::InputArchive file, part;
  file.load_from(report.outputs.at(0) + "/state.pt");
  file.read("model", part);
  torch::nn::Sequential live = golden_model(), expected = golden_model();
  live->load(part);
  ModelState::open(kGolden).load_into(*expected);
  EXPECT_TRUE(identical(*live, *expected));
}

TEST(ModuleMetadata, TellsParametersWhereTheFileDoesNot) {
  const TempDir dir;
  ModelState::open(kGolden).save(dir / "a.pt", Format::kArchive);
  const auto weights = ModelState::open(dir / "a.pt");
  for (const TensorInfo& info : weights.tensors()) {
    const bool is_buffer = info.name.find("running_") != std::string::npos || info.dtype == "int64";
    EXPECT_EQ(info.is_parameter, !is_buffer) << info.name;
  }
}

}  // namespace
}  // namespace ckpt
