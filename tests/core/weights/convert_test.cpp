// Weights of one format written as another.
#include "core/weights/convert.h"

#include <gtest/gtest.h>

#include <random>

#include "core/base/json.h"
#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

using Names = std::vector<std::string>;
using Metadata = std::map<std::string, std::string>;

Weights open_golden(const std::string& name) { return Weights::open(std::string(CKPT_TEST_DATA) + "/" + name); }

/// Name, dtype, shape and elements of every tensor.
std::map<std::string, std::string> content_of(const Weights& weights) {
  std::map<std::string, std::string> content;
  for (const Tensor& tensor : weights.tensors()) {
    std::string text(name(tensor.stored.dtype));
    for (const int64_t size : tensor.stored.shape) text += " " + std::to_string(size);
    content[tensor.name] = text + ": " + test::read(weights, tensor);
  }
  return content;
}

class ConvertTest : public testing::Test {
 protected:
  Weights converted(const Weights& from, const ConvertOptions& options, const std::string& name) {
    report_ = convert(from, dir_ / name, options);
    EXPECT_EQ(report_.outputs.back().substr(0, (dir_ / name).size() - 12),
              (dir_ / name).substr(0, (dir_ / name).size() - 12));
    return Weights::open(report_.outputs.back());
  }
  /// float32 tensors with as many elements as said, 0, 1, 2, ...
  Weights sample(const std::map<std::string, size_t>& sizes, const Metadata& metadata = {}) {
    std::vector<std::string> data;
    for (const auto& [name, size] : sizes) {
      std::vector<float> values(size);
      for (size_t i = 0; i < size; ++i) values[i] = static_cast<float>(i);
      data.push_back(test::bytes_of(values));
    }
    std::vector<format::TensorToWrite> tensors;
    for (const auto& [name, size] : sizes) {
      tensors.push_back(test::to_write(name, DType::kFloat32, {static_cast<int64_t>(size)}, data[tensors.size()]));
    }
    return Weights::open(test::write_safetensors(dir_ / "sample.safetensors", std::move(tensors), metadata));
  }
  Names files() {
    Names names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  test::TempDir dir_;
  Converted report_;
};

TEST_F(ConvertTest, EveryFormatHoldsWhatTheOtherHeld) {
  const Weights original = open_golden("torch/state_dict.pt");
  const Weights safetensors = converted(original, {.to = Format::kSafetensors}, "a.safetensors");
  const Weights torch = converted(safetensors, {.to = Format::kTorch}, "b.pt");
  const Weights archive = converted(torch, {.to = Format::kArchive}, "c.pt");
  EXPECT_EQ(safetensors.format(), Format::kSafetensors);
  EXPECT_EQ(torch.format(), Format::kTorch);
  EXPECT_EQ(archive.format(), Format::kArchive);
  for (const Weights* weights : {&safetensors, &torch, &archive}) EXPECT_EQ(content_of(*weights), content_of(original));
  EXPECT_EQ(safetensors.metadata(), (Metadata{{"format", "pt"}}));
  EXPECT_EQ(report_.outputs, (Names{dir_ / "c.pt"}));
  EXPECT_EQ(report_.tensors, 9u);
  EXPECT_TRUE(report_.skipped.empty());
}

TEST_F(ConvertTest, RandomTensorsGoThroughAllFormats) {
  std::mt19937_64 random(3);
  const auto below = [&](uint64_t limit) { return random() % limit; };
  constexpr std::array kDTypes = {DType::kBool,    DType::kUInt8,     DType::kInt16,        DType::kUInt32,
                                  DType::kInt64,   DType::kFloat16,   DType::kBFloat16,     DType::kFloat32,
                                  DType::kFloat64, DType::kComplex64, DType::kFloat8E4M3FN, DType::kFloat8E5M2};
  std::string bytes(30000, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  test::write_all(dir_ / "raw", bytes);
  std::vector<Tensor> tensors;
  for (int i = 0; i < 60; ++i) {
    const DType dtype = kDTypes[below(kDTypes.size())];
    std::vector<int64_t> shape, strides;
    for (uint64_t d = below(4); d > 0; --d) {
      shape.push_back(static_cast<int64_t>(below(7)));
      strides.push_back(static_cast<int64_t>(below(20)));
    }
    const std::string name = "m" + std::to_string(below(3)) + ".t" + std::to_string(i);
    tensors.push_back({name, test::stored(dtype, shape, strides, 8 * below(100), 25000 / 16 * 16, 3)});
  }
  const Weights original = test::weights_over(dir_ / "raw", std::move(tensors));
  const auto content = content_of(original);
  const Weights torch = converted(original, {.to = Format::kTorch}, "a.pt");
  EXPECT_EQ(content_of(torch), content);
  const Weights safetensors = converted(torch, {.to = Format::kSafetensors}, "b.safetensors");
  EXPECT_EQ(content_of(safetensors), content);
  const Weights archive = converted(safetensors, {.to = Format::kArchive}, "c.pt");
  EXPECT_EQ(content_of(archive), content);
  const Weights shards = converted(archive, {.to = Format::kSafetensors, .max_shard_bytes = 500}, "d.safetensors");
  EXPECT_EQ(content_of(shards), content);
  EXPECT_EQ(content_of(converted(shards, {.to = Format::kSafetensors}, "e.safetensors")), content);
  EXPECT_EQ(test::read_all(dir_ / "e.safetensors"), test::read_all(dir_ / "b.safetensors"));
}

TEST_F(ConvertTest, TiesAreKeptInEveryFormat) {
  const Weights original = open_golden("torch/shapes.pt");
  const Weights safetensors = converted(original, {.to = Format::kSafetensors}, "a.safetensors");
  const std::string header = test::read_all(dir_ / "a.safetensors");
  EXPECT_NE(header.find(R"("tied":"base")"), std::string::npos);
  EXPECT_EQ(header.find(R"("tied":{)"), std::string::npos);
  EXPECT_EQ(content_of(safetensors), content_of(original));
  for (const Format to : {Format::kTorch, Format::kArchive}) {
    const Weights weights = converted(safetensors, {.to = to}, "b.pt");
    EXPECT_EQ(content_of(weights), content_of(original));
    EXPECT_TRUE(weights.find("tied")->tied_to >= 0 || weights.find("base")->tied_to >= 0);
  }
}

TEST_F(ConvertTest, TheFirstNameOfTiedOnesIsKeptInSafetensors) {
  test::write_all(dir_ / "raw", "12345678");
  const format::StoredTensor tensor = test::stored(DType::kUInt8, {8}, {1}, 0, 8);
  const Weights original = test::weights_over(dir_ / "raw", {{"head", tensor}, {"body", tensor}, {"tail", tensor}});
  const Weights weights = converted(original, {.to = Format::kSafetensors}, "a.safetensors");
  EXPECT_EQ(test::names_of(weights), (Names{"body", "head", "tail"}));
  EXPECT_NE(test::read_all(dir_ / "a.safetensors").find(R"("head":"body","tail":"body")"), std::string::npos);
  EXPECT_EQ(test::names_of(converted(original, {.to = Format::kSafetensors, .exclude = {"body"}}, "a.safetensors")),
            (Names{"head", "tail"}));
}

TEST_F(ConvertTest, ASliceDoesNotDragItsStorageAlong) {
  const Weights weights =
      converted(open_golden("torch/shapes.pt"), {.to = Format::kTorch, .exclude = {"^(base|tied)$"}}, "a.pt");
  EXPECT_EQ(weights.find("row")->stored.storage_bytes, 24u);
  EXPECT_EQ(weights.wasted_bytes(), 0u);
}

TEST_F(ConvertTest, WhatTheTargetCannotHoldIsListedInOneError) {
  const Weights dtypes = open_golden("torch/dtypes.pt");
  const Error error = test::error_of([&] { convert(dtypes, dir_ / "a.safetensors", {.to = Format::kSafetensors}); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error.details(), (Names{"complex32: complex32", "complex128: complex128"}));
  EXPECT_TRUE(files().empty());
  ConvertOptions options{.to = Format::kSafetensors, .exclude = {"complex(32|128)"}};
  EXPECT_EQ(converted(dtypes, options, "a.safetensors").tensors().size(), dtypes.tensors().size() - 2);
  ASSERT_EQ(report_.skipped.size(), 2u);
  EXPECT_EQ(report_.skipped[0].name, "complex32");
  EXPECT_EQ(report_.skipped[0].reason, "excluded");
  for (const char* name : {"torch/quantized.pt", "torch/sparse.pt"}) {
    for (const Format to : {Format::kSafetensors, Format::kTorch, Format::kArchive}) {
      const Weights weights = open_golden(name);
      const Error refused = test::error_of([&] { convert(weights, dir_ / "b", {.to = to}); });
      EXPECT_EQ(refused.code(), ErrorCode::kUnsupported);
      EXPECT_EQ(refused.details().size(), weights.tensors().size());
    }
  }
}

TEST_F(ConvertTest, ForeignValuesAreSkippedWithTheirReason) {
  converted(open_golden("torch/foreign.pt"), {.to = Format::kSafetensors}, "a.safetensors");
  EXPECT_EQ(report_.tensors, 2u);
  EXPECT_EQ(report_.skipped.size(), 7u);
  EXPECT_EQ(report_.skipped[0].name, "args");
  EXPECT_EQ(report_.warnings.size(), 1u);
}

TEST_F(ConvertTest, FloatingTensorsAloneGetAnotherDType) {
  const Weights weights =
      converted(open_golden("torch/dtypes.pt"), {.to = Format::kTorch, .dtype = DType::kFloat16}, "a.pt");
  for (const Tensor& tensor : weights.tensors()) {
    const DType before = dtype_from_name(tensor.name).value();
    EXPECT_EQ(tensor.stored.dtype, is_floating(before) ? DType::kFloat16 : before) << tensor.name;
  }
  const std::vector<uint16_t> ramp = {0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500};
  for (const char* name : {"float16", "bfloat16", "float32", "float64", "float8_e5m2"}) {
    std::vector<uint16_t> values = test::values_of<uint16_t>(test::read(weights, name));
    if (std::string(name) == "float8_e5m2") values[5] = 0x4500;  // it has no 5
    EXPECT_EQ(values, ramp) << name;
  }
  const Error error =
      test::error_of([&] { convert(weights, dir_ / "b.pt", {.to = Format::kTorch, .dtype = DType::kFloat8E5M2}); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
}

TEST_F(ConvertTest, LargeTensorsAreConvertedPieceByPiece) {
  const Weights original = sample({{"a", 3000000}});
  for (const DType dtype : {DType::kFloat64, DType::kBFloat16}) {
    const Weights weights = converted(original, {.to = Format::kSafetensors, .dtype = dtype}, "a.safetensors");
    std::string expected(weights.tensors()[0].stored.bytes, '\0');
    const std::string from = test::read(original, "a");
    convert_elements(as_bytes(from), DType::kFloat32, std::as_writable_bytes(std::span(expected)), dtype);
    EXPECT_TRUE(test::read(weights, "a") == expected);
  }
}

TEST_F(ConvertTest, NamesAreExcludedAndThenRenamedInOrder) {
  const Weights original = sample({{"backbone.conv.w", 1}, {"backbone.norm.w", 1}, {"head.w", 1}});
  const ConvertOptions options{.to = Format::kSafetensors,
                               .rename = {{"^backbone\\.", ""}, {"^conv\\.(.*)$", "first.\\1"}, {"w$", "weight"}},
                               .exclude = {"^head"}};
  EXPECT_EQ(test::names_of(converted(original, options, "a.safetensors")), (Names{"first.weight", "norm.weight"}));
}

TEST_F(ConvertTest, NamesThatMeetAreAMismatchThatNamesBoth) {
  const Weights original = sample({{"a.w", 1}, {"b.w", 1}});
  const Error error = test::error_of([&] {
    convert(original, dir_ / "x", {.to = Format::kTorch, .rename = {{"^[ab]\\.", ""}}});
  });
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_EQ(error.details(), (Names{R"("a.w" and "b.w" both become "w")"}));
}

TEST_F(ConvertTest, RulesThatCannotWorkAreInvalid) {
  const Weights original = sample({{"a", 1}});
  const auto code = [&](const ConvertOptions& options) {
    return test::error_of([&] { convert(original, dir_ / "x", options); }).code();
  };
  EXPECT_EQ(code({.to = Format::kTorch, .rename = {{"(", ""}}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.to = Format::kTorch, .rename = {{"a", "\\1"}}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.to = Format::kTorch, .exclude = {"["}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.to = Format::kTorch, .exclude = {"a"}}), ErrorCode::kNotFound);
  EXPECT_EQ(code({.to = Format::kPt2}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.to = Format::kTorch, .max_shard_bytes = 1}), ErrorCode::kInvalid);
  EXPECT_EQ(files(), (Names{"sample.safetensors"}));
}

TEST_F(ConvertTest, ModuleMetadataGoesIntoTorchFilesAndFollowsTheNames) {
  const Weights original = open_golden("torch/state_dict.pt");
  const Weights same = converted(original, {.to = Format::kTorch}, "a.pt");
  EXPECT_EQ(same.module_metadata().dump(), original.module_metadata().dump());
  const Weights renamed = converted(original, {.to = Format::kTorch, .rename = {{"^norm\\.", "bn."}}}, "b.pt");
  EXPECT_EQ(renamed.module_metadata()["bn"], original.module_metadata()["norm"]);
  EXPECT_EQ(renamed.module_metadata()[""], original.module_metadata()[""]);
  EXPECT_FALSE(renamed.module_metadata().contains("norm"));
}

TEST_F(ConvertTest, ShardsHoldNamesInOrderAndTheIndexSaysWhere) {
  const Weights original = sample({{"a", 10}, {"b", 10}, {"c", 100}, {"d", 10}, {"e", 1}}, {{"k", "v"}, {"z", "a"}});
  const Weights weights = converted(original, {.to = Format::kSafetensors, .max_shard_bytes = 80}, "m.safetensors");
  EXPECT_EQ(weights.format(), Format::kSafetensorsIndex);
  EXPECT_EQ(report_.outputs, (Names{dir_ / "m-00001-of-00003.safetensors", dir_ / "m-00002-of-00003.safetensors",
                                    dir_ / "m-00003-of-00003.safetensors", dir_ / "m.safetensors.index.json"}));
  EXPECT_TRUE(report_.warnings.empty());
  EXPECT_EQ(content_of(weights), content_of(original));
  EXPECT_EQ(weights.find("z")->tied_to, weights.find("a") - weights.tensors().data());
  EXPECT_EQ(weights.metadata(), (Metadata{{"format", "pt"}, {"k", "v"}}));
  const auto index = parse_json(test::read_all(dir_ / "m.safetensors.index.json"), "");
  EXPECT_EQ(index["metadata"]["total_size"], 4 * 131);
  EXPECT_EQ(index["weight_map"].size(), 5u);
  EXPECT_EQ(index["weight_map"]["b"], "m-00001-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["c"], "m-00002-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["e"], "m-00003-of-00003.safetensors");
}

TEST_F(ConvertTest, WhatFitsIntoOneShardIsAPlainFile) {
  const Weights original = sample({{"a", 10}, {"b", 10}});
  const Weights weights = converted(original, {.to = Format::kSafetensors, .max_shard_bytes = 80}, "m.safetensors");
  EXPECT_EQ(weights.format(), Format::kSafetensors);
  EXPECT_EQ(files(), (Names{"m.safetensors", "sample.safetensors"}));
  convert(sample({{"a", 100}}), dir_ / "m.safetensors", {.to = Format::kSafetensors, .max_shard_bytes = 80});
  EXPECT_EQ(files(), (Names{"m.safetensors", "sample.safetensors"}));
}

TEST_F(ConvertTest, OfShardsThatReplaceOthersTheOldOnesOfAnotherCountAreLeft) {
  convert(sample({{"a", 10}, {"b", 10}}), dir_ / "m.safetensors", {.to = Format::kSafetensors});
  convert(sample({{"a", 10}, {"b", 10}}), dir_ / "m.safetensors", {.to = Format::kSafetensors, .max_shard_bytes = 40});
  const Weights weights = converted(sample({{"a", 3}, {"b", 3}, {"c", 3}}),
                                    {.to = Format::kSafetensors, .max_shard_bytes = 12}, "m.safetensors");
  EXPECT_EQ(content_of(weights), content_of(sample({{"a", 3}, {"b", 3}, {"c", 3}})));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "m-00001-of-00002.safetensors"));
  ASSERT_EQ(report_.warnings.size(), 1u);
  EXPECT_NE(report_.warnings[0].find("is still there"), std::string::npos);
}

TEST_F(ConvertTest, DamageOfTheInputLeavesTheOutputAsItWas) {
  const Weights golden = open_golden("torch/shapes.pt");
  for (const char* name : {"base", "row", "fortran", "scalar"}) {
    std::string bytes = test::read_all(golden.path());
    bytes[golden.find(name)->stored.file_offset] ^= 1;
    test::write_all(dir_ / "in.pt", bytes);
    test::write_all(dir_ / "out.safetensors", "old");
    for (const uint64_t shard : {0, 40}) {
      const Error error = test::error_of([&] {
        convert(Weights::open(dir_ / "in.pt"), dir_ / "out.safetensors",
                {.to = Format::kSafetensors, .max_shard_bytes = shard});
      });
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt) << name;
      EXPECT_EQ(error.path(), dir_ / "in.pt");
      EXPECT_EQ(test::read_all(dir_ / "out.safetensors"), "old");
      EXPECT_EQ(files(), (Names{"in.pt", "out.safetensors"}));
    }
  }
}

TEST_F(ConvertTest, AFileMayReplaceItself) {
  const Weights original = sample({{"a", 10}, {"b", 2000000}});
  const auto content = content_of(original);
  convert(original, original.path(), {.to = Format::kSafetensors, .rename = {{"a", "x"}}});
  const Weights weights = Weights::open(original.path());
  EXPECT_EQ(content_of(weights).at("b"), content.at("b"));
  EXPECT_EQ(content_of(weights).at("x"), content.at("a"));
}

TEST_F(ConvertTest, TheSameInputGivesTheSameBytes) {
  const Weights original = open_golden("torch/shapes.pt");
  for (const Format to : {Format::kSafetensors, Format::kTorch, Format::kArchive}) {
    convert(original, dir_ / "one", {.to = to});
    convert(original, dir_ / "two", {.to = to});
    EXPECT_EQ(test::read_all(dir_ / "one"), test::read_all(dir_ / "two"));
  }
}

}  // namespace
}  // namespace ckpt::weights
