// What Python's torch 2.13.0 wrote (tests/data/make_torch_files.py), read without it.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/format/torch_file.h"

namespace ckpt::format {
namespace {

TorchFile open(const std::string& name) {
  return TorchFile::open(io::File::open(std::string(CKPT_TEST_DATA) + "/torch/" + name + ".pt"));
}

/// The tensors of a whole file by name.
std::map<std::string, StoredTensor> tensors_of(const TorchFile& file) {
  std::map<std::string, StoredTensor> tensors;
  for (NamedTensor& tensor : tensors_below(file, file.root()).tensors) {
    EXPECT_TRUE(tensors.emplace(tensor.name, std::move(tensor.stored)).second) << tensor.name;
  }
  return tensors;
}

std::vector<std::string> names_of(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

/// The elements in row-major order, found by the strides.
template <class T>
std::vector<T> contents(const TorchFile& file, const StoredTensor& tensor) {
  std::vector<T> values;
  for (uint64_t i = 0; i < tensor.elements; ++i) {
    uint64_t rest = i, place = tensor.file_offset;
    for (size_t dim = tensor.shape.size(); dim-- > 0;) {
      const auto size = static_cast<uint64_t>(tensor.shape[dim]);
      place += rest % size * static_cast<uint64_t>(tensor.strides[dim]) * sizeof(T);
      rest /= size;
    }
    T value;
    file.file().read_at(place, std::as_writable_bytes(std::span(&value, 1)));
    values.push_back(value);
  }
  return values;
}

/// first, first + 1, ...
std::vector<float> ramp(size_t size, float first = 0) {
  std::vector<float> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = first + static_cast<float>(i);
  return values;
}

using Floats = std::vector<float>;
using Sizes = std::vector<int64_t>;

// --- Both formats ---------------------------------------------------------------------------------------------------

class TorchGolden : public testing::TestWithParam<bool> {
 protected:
  static bool is_legacy() { return GetParam(); }
  static TorchFile open_either(const std::string& name) { return open(is_legacy() ? name + "-legacy" : name); }
};

INSTANTIATE_TEST_SUITE_P(Formats, TorchGolden, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "Legacy" : "Zip"; });

TEST_P(TorchGolden, ReadsEveryDtype) {
  const TorchFile file = open_either("dtypes");
  const auto tensors = tensors_of(file);
  ASSERT_EQ(tensors.size(), 21u);
  for (const auto& [dtype, tensor] : tensors) {
    EXPECT_EQ(name(tensor.dtype), dtype);
    EXPECT_EQ(tensor.shape, (Sizes{2, 3})) << dtype;
    EXPECT_EQ(tensor.bytes, 6 * width(tensor.dtype)) << dtype;
    EXPECT_TRUE(tensor.contiguous()) << dtype;
    EXPECT_EQ(tensor.layout, TensorLayout::kStrided) << dtype;
    EXPECT_FALSE(tensor.big_endian) << dtype;
    EXPECT_EQ(tensor.record.empty(), is_legacy()) << dtype;
  }
  EXPECT_EQ(contents<float>(file, tensors.at("float32")), ramp(6));
  EXPECT_EQ(contents<int16_t>(file, tensors.at("int16")), (std::vector<int16_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(contents<uint64_t>(file, tensors.at("uint64")), (std::vector<uint64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(contents<double>(file, tensors.at("float64")), (std::vector<double>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(contents<uint16_t>(file, tensors.at("bfloat16")),
            (std::vector<uint16_t>{0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0}));
  EXPECT_EQ(contents<uint16_t>(file, tensors.at("float16")),
            (std::vector<uint16_t>{0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500}));
  EXPECT_EQ(contents<uint8_t>(file, tensors.at("bool")), (std::vector<uint8_t>{0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(contents<uint8_t>(file, tensors.at("float8_e4m3fn")),
            (std::vector<uint8_t>{0, 0x38, 0x40, 0x44, 0x48, 0x4a}));
  EXPECT_EQ(contents<uint32_t>(file, tensors.at("complex32")),
            (std::vector<uint32_t>{0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500}));
}

TEST_P(TorchGolden, ReadsViewsTiesAndOddShapes) {
  const TorchFile file = open_either("shapes");
  const auto tensors = tensors_of(file);
  ASSERT_EQ(tensors.size(), 10u);
  const StoredTensor& base = tensors.at("base");
  EXPECT_TRUE(tensors.at("scalar").shape.empty());
  EXPECT_EQ(contents<float>(file, tensors.at("scalar")), (Floats{2.5f}));
  EXPECT_EQ(tensors.at("empty").shape, (Sizes{0, 4}));
  EXPECT_EQ(tensors.at("empty").bytes, 0u);
  EXPECT_EQ(tensors.at("tied").file_offset, base.file_offset);
  EXPECT_EQ(contents<float>(file, tensors.at("row")), ramp(6, 12));
  for (const char* view : {"tied", "row", "transposed", "stepped", "overlapping"}) {
    EXPECT_EQ(tensors.at(view).storage_offset, base.file_offset) << view;
    EXPECT_EQ(tensors.at(view).storage_bytes, 96u) << view;
    EXPECT_EQ(tensors.at(view).record, base.record) << view;
  }
  EXPECT_EQ(tensors.at("transposed").shape, (Sizes{6, 4}));
  EXPECT_FALSE(tensors.at("transposed").contiguous());
  EXPECT_EQ(contents<float>(file, tensors.at("stepped")), (Floats{1, 3, 5, 13, 15, 17}));
  EXPECT_EQ(contents<float>(file, tensors.at("overlapping")), (Floats{0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7}));
  EXPECT_EQ(tensors.at("expanded").strides, (Sizes{0}));
  EXPECT_EQ(contents<float>(file, tensors.at("expanded")), (Floats{7, 7, 7}));
  EXPECT_EQ(tensors.at("fortran").strides, (Sizes{1, 2}));
  EXPECT_EQ(contents<float>(file, tensors.at("fortran")), ramp(6));
}

TEST_P(TorchGolden, NamesAPickledModulesTensorsAsItsStateDict) {
  const TorchFile file = open_either("module");
  const auto below = tensors_below(file, file.root());
  EXPECT_EQ(names_of(below.tensors), (std::vector<std::string>{"weight", "kept", "inner.weight", "inner.bias"}));
  EXPECT_TRUE(below.foreign.empty());
  EXPECT_EQ(file.kind(file.root()), TorchKind::kModule);
  EXPECT_TRUE(below.tensors[0].stored.is_parameter);
  EXPECT_FALSE(below.tensors[1].stored.is_parameter);
  EXPECT_EQ(contents<float>(file, below.tensors[0].stored), ramp(4));
  EXPECT_EQ(contents<float>(file, below.tensors[2].stored), ramp(2));
  std::vector<std::string> foreign;
  for (const TorchFile::Global& global : file.globals()) {
    if (!global.understood) foreign.push_back(global.name);
  }
  EXPECT_EQ(foreign, (std::vector<std::string>{"__main__.Buffers", "torch.nn.modules.linear.Linear"}));
}

TEST_P(TorchGolden, ReadsATrainingFileOfEveryProtocol) {
  for (int protocol = 2; protocol <= 5; ++protocol) {
    SCOPED_TRACE(protocol);
    const TorchFile file =
        open(std::string(is_legacy() ? "training-legacy" : "training") + "-protocol" + std::to_string(protocol));
    EXPECT_EQ(file.zip() == nullptr, is_legacy());
    const auto below = tensors_below(file, file.root());
    EXPECT_EQ(
        names_of(below.tensors),
        (std::vector<std::string>{"model_state_dict.conv.weight", "model_state_dict.conv.bias",
                                  "model_state_dict.norm.weight", "model_state_dict.norm.bias",
                                  "model_state_dict.norm.running_mean", "model_state_dict.norm.running_var",
                                  "model_state_dict.norm.num_batches_tracked", "model_state_dict.fc.weight",
                                  "model_state_dict.fc.bias", "optimizer.state.0.step", "optimizer.state.0.exp_avg",
                                  "list.0", "list.1.0", "parameter", "frozen", "buffer", "default.inside"}));
    EXPECT_TRUE(below.foreign.empty());
    for (const TorchFile::Global& global : file.globals()) EXPECT_TRUE(global.understood) << global.name;
    const auto tensors = tensors_of(file);
    EXPECT_EQ(contents<float>(file, tensors.at("model_state_dict.fc.weight")), ramp(6));
    EXPECT_EQ(contents<float>(file, tensors.at("optimizer.state.0.step")), (Floats{5}));
    EXPECT_TRUE(tensors.at("parameter").is_parameter);
    EXPECT_TRUE(tensors.at("frozen").is_parameter);
    EXPECT_FALSE(tensors.at("buffer").is_parameter);
  }
}

TEST_P(TorchGolden, TellsWhatEveryValueIs) {
  const TorchFile file = open(is_legacy() ? "training-legacy-protocol2" : "training-protocol2");
  const auto node = [&](const char* key) { return file.find(file.root(), key); };
  EXPECT_EQ(file.kind(node("epoch")), TorchKind::kInt);
  EXPECT_EQ(file.pickle().integer(node("epoch")), 3);
  EXPECT_EQ(file.kind(node("model_state_dict")), TorchKind::kDict);
  EXPECT_NE(file.state_dict_metadata(node("model_state_dict")), kNoNode);
  EXPECT_EQ(file.kind(node("list")), TorchKind::kList);
  EXPECT_EQ(file.items(node("list")).size(), 2u);
  EXPECT_EQ(file.kind(node("parameter")), TorchKind::kTensor);
  EXPECT_EQ(file.kind(node("default")), TorchKind::kDict);
  EXPECT_EQ(file.kind(node("counter")), TorchKind::kDict);
  EXPECT_EQ(file.pickle().integer(file.find(node("counter"), "a")), 2);
  EXPECT_EQ(file.kind(node("set")), TorchKind::kList);
  EXPECT_EQ(file.items(node("set")).size(), 2u);
  EXPECT_EQ(file.kind(node("size")), TorchKind::kList);
  EXPECT_EQ(file.pickle().integer(file.items(node("size"))[1]), 3);
  EXPECT_EQ(file.kind(node("dtype")), TorchKind::kDType);
  EXPECT_EQ(file.dtype(node("dtype")), DType::kBFloat16);
  EXPECT_EQ(file.dtype(node("size")), std::nullopt);
  for (const char* key : {"device", "complex", "big"}) EXPECT_EQ(file.kind(node(key)), TorchKind::kOther) << key;
  const PickleNode state = file.find(node("optimizer"), "state");
  ASSERT_EQ(file.items(state).size(), 2u);
  EXPECT_EQ(file.key_text(file.items(state)[0]), "0");
  EXPECT_EQ(file.key_text(node("list")), std::nullopt);
  EXPECT_EQ(node("absent"), kNoNode);
  EXPECT_EQ(file.find(node("epoch"), "a"), kNoNode);
}

// --- Zip alone ------------------------------------------------------------------------------------------------------

TEST(TorchGoldenZip, ReadsAStateDictWithItsMetadata) {
  const TorchFile file = open("state_dict");
  const auto below = tensors_below(file, file.root());
  EXPECT_EQ(names_of(below.tensors),
            (std::vector<std::string>{"conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean",
                                      "norm.running_var", "norm.num_batches_tracked", "fc.weight", "fc.bias"}));
  EXPECT_EQ(contents<float>(file, below.tensors[0].stored), ramp(8));
  EXPECT_EQ(below.tensors[7].stored.record, "data/7");
  EXPECT_FALSE(file.is_script());
  EXPECT_FALSE(file.is_training_state());
  const PickleNode metadata = file.state_dict_metadata(file.root());
  ASSERT_NE(metadata, kNoNode);
  const PickleNode norm = file.find(metadata, "norm");
  ASSERT_EQ(file.kind(norm), TorchKind::kDict);
  EXPECT_EQ(file.pickle().integer(file.find(norm, "version")), 2);
  EXPECT_EQ(file.state_dict_metadata(norm), kNoNode);
}

TEST(TorchGoldenZip, NamesAModulesTensorsAlsoInProtocol1) {
  const TorchFile file = open("module-protocol1");
  const auto below = tensors_below(file, file.root());
  EXPECT_EQ(names_of(below.tensors), (std::vector<std::string>{"weight", "kept", "inner.weight", "inner.bias"}));
  EXPECT_TRUE(below.foreign.empty());
  EXPECT_EQ(file.kind(file.root()), TorchKind::kModule);
  EXPECT_EQ(contents<float>(file, below.tensors[0].stored), ramp(4));
  std::vector<std::string> foreign;
  for (const TorchFile::Global& global : file.globals()) {
    if (!global.understood) foreign.push_back(global.name);
  }
  EXPECT_EQ(foreign, (std::vector<std::string>{"__main__.Buffers", "torch.nn.modules.linear.Linear"}));
}

TEST(TorchGoldenZip, LeavesOutWhatForeignGlobalsMade) {
  const TorchFile file = open("foreign");
  const auto below = tensors_below(file, file.root());
  EXPECT_EQ(names_of(below.tensors), (std::vector<std::string>{"weight", "last"}));
  EXPECT_EQ(contents<float>(file, below.tensors[1].stored), ramp(3));
  EXPECT_EQ(below.foreign, (std::vector<std::string>{"args", "scalar", "array", "color", "hostile", "meta", "class"}));
  std::map<std::string, bool> globals;
  for (const TorchFile::Global& global : file.globals()) globals[global.name] = global.understood;
  EXPECT_FALSE(globals.at("posix.system"));
  EXPECT_FALSE(globals.at("numpy.ndarray"));
  EXPECT_TRUE(globals.at("torch._utils._rebuild_tensor_v2"));
  EXPECT_TRUE(globals.at("collections.OrderedDict"));
}

TEST(TorchGoldenZip, ReadsTracedAndScriptedModules) {
  const TorchFile traced = open("traced");
  EXPECT_TRUE(traced.is_script());
  EXPECT_FALSE(traced.is_training_state());
  const auto weights = tensors_of(traced);
  EXPECT_EQ(weights.size(), 9u);
  EXPECT_EQ(contents<float>(traced, weights.at("conv.weight")), ramp(8));
  EXPECT_TRUE(weights.at("conv.weight").is_parameter);
  EXPECT_FALSE(weights.at("norm.running_mean").is_parameter);

  const TorchFile scripted = open("scripted");
  const auto below = tensors_below(scripted, scripted.root());
  EXPECT_EQ(names_of(below.tensors),
            (std::vector<std::string>{"steps", "lookup.a", "several.0", "several.1", "fc.weight", "fc.bias"}));
  EXPECT_EQ(contents<float>(scripted, below.tensors[3].stored), ramp(2));
  EXPECT_EQ(below.foreign, (std::vector<std::string>{"packed._packed_params._packed_params"}));
}

TEST(TorchGoldenZip, ListsSparseAndQuantizedTensors) {
  const auto sparse = tensors_of(open("sparse"));
  ASSERT_EQ(sparse.size(), 4u);
  for (const auto& [name, tensor] : sparse) {
    EXPECT_EQ(tensor.layout, TensorLayout::kSparse) << name;
    EXPECT_EQ(tensor.dtype, DType::kFloat32) << name;
    EXPECT_TRUE(tensor.record.empty()) << name;
  }
  EXPECT_EQ(sparse.at("coo").shape, (Sizes{2, 3}));
  EXPECT_EQ(sparse.at("coo").bytes, 8u);
  EXPECT_EQ(sparse.at("hybrid").shape, (Sizes{2, 3, 4}));
  EXPECT_EQ(sparse.at("csr").bytes, 20u);
  EXPECT_EQ(sparse.at("bsr").shape, (Sizes{2, 4}));

  const TorchFile file = open("quantized");
  const auto quantized = tensors_of(file);
  EXPECT_EQ(quantized.at("tensor").dtype, DType::kQInt8);
  EXPECT_EQ(quantized.at("channel").dtype, DType::kQUInt8);
  EXPECT_EQ(quantized.at("int32").dtype, DType::kQInt32);
  for (const auto& [name, tensor] : quantized) EXPECT_EQ(tensor.layout, TensorLayout::kQuantized) << name;
  EXPECT_EQ(contents<int8_t>(file, quantized.at("tensor")), (std::vector<int8_t>{3, 5, 7, 9, 11, 13}));
}

TEST(TorchGoldenZip, RefusesConjugatedTensorsByName) {
  const TorchFile file = open("conjugated");
  EXPECT_NO_THROW(file.tensor(file.find(file.root(), "plain")));
  try {
    tensors_below(file, file.root());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.tensor(), "z");
    EXPECT_NE(error.message().find("\"conj\""), std::string::npos) << error.message();
  }
}

TEST(TorchGoldenZip, NamesABareTensor) {
  const TorchFile file = open("tensor");
  EXPECT_EQ(file.kind(file.root()), TorchKind::kTensor);
  const auto below = tensors_below(file, file.root());
  EXPECT_EQ(names_of(below.tensors), (std::vector<std::string>{"tensor"}));
  EXPECT_EQ(contents<float>(file, below.tensors[0].stored), ramp(6));
}

TEST(TorchGoldenZip, ReadsArchivesOfLibTorch) {
  const TorchFile file = TorchFile::open(io::File::open(std::string(CKPT_TEST_DATA) + "/archives/model-1.13.1.pt"));
  EXPECT_TRUE(file.is_script());
  const auto tensors = tensors_of(file);
  EXPECT_EQ(tensors.size(), 12u);
  EXPECT_EQ(tensors.at("tail.0.weight").shape, (Sizes{4, 8}));
}

}  // namespace
}  // namespace ckpt::format
