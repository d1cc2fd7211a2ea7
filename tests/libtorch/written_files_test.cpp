// LibTorch reads what core/format writes without it.
#include <caffe2/serialize/inline_container.h>
#include <gtest/gtest.h>
#include <torch/script.h>
#include <torch/torch.h>

#include "core/format/archive_writer.h"
#include "core/format/torch_writer.h"
#include "core/format/zip_writer.h"
#include "support/made_tensors.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

class WrittenFiles : public testing::Test {
 protected:
  std::string write(const ArchiveToWrite& root, const std::vector<TensorToWrite>& tensors) {
    io::replace_file(dir_ / "x.pt", [&](io::BlockWriter& writer) { write_archive(writer, root, tensors); });
    return dir_ / "x.pt";
  }
  std::string write(const std::vector<TensorToWrite>& tensors) { return write(archive_of(tensors), tensors); }

  test::TempDir dir_;
};

/// The dtypes that every LibTorch has.
const std::vector<std::pair<DType, torch::Dtype>> kDtypes = {{DType::kBool, torch::kBool},
                                                             {DType::kUInt8, torch::kUInt8},
                                                             {DType::kInt8, torch::kInt8},
                                                             {DType::kInt16, torch::kInt16},
                                                             {DType::kInt32, torch::kInt32},
                                                             {DType::kInt64, torch::kInt64},
                                                             {DType::kFloat16, torch::kFloat16},
                                                             {DType::kBFloat16, torch::kBFloat16},
                                                             {DType::kFloat32, torch::kFloat32},
                                                             {DType::kFloat64, torch::kFloat64},
                                                             {DType::kComplex32, torch::kComplexHalf},
                                                             {DType::kComplex64, torch::kComplexFloat},
                                                             {DType::kComplex128, torch::kComplexDouble}};

std::string content_of(const torch::Tensor& tensor) {
  EXPECT_TRUE(tensor.is_contiguous());
  return {static_cast<const char*>(tensor.data_ptr()), tensor.nbytes()};
}

/// `made` as `module` has it: the bytes stay the module's.
std::vector<TensorToWrite> tensors_of(const torch::nn::Module& module) {
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const std::string& name, const torch::Tensor& tensor, bool is_parameter) {
    const DType dtype = tensor.dtype() == torch::kFloat32 ? DType::kFloat32 : DType::kInt64;
    const ByteView bytes(static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes());
    tensors.push_back(
        {.name = name, .dtype = dtype, .shape = tensor.sizes().vec(), .data = bytes, .is_parameter = is_parameter});
  };
  for (const auto& item : module.named_parameters()) add(item.key(), item.value(), true);
  for (const auto& item : module.named_buffers()) add(item.key(), item.value(), false);
  return tensors;
}

struct NetImpl : torch::nn::Module {
  NetImpl() {
    register_module("conv", torch::nn::Conv2d(1, 2, 3));
    register_module("norm", torch::nn::BatchNorm2d(2));
    register_module("tail", torch::nn::Sequential(torch::nn::Linear(8, 4), torch::nn::LSTM(4, 3)));
    register_parameter("scale", torch::randn({1}));
  }
};
TORCH_MODULE(Net);

TEST_F(WrittenFiles, AModuleLoadsAnArchive) {
  Net saved, loaded;
  torch::load(loaded, write(tensors_of(*saved)));
  const auto expected = tensors_of(*saved), read = tensors_of(*loaded);
  ASSERT_EQ(read.size(), expected.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(as_text(read[i].data.memory), as_text(expected[i].data.memory)) << read[i].name;
  }
  for (const torch::Tensor& parameter : loaded->parameters()) EXPECT_TRUE(parameter.requires_grad());
}

TEST_F(WrittenFiles, AnInputArchiveReadsEveryKindOfValue) {
  test::MadeTensors made;
  made.add("a", DType::kFloat32, {2});
  made.add("b", DType::kInt32, {1});
  ArchiveToWrite inner, root;
  inner.members = {{"n", int64_t{1}}, {"w", TensorPlace{1}}};
  const std::vector<int64_t> many(2500, -70000);
  root.members = {{"none", std::monostate()},
                  {"true", true},
                  {"int", int64_t{-9000000000000000000}},
                  {"small", int64_t{300}},
                  {"float", 0.1},
                  {"text", std::string("a \"text\"\n\xc3\xa9")},
                  {"ints", std::vector<int64_t>{1, -2, int64_t{1} << 40}},
                  {"no_ints", std::vector<int64_t>{}},
                  {"many_ints", many},
                  {"floats", std::vector<double>{0.5, -1e300}},
                  {"tensors", std::vector<TensorPlace>{{0}, {1}, {0}}},
                  {"no_tensors", std::vector<TensorPlace>{}},
                  {"inner", std::make_shared<const ArchiveToWrite>(inner)},
                  {"hollow", std::make_shared<const ArchiveToWrite>()}};
  torch::serialize::InputArchive archive;
  archive.load_from(write(root, made.list()));
  EXPECT_EQ(archive.keys().size(), root.members.size());
  const auto value = [&](const char* name) {
    c10::IValue read;
    archive.read(name, read);
    return read;
  };
  EXPECT_TRUE(value("none").isNone());
  EXPECT_TRUE(value("true").toBool());
  EXPECT_EQ(value("int").toInt(), -9000000000000000000);
  EXPECT_EQ(value("small").toInt(), 300);
  EXPECT_EQ(value("float").toDouble(), 0.1);
  EXPECT_EQ(value("text").toStringRef(), "a \"text\"\n\xc3\xa9");
  EXPECT_EQ(value("ints").toIntVector(), (std::vector<int64_t>{1, -2, int64_t{1} << 40}));
  EXPECT_TRUE(value("no_ints").toIntVector().empty());
  EXPECT_EQ(value("many_ints").toIntVector(), many);
  EXPECT_EQ(value("floats").toDoubleVector(), (std::vector<double>{0.5, -1e300}));
  const std::vector<torch::Tensor> tensors = value("tensors").toTensorVector();
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(content_of(tensors[1]), made.content(1));
  EXPECT_EQ(tensors[0].data_ptr(), tensors[2].data_ptr());
  EXPECT_TRUE(value("no_tensors").toTensorVector().empty());
  torch::serialize::InputArchive nested, hollow;
  archive.read("inner", nested);
  archive.read("hollow", hollow);
  torch::Tensor w;
  nested.read("w", w);
  EXPECT_EQ(w.data_ptr(), tensors[1].data_ptr());
  EXPECT_TRUE(hollow.keys().empty());
}

