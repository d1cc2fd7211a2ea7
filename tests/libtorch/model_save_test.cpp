// Saving weights in each format, and reading them with ckpt, LibTorch and Python's torch.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "libtorch/weights_helpers.h"
#include "support/python.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::mentions;
using test::read_all;
using test::SmallNet;
using test::TempDir;

const std::vector<Format> kFormats = {Format::kSafetensors, Format::kTorch, Format::kArchive};

std::string file_of(const TempDir& dir, Format format) { return dir / (std::string(to_string(format)) + ".file"); }

/// Names, dtypes, shapes and bits, in whatever order.
void expect_same(const StateDict& actual, const StateDict& expected, const std::string& where) {
  EXPECT_EQ(actual.size(), expected.size()) << where;
  const auto weights = ModelState::of(actual);
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(weights.contains(name)) << where << ": " << name;
    EXPECT_TRUE(identical(weights.tensor(name), tensor.resolve_conj())) << where << ": " << name;
  }
}

TEST(ModelSave, WritesAModuleInEachFormat) {
  const TempDir dir;
  SmallNet net;
  test::fill(*net->norm, 3);
  for (Format format : kFormats) {
    const std::string path = file_of(dir, format);
    EXPECT_EQ(ModelState::of(*net).save(path, format), std::vector<std::string>{path});
    const auto weights = ModelState::open(path);
    EXPECT_EQ(weights.format(), format);
    SmallNet live;
    weights.load_into(*live);
    EXPECT_TRUE(identical(*net, *live)) << path;
    const std::string first = read_all(path);
    ModelState::of(*net).save(path, format);
    EXPECT_EQ(read_all(path), first) << "the same weights gave other bytes";
  }
  SmallNet by_libtorch;
  torch::load(by_libtorch, file_of(dir, Format::kArchive));
  EXPECT_TRUE(identical(*net, *by_libtorch));
}

TEST(ModelSave, ConvertsFilesFromAnyFormatToAny) {
  const TempDir dir;
  SmallNet net;
  for (Format from : kFormats) {
    ModelState::of(*net).save(file_of(dir, from), from);
    for (Format to : kFormats) {
      ModelState::open(file_of(dir, from)).save(dir / "out", to);
      SmallNet live;
      ModelState::open(dir / "out").load_into(*live);
      EXPECT_TRUE(identical(*net, *live)) << to_string(from) << " to " << to_string(to);
    }
  }
}

TEST(ModelSave, KeepsTiesAndDropsTheRestOfAStorage) {
  const TempDir dir;
  const torch::Tensor base = torch::randn({1000, 100}), tied = torch::randn({10, 10});
  const StateDict tensors = {{"embed", tied}, {"head", tied}, {"row", base[5]}, {"column", base.select(1, 7)}};
  for (Format format : kFormats) {
    const std::string path = file_of(dir, format);
    ModelState::of(tensors).save(path, format);
    EXPECT_LT(std::filesystem::file_size(path), 16000u) << "400 + 400 + 4000 bytes of tensors";
    const auto weights = ModelState::open(path);
    const StateDict all = weights.state_dict();
    expect_same(all, tensors, path);
    const auto read = ModelState::of(all);
    EXPECT_TRUE(read.tensor("embed").is_same(read.tensor("head"))) << path;
    EXPECT_EQ(weights.find("embed")->tied_to.has_value() + weights.find("head")->tied_to.has_value(), 1) << path;
  }
}

TEST(ModelSave, ConvertsFloatingTensorsOnRequest) {
  const TempDir dir;
  const torch::Tensor values = torch::randn({300, 7000}).t(), count = torch::tensor(7);
  const StateDict halved = {{"a", values.to(torch::kHalf)}, {"tied", values.to(torch::kHalf)}, {"n", count}};
  for (Format format : kFormats) {
    const std::string path = file_of(dir, format);
    ModelState::of({{"a", values}, {"tied", values}, {"n", count}}).save(path, format, {.dtype = "float16"});
    expect_same(ModelState::open(path).state_dict(), halved, path);
    ModelState::open(path).save(dir / "wide", format, {.dtype = "f64"});
    EXPECT_TRUE(identical(ModelState::open(dir / "wide").tensor("a"), halved[0].second.to(torch::kDouble))) << path;
  }
}

TEST(ModelSave, SplitsSafetensorsBySize) {
  const TempDir dir;
  StateDict tensors;
  for (int i = 0; i < 5; ++i) tensors.emplace_back("t" + std::to_string(i), torch::randn({100}));
  const auto files =
      ModelState::of(tensors).save(dir / "m.safetensors", Format::kSafetensors, {.max_shard_bytes = 800});
  EXPECT_EQ(files, (std::vector<std::string>{dir / "m-00001-of-00003.safetensors", dir / "m-00002-of-00003.safetensors",
                                             dir / "m-00003-of-00003.safetensors", dir / "m.safetensors.index.json"}));
  const auto weights = ModelState::open(files.back());
  EXPECT_EQ(weights.format(), Format::kSafetensorsIndex);
  EXPECT_NE(weights.find("t0")->file, weights.find("t4")->file);
  expect_same(weights.state_dict(), tensors, "shards");
  StateDict live;
  for (const auto& [name, tensor] : tensors) live.emplace_back(name, torch::zeros({100}));
  weights.load_into(live);
  expect_same(live, tensors, "loaded from shards");
}

