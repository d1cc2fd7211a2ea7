// Files of weights, opened.
#include <gtest/gtest.h>

#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

class OpenTest : public testing::Test {
 protected:
  /// A safetensors file of float32 tensors of one element, 0, 1, 2, ...
  Weights open_names(const std::vector<std::string>& names, const std::map<std::string, std::string>& metadata = {},
                     const OpenOptions& options = {}) {
    std::vector<std::string> data;
    for (size_t i = 0; i < names.size(); ++i) data.push_back(test::bytes_of<float>({static_cast<float>(i)}));
    std::vector<format::TensorToWrite> tensors;
    for (size_t i = 0; i < names.size(); ++i)
      tensors.push_back(test::to_write(names[i], DType::kFloat32, {1}, data[i]));
    return Weights::open(test::write_safetensors(dir_ / "f.safetensors", std::move(tensors), metadata), options);
  }

  test::TempDir dir_;
};

TEST_F(OpenTest, SafetensorsAreToldByContent) {
  const Weights weights = open_names({"a", "b"}, {{"format", "pt"}});
  EXPECT_EQ(weights.format(), Format::kSafetensors);
  EXPECT_EQ(to_string(weights.format()), "safetensors");
  EXPECT_EQ(test::names_of(weights), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(weights.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(test::values_of<float>(test::read(weights, "b")), (std::vector<float>{1}));
  EXPECT_EQ(weights.find("c"), nullptr);
  EXPECT_EQ(weights.wasted_bytes(), 0u);
}

TEST_F(OpenTest, WrapperPrefixesThatAllNamesHaveAreStrippedRepeatedly) {
  EXPECT_EQ(test::names_of(open_names({"_orig_mod.module.a", "_orig_mod.module.b.module.c"})),
            (std::vector<std::string>{"a", "b.module.c"}));
  EXPECT_EQ(test::names_of(open_names({"module.module.a"})), (std::vector<std::string>{"a"}));
  EXPECT_EQ(test::names_of(open_names({"module.a", "b"})), (std::vector<std::string>{"b", "module.a"}));
  EXPECT_EQ(test::names_of(open_names({"module.a"}, {}, {.strip_wrappers = false})),
            (std::vector<std::string>{"module.a"}));
  EXPECT_EQ(test::names_of(open_names({"module."})), (std::vector<std::string>{"module."}));
}

TEST_F(OpenTest, NamesThatSafetensorsDroppedAsTiesAreThereAgain) {
  const Weights weights =
      open_names({"module.a", "module.b"}, {{"module.c", "module.a"}, {"format", "pt"}, {"x", "y"}});
  EXPECT_EQ(test::names_of(weights), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(weights.find("c")->tied_to, 0);
  EXPECT_EQ(weights.find("a")->tied_to, -1);
  EXPECT_EQ(weights.find("b")->tied_to, -1);
  EXPECT_EQ(weights.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"x", "y"}}));
}

/// A safetensors file whose header is `header` and whose data are `bytes` zeros.
std::string with_header(std::string header, size_t bytes) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string text(8, '\0');
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(header.size() >> (8 * i));
  return text + header + std::string(bytes, '\0');
}

TEST_F(OpenTest, ThreeHundredThousandSmallTensorsAreNotTooMany) {
  constexpr size_t kCount = 300000;
  std::string header = "{";
  for (size_t i = 0; i < kCount; ++i) {
    header += (i == 0 ? "\"n" : ",\"n") + std::to_string(i) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" +
              std::to_string(i) + "," + std::to_string(i + 1) + "]}";
  }
  test::write_all(dir_ / "f", with_header(header + "}", kCount));
  EXPECT_EQ(Weights::open(dir_ / "f").tensors().size(), kCount);
}

TEST_F(OpenTest, ASmallFileCannotMakeTiesWithoutEnd) {
  const auto ties = [&](size_t count) {
    std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{)";
    for (size_t i = 0; i < count; ++i) header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":"a")";
    test::write_all(dir_ / "f", with_header(header + "}}", 1));
    return Weights::open(dir_ / "f").tensors().size();
  };
  EXPECT_EQ(ties(1000), 1001u);
  const Error error = test::error_of([&] { ties(400000); });
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_NE(error.message().find("more memory"), std::string::npos) << error.message();
}

