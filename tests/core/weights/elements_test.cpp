// Conversions between floating dtypes, against what PyTorch makes of the same numbers.
#include <gtest/gtest.h>

#include <cmath>

#include "core/weights/convert.h"
#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

std::string converted(const std::string& from, DType from_dtype, DType to_dtype) {
  std::string to(from.size() / width(from_dtype) * width(to_dtype), '?');
  convert_elements(as_bytes(from), from_dtype, std::as_writable_bytes(std::span(to)), to_dtype);
  return to;
}

/// Bits of each element; those of all NaNs are the same number.
std::vector<uint64_t> bits_of(const std::string& bytes, DType dtype) {
  const std::vector<double> values = test::values_of<double>(converted(bytes, dtype, DType::kFloat64));
  std::vector<uint64_t> bits(values.size(), 0);
  for (size_t i = 0; i < bits.size(); ++i) {
    std::memcpy(&bits[i], bytes.data() + i * width(dtype), width(dtype));
    if (std::isnan(values[i])) bits[i] = UINT64_MAX;
  }
  return bits;
}

TEST(ElementsTest, AreWhatPyTorchMakesOfThem) {
  const Weights table = Weights::open(std::string(CKPT_TEST_DATA) + "/elements/table.safetensors");
  size_t compared = 0;
  for (const Tensor& tensor : table.tensors()) {
    const size_t slash = tensor.name.find('/');
    if (slash == std::string::npos) continue;
    const DType from = dtype_from_name(tensor.name.substr(0, slash)).value();
    const DType to = dtype_from_name(tensor.name.substr(slash + 1)).value();
    const std::string input = test::read(table, tensor.name.substr(0, slash));
    const std::vector<uint64_t> actual = bits_of(converted(input, from, to), to);
    const std::vector<uint64_t> expected = bits_of(test::read(table, tensor), to);
    ASSERT_EQ(actual.size(), expected.size()) << tensor.name;
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_EQ(actual[i], expected[i]) << tensor.name << ", element " << i << std::hex << ": " << actual[i]
                                        << ", expected " << expected[i];
    }
    ++compared;
  }
  EXPECT_EQ(compared, 5u * 4u + 4u * 3u);
}

TEST(ElementsTest, EveryHalfComesBackFromEveryWiderDType) {
  for (const DType narrow : {DType::kFloat16, DType::kBFloat16}) {
    std::vector<uint16_t> all(65536);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    const std::string bytes = test::bytes_of(all);
    for (const DType wide : {DType::kFloat32, DType::kFloat64}) {
      EXPECT_TRUE(bits_of(converted(converted(bytes, narrow, wide), wide, narrow), narrow) == bits_of(bytes, narrow));
    }
  }
}

TEST(ElementsTest, NaNStaysNaN) {
  for (const DType from : {DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64}) {
    // The NaN whose one bit is the lowest, which narrowing would drop.
    std::string nan(width(from), '\0');
    nan.back() = '\x7f';
    nan[nan.size() - 2] = from == DType::kFloat16 ? '\x7c' : static_cast<char>(from == DType::kFloat64 ? 0xf0 : 0x80);
    if (from == DType::kFloat16) nan = std::string("\x00\x7c", 2);
    nan[0] = static_cast<char>(nan[0] | 1);
    for (const DType to : {DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64}) {
      EXPECT_EQ(bits_of(converted(nan, from, to), to)[0], UINT64_MAX) << name(from) << " to " << name(to);
    }
  }
}

TEST(ElementsTest, WhatIsNoFloatOrDoesNotFitIsRefused) {
  const auto code = [](DType from, DType to, size_t from_bytes, size_t to_bytes) {
    const std::string input(from_bytes, '\0');
    std::string output(to_bytes, '\0');
    return test::error_of(
               [&] { convert_elements(as_bytes(input), from, std::as_writable_bytes(std::span(output)), to); })
        .code();
  };
  EXPECT_EQ(code(DType::kInt32, DType::kFloat32, 4, 4), ErrorCode::kUnsupported);
  EXPECT_EQ(code(DType::kFloat32, DType::kInt32, 4, 4), ErrorCode::kUnsupported);
  EXPECT_EQ(code(DType::kFloat32, DType::kFloat8E5M2, 4, 1), ErrorCode::kUnsupported);
  EXPECT_EQ(code(DType::kComplex64, DType::kFloat32, 8, 4), ErrorCode::kUnsupported);
  EXPECT_EQ(code(DType::kFloat32, DType::kFloat16, 4, 4), ErrorCode::kInvalid);
  EXPECT_EQ(code(DType::kFloat32, DType::kFloat16, 5, 2), ErrorCode::kInvalid);
}

}  // namespace
}  // namespace ckpt::weights