TEST(ModelSave, LeavesAnExistingFileWhenItFails) {
  const TempDir dir;
  test::write_all(dir / "w", "mine");
  const torch::Tensor wide = torch::zeros({2}, torch::kComplexDouble);
  const auto weights = ModelState::of({{"a", torch::zeros({2})}, {"z", wide}, {"y", wide.clone()}});
  const Error error = error_of([&] { weights.save(dir / "w", Format::kSafetensors); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error.details().size(), 2u);
  EXPECT_EQ(error_of([&] { weights.save(dir / "w", Format::kPt2); }).code(), ErrorCode::kUnsupported);
  for (const char* dtype : {"int8", "float7"}) {
    EXPECT_EQ(error_of([&] { weights.save(dir / "w", Format::kTorch, {.dtype = dtype}); }).code(), ErrorCode::kInvalid);
  }
  EXPECT_EQ(error_of([&] { weights.save(dir / "no/w", Format::kTorch); }).code(), ErrorCode::kNotFound);
  EXPECT_EQ(read_all(dir / "w"), "mine");
}

/// Tensors of random dtypes, shapes and strides.
StateDict random_tensors(std::mt19937& random) {
  const auto below = [&](int64_t end) { return static_cast<int64_t>(random() % static_cast<uint64_t>(end)); };
  const std::vector<at::ScalarType> types = {at::kBool,  at::kByte,   at::kChar,        at::kShort,
                                             at::kInt,   at::kLong,   at::kHalf,        at::kBFloat16,
                                             at::kFloat, at::kDouble, at::kComplexFloat};
  StateDict tensors;
  for (int64_t i = 1 + below(8); i-- > 0;) {
    std::vector<int64_t> shape;
    for (int64_t d = below(5); d-- > 0;) shape.push_back(below(8) == 0 ? 0 : 1 + below(6));
    const auto type = types[static_cast<size_t>(below(static_cast<int64_t>(types.size())))];
    torch::Tensor tensor = (torch::randn(shape) * 40).to(type);
    if (tensor.dim() > 1) tensor = tensor.transpose(below(tensor.dim()), below(tensor.dim()));
    if (tensor.dim() > 0 && tensor.size(0) > 2) tensor = tensor.slice(0, below(2), tensor.size(0), 1 + below(2));
    if (tensor.is_complex() && below(2)) tensor = tensor.conj();
    tensors.emplace_back("t" + std::to_string(i) + (below(2) ? ".deep.name" : ""), tensor);
    if (below(4) == 0) tensors.emplace_back("tied" + std::to_string(i), tensor);
  }
  return tensors;
}

std::string hex_of(const torch::Tensor& tensor) {
  const torch::Tensor plain = tensor.detach().resolve_conj().contiguous();
  std::string text;
  for (size_t i = 0; i < plain.nbytes(); ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<const uint8_t*>(plain.data_ptr())[i]);
    text += digits;
  }
  return text;
}

TEST(ModelSave, WritesWhatItReadsForAnyDtypeShapeAndStrides) {
  const TempDir dir;
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const StateDict tensors = random_tensors(random);
    for (Format format : kFormats) {
      ModelState::of(tensors).save(file_of(dir, format), format);
      expect_same(ModelState::open(file_of(dir, format)).state_dict(), tensors, std::to_string(round));
    }
  }
}

TEST(ModelSave, WritesWhatPythonReads) {
  if (test::python() == nullptr) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  const TempDir dir;
  std::mt19937 random(11);
  std::vector<StateDict> all;
  std::vector<std::string> files;
  for (int round = 0; round < 10; ++round) {
    all.push_back(random_tensors(random));
    const std::string stem = dir / std::to_string(round);
    ModelState::of(all.back()).save(stem + ".pt", Format::kTorch);
    ModelState::of(all.back()).save(stem + ".safetensors", Format::kSafetensors);
    files.push_back("load:" + stem + ".pt");
    files.push_back("safe:" + stem + ".safetensors");
  }
  const auto told = test::read_with_torch(files);
  for (size_t i = 0; i < told.size(); ++i) {
    ASSERT_TRUE(told[i].contains("dict")) << files[i] << told[i];
    std::map<std::string, std::string> values;
    for (const auto& item : told[i]["dict"]) values[item[0].get<std::string>()] = item[1]["hex"].get<std::string>();
    for (const auto& [name, tensor] : all[i / 2]) {
      if (!values.count(name) && i % 2) continue;  // safetensors keeps one name of tied tensors
      ASSERT_TRUE(values.count(name)) << files[i] << " " << name;
      EXPECT_EQ(values[name], hex_of(tensor)) << files[i] << " " << name;
    }
  }
}

}  // namespace
}  // namespace ckpt