TEST_F(OpenTest, AnAbsentFileIsNotFoundAndOthersAreNoWeights) {
  EXPECT_EQ(test::error_of([&] { Weights::open(dir_ / "absent"); }).code(), ErrorCode::kNotFound);
  for (const char* bytes : {"", "hello", "{\"a\": 1}", "\x93NUMPY",
                            "\x7f"
                            "ELF"}) {
    // Where its name promises weights, it is damaged.
    test::write_all(dir_ / "f.pt", bytes);
    EXPECT_EQ(test::error_of([&] { Weights::open(dir_ / "f.pt"); }).code(), ErrorCode::kCorrupt) << bytes;
    if (*bytes == '\0') continue;
    test::write_all(dir_ / "f", bytes);
    EXPECT_EQ(test::error_of([&] { Weights::open(dir_ / "f"); }).code(), ErrorCode::kUnsupported) << bytes;
  }
  EXPECT_EQ(test::error_of([&] { open_names({}); }).code(), ErrorCode::kNotFound);
}

TEST_F(OpenTest, TwoNamesThatMeetAreDamage) {
  test::write_all(dir_ / "f", "12345678");
  const format::StoredTensor tensor = test::stored(DType::kUInt8, {8}, {1}, 0, 8);
  const Error error = test::error_of([&] {
    test::weights_over(dir_ / "f", {{"a", tensor}, {"b", tensor}, {"a", tensor}});
  });
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error.tensor(), "a");
}

TEST_F(OpenTest, TensorsThatAreOneAreTied) {
  test::write_all(dir_ / "f", std::string(64, 'x'));
  const format::StoredTensor first = test::stored(DType::kFloat32, {2, 2}, {2, 1}, 0, 64);
  const format::StoredTensor transposed = test::stored(DType::kFloat32, {2, 2}, {1, 2}, 0, 64);
  const format::StoredTensor other_stride_of_one = test::stored(DType::kFloat32, {1, 4}, {9, 1}, 0, 64);
  const format::StoredTensor one_row = test::stored(DType::kFloat32, {1, 4}, {4, 1}, 0, 64);
  const format::StoredTensor empty = test::stored(DType::kFloat32, {0}, {1}, 0, 64);
  const Weights weights = test::weights_over(dir_ / "f", {{"empty", empty},
                                                          {"a", first},
                                                          {"transposed", transposed},
                                                          {"b", first},
                                                          {"row", one_row},
                                                          {"c", first},
                                                          {"row_too", other_stride_of_one},
                                                          {"empty_too", empty}});
  std::vector<int64_t> ties;
  for (const Tensor& tensor : weights.tensors()) ties.push_back(tensor.tied_to);
  EXPECT_EQ(ties, (std::vector<int64_t>{-1, -1, -1, 1, -1, 1, 4, -1}));
}

TEST_F(OpenTest, WastedBytesAreThoseOfStoragesThatNoTensorCovers) {
  test::write_all(dir_ / "f", std::string(200, 'x'));
  const std::vector<Tensor> tensors = {
      {"a", test::stored(DType::kFloat32, {2}, {1}, 0, 100, 1)},  // bytes 4 to 12 of 100
      {"b", test::stored(DType::kFloat32, {2}, {3}, 0, 100, 2)},  // bytes 8 to 24
      {"c", test::stored(DType::kUInt8, {10}, {1}, 0, 100, 90)},  // bytes 90 to 100
      {"d", test::stored(DType::kUInt8, {100}, {1}, 100, 100)},  {"e", test::stored(DType::kUInt8, {0}, {1}, 100, 100)},
  };
  EXPECT_EQ(test::weights_over(dir_ / "f", tensors).wasted_bytes(), 100u - 20u - 10u);
}

}  // namespace
}  // namespace ckpt::weights