TEST_F(WrittenFiles, TorchScriptLoadsEveryDtypeShapeTieAndName) {
  test::MadeTensors made;
  for (const auto& [dtype, torch_dtype] : kDtypes)
    made.add(std::string(name(dtype)), dtype, {2, 3}).is_parameter = true;
  made.add("scalar", DType::kFloat32, {});
  made.add("empty", DType::kFloat64, {0, 4});
  made.add("net.weight", DType::kFloat32, {3, 2}).is_parameter = true;
  made.tie("net.tied", made.list().size() - 1);
  const size_t ordinary = made.list().size();
  for (const std::string& name : test::odd_names()) made.add("odd." + name, DType::kFloat32, {1}).is_parameter = true;
  for (const std::string& name : test::odd_names()) made.add("levels." + name + ".w", DType::kFloat32, {1});

  torch::jit::Module module = torch::jit::load(write(made.list()));
  for (size_t i = 0; i < made.list().size(); ++i) {
    const TensorToWrite& expected = made.list()[i];
    torch::jit::Module level = module;
    std::string rest = expected.name;
    if (i >= ordinary || rest.starts_with("net.")) {
      const bool deep = rest.starts_with("levels.");
      level = level.attr(rest.substr(0, rest.find('.'))).toModule();
      rest = rest.substr(rest.find('.') + 1);
      if (deep) {
        level = level.attr(rest.substr(0, rest.size() - 2)).toModule();
        rest = "w";
      }
    }
    const torch::Tensor read = level.attr(rest).toTensor();
    EXPECT_EQ(read.sizes().vec(), expected.shape) << expected.name;
    EXPECT_EQ(content_of(read), made.content(i)) << expected.name;
    if (i < kDtypes.size()) {
      EXPECT_EQ(read.scalar_type(), kDtypes[i].second) << expected.name;
    }
    EXPECT_EQ(read.requires_grad(),
              expected.is_parameter && (is_floating(expected.dtype) || is_complex(expected.dtype)))
        << expected.name;
  }
  const torch::jit::Module pair = module.attr("net").toModule();
  EXPECT_EQ(pair.attr("weight").toTensor().data_ptr(), pair.attr("tied").toTensor().data_ptr());
  EXPECT_EQ(module.named_parameters().size(), kDtypes.size() + 2 + test::odd_names().size());
  EXPECT_EQ(module.named_buffers().size(), 2 + test::odd_names().size());
}

TEST_F(WrittenFiles, DeepAndWideArchivesLoad) {
  std::string deep;
  for (int i = 0; i < 999; ++i) deep += "n.";
  test::MadeTensors made;
  made.add(deep + "w", DType::kFloat32, {1});
  for (int i = 0; i < 2000; ++i) made.add("wide." + std::to_string(i) + ".w", DType::kFloat32, {1});
  const torch::jit::Module module = torch::jit::load(write(made.list()));
  EXPECT_EQ(module.named_buffers().size(), 2001u);
}

TEST_F(WrittenFiles, LibTorchsZipReaderReadsWhatPythonWouldRead) {
  test::MadeTensors made;
  for (const auto& [dtype, torch_dtype] : kDtypes) made.add(std::string(name(dtype)), dtype, {2, 3});
  made.add("empty", DType::kFloat64, {0, 4});
  io::replace_file(dir_ / "x.pt", [&](io::BlockWriter& writer) {
    write_torch(writer, state_dict_value(made.list(), {PickleValue::None()}), made.list());
  });
  caffe2::serialize::PyTorchStreamReader reader(dir_ / "x.pt");
  for (size_t i = 0; i < made.list().size(); ++i) {
    const auto [data, bytes] = reader.getRecord("data/" + std::to_string(i));
    EXPECT_EQ(std::string(static_cast<const char*>(data.get()), bytes), made.content(i));
  }
  EXPECT_EQ(reader.version(), 3u);
  EXPECT_EQ(reader.getAllRecords().size(), made.list().size() + 6);
}

TEST_F(WrittenFiles, LibTorchsZipReaderReadsManyRecords) {
  const int count = 70000;  // more than the 16 bits of a plain end record count
  io::replace_file(dir_ / "x.pt", [&](io::BlockWriter& writer) {
    ZipWriter zip(writer, "archive");
    for (int i = 0; i < count; ++i) zip.add_text("data/" + std::to_string(i), std::to_string(i));
    zip.add_text("version", "3\n");
    zip.finish();
  });
  caffe2::serialize::PyTorchStreamReader reader(dir_ / "x.pt");
  EXPECT_EQ(reader.getAllRecords().size(), static_cast<size_t>(count) + 1);
  const auto [data, bytes] = reader.getRecord("data/69999");
  EXPECT_EQ(std::string(static_cast<const char*>(data.get()), bytes), "69999");
}

}  // namespace
}  // namespace ckpt::format
