// Single means whose results are known.
#include "core/average/mean.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "ckpt/error.h"
#include "core/average/mean_testing.h"

namespace ckpt::average {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

test::Result mean(const std::vector<double>& numbers, const std::vector<double>& weights, DType to) {
  test::Inputs inputs;
  for (const double number : numbers) inputs.push_back(test::bytes_of<double>({number}));
  return test::mean_of(inputs, weights, DType::kFloat64, to, best_kernel());
}

double mean(const std::vector<double>& numbers, const std::vector<double>& weights = {}) {
  const std::vector<double> ones(numbers.size(), 1);
  return std::bit_cast<double>(test::bits_of(mean(numbers, weights.empty() ? ones : weights, DType::kFloat64)));
}

ErrorCode code_of(const std::vector<double>& weights, DType from, DType to) {
  try {
    Mean(weights, from, to);
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kIo;
}

TEST(MeanTest, WhatLargeNumbersHideIsThere) {
  EXPECT_EQ(mean({0x1p100, 1, 0x1p-100, -0x1p100, -1}), 0x1p-100 / 5);
  EXPECT_EQ(mean({1e308, 1e308, 1e308}), 1e308);
  EXPECT_EQ(mean({5e-324, 1e-323}), 1e-323);  // 1.5 of the smallest: a tie, to the even one
  EXPECT_EQ(mean({5e-324, 0}), 0);
}

TEST(MeanTest, AWeightedMeanOfEqualNumbersIsThatNumber) {
  for (const double number : {0.3, -1e-310, 1.7e308, 0.0}) {
    EXPECT_EQ(mean({number, number, number}, {0.1, 0.2, 0.7}), number);
    EXPECT_EQ(mean({number, number, number}, {3, -1, 1e-300}), number);
  }
}

TEST(MeanTest, RoundsOnceStraightToTheTarget) {
  const double above_the_tie = 1 + 0x1p-8 + 0x1p-40;  // float32 would make the tie of it, and bfloat16 1
  EXPECT_EQ(test::bits_of(mean({above_the_tie, above_the_tie}, {1, 1}, DType::kBFloat16)), 0x3F81u);
  EXPECT_EQ(test::bits_of(mean({1 + 0x1p-8, 1 + 0x1p-8}, {1, 1}, DType::kBFloat16)), 0x3F80u);
}

TEST(MeanTest, ZeroIsNegativeWhereAllInputsAre) {
  EXPECT_TRUE(std::signbit(mean({-0.0, -0.0})));
  EXPECT_TRUE(std::signbit(mean({-0.0, -0.0}, {2, -1})));
  EXPECT_FALSE(std::signbit(mean({-0.0, 0.0})));
  EXPECT_FALSE(std::signbit(mean({0.0, 0.0}, {2, -1})));
  EXPECT_FALSE(std::signbit(mean({1, -1})));
  EXPECT_FALSE(std::signbit(mean({-0.0, -3}, {1, 0})));
}

TEST(MeanTest, NaNAndInfinitiesAreWhatSumsMakeOfThemAndSaid) {
  const auto is = [](const std::vector<double>& numbers, const std::vector<double>& weights, uint64_t bits) {
    const test::Result result = mean(numbers, weights, DType::kFloat32);
    EXPECT_TRUE(result.flags.nonfinite_input);
    EXPECT_FALSE(result.flags.overflow);
    EXPECT_EQ(test::bits_of(result), bits);
  };
  is({kInfinity, 1}, {1, 1}, 0x7F800000);
  is({kInfinity, 1}, {-1, 2}, 0xFF800000);
  is({-kInfinity, -kInfinity, 3}, {1, 1, 1}, 0xFF800000);
  is({kInfinity, -kInfinity}, {1, 1}, 0x7FC00000);
  is({kInfinity, 1}, {0, 1}, 0x7FC00000);
  is({-kNaN, 1}, {1, 1}, 0x7FC00000);
  EXPECT_FALSE(mean({1, 2}, {1, 1}, DType::kFloat32).flags.nonfinite_input);
}

TEST(MeanTest, WhatTheTargetCannotHoldIsSaid) {
  const auto is = [](double number, DType to, uint64_t bits) {
    const test::Result result = mean({number, number}, {1, 1}, to);
    EXPECT_TRUE(result.flags.overflow);
    EXPECT_EQ(test::bits_of(result), bits) << name(to);
  };
  is(-1e300, DType::kFloat32, 0xFF800000);
  is(65520, DType::kFloat16, 0x7C00);
  is(0x1.FFp127, DType::kBFloat16, 0x7F80);
  is(-500, DType::kFloat8E4M3FN, 0xFE);
  is(61440, DType::kFloat8E5M2, 0x7C);
  is(-248, DType::kFloat8E4M3FNUZ, 0x80);
  is(61440, DType::kFloat8E5M2FNUZ, 0x80);
  is(0x1.8p127, DType::kFloat8E8M0FNU, 0xFF);
  is(-1, DType::kFloat8E8M0FNU, 0xFF);
  EXPECT_EQ(mean({1.7e308, -1.7e308}, {2, -1}), kInfinity);
  EXPECT_FALSE(mean({65519, 65519}, {1, 1}, DType::kFloat16).flags.overflow);
  EXPECT_FALSE(mean({460, 460}, {1, 1}, DType::kFloat8E4M3FN).flags.overflow);
}

TEST(MeanTest, WeightsAndDTypesThatMakeNoMeanAreRefused) {
  const DType f32 = DType::kFloat32;
  EXPECT_EQ(code_of({}, f32, f32), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({1, -1}, f32, f32), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({1, kNaN}, f32, f32), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({1, kInfinity}, f32, f32), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({1}, DType::kInt64, DType::kInt64), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of({1}, f32, DType::kInt64), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of({1}, DType::kQInt8, DType::kQInt8), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of({1}, f32, DType::kComplex64), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of({1}, DType::kComplex64, f32), ErrorCode::kUnsupported);
  EXPECT_EQ(mean({3, 5}, {1e300, 1e-300}), 3);
}

}  // namespace
}  // namespace ckpt::average
