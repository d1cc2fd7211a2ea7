#include "core/average/integers.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/average/mean_testing.h"

namespace ckpt::average {
namespace {

constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

template <class T>
constexpr DType kDType = DType::kBool;
template <>
constexpr DType kDType<uint8_t> = DType::kUInt8;
template <>
constexpr DType kDType<int8_t> = DType::kInt8;
template <>
constexpr DType kDType<int32_t> = DType::kInt32;
template <>
constexpr DType kDType<uint64_t> = DType::kUInt64;
template <>
constexpr DType kDType<int64_t> = DType::kInt64;

/// What `merge(pointers, dtype, elements, to)` makes of one number of each input; std::nullopt where it does not fit.
template <class T, class F>
std::optional<T> merged(const std::vector<T>& numbers, F&& merge) {
  std::vector<const std::byte*> inputs;
  for (const T& number : numbers) inputs.push_back(reinterpret_cast<const std::byte*>(&number));
  T to = 0;
  const std::optional<size_t> bad =
      merge(IntegerInputs(inputs), kDType<T>, size_t{1}, reinterpret_cast<std::byte*>(&to));
  return bad ? std::nullopt : std::optional<T>(to);
}

template <class T>
std::optional<T> sum(const std::vector<T>& numbers) {
  return merged(numbers, integer_sum);
}

template <class T>
std::optional<T> max(const std::vector<T>& numbers) {
  return merged(numbers, [](auto... arguments) {
    integer_max(arguments...);
    return std::optional<size_t>();
  });
}

template <class T>
std::optional<T> mean(const std::vector<T>& numbers, std::vector<double> weights = {}) {
  if (weights.empty()) weights.assign(numbers.size(), 1);
  return merged(numbers, [&](IntegerInputs inputs, DType dtype, size_t elements, std::byte* to) {
    return integer_mean(inputs, weights, dtype, elements, to);
  });
}

TEST(IntegersTest, MeanIsRoundedToNearestEven) {
  EXPECT_EQ(mean<int64_t>({1, 2}), 2);
  EXPECT_EQ(mean<int64_t>({2, 3}), 2);
  EXPECT_EQ(mean<int64_t>({-1, -2}), -2);
  EXPECT_EQ(mean<int64_t>({-1, 0}), 0);
  EXPECT_EQ(mean<int32_t>({0, 0, 1}), 0);
  EXPECT_EQ(mean<uint8_t>({255, 255, 254}), 255);
  EXPECT_EQ(mean<int8_t>({-128, -128}), -128);
  EXPECT_EQ(mean<int64_t>({10, 20}, {0.1, 0.3}), 17);  // 17.5 but for the double 0.3, which is below 3/10
}

TEST(IntegersTest, MeanIsExactBeyondDoubles) {
  EXPECT_EQ(mean<int64_t>({kMost, kMost, kMost}), kMost);
  EXPECT_EQ(mean<int64_t>({kLeast, kLeast, kLeast}, {0.1, 0.2, 0.7}), kLeast);
  EXPECT_EQ(mean<int64_t>({kMost, kMost - 2}), kMost - 1);
  EXPECT_EQ(mean<uint64_t>({UINT64_MAX, UINT64_MAX}), UINT64_MAX);
  EXPECT_EQ(mean<uint64_t>({UINT64_MAX, UINT64_MAX - 4, UINT64_MAX - 2}), UINT64_MAX - 2);
  EXPECT_EQ(mean<int64_t>({(int64_t{1} << 53) + 1, (int64_t{1} << 53) + 1}), (int64_t{1} << 53) + 1);
}

TEST(IntegersTest, AMeanThatDoesNotFitIsSaid) {
  EXPECT_EQ(mean<uint8_t>({255, 0}, {2, -1}), std::nullopt);
  EXPECT_EQ(mean<uint8_t>({0, 255}, {2, -1}), std::nullopt);
  EXPECT_EQ(mean<uint64_t>({UINT64_MAX, UINT64_MAX - 1}, {1.5, -0.5}), std::nullopt);  // 2^64 - 1/2, which is even
  EXPECT_EQ(mean<int64_t>({kMost, kLeast}, {1e300, -9.9e299}), std::nullopt);
  EXPECT_EQ(mean<int8_t>({0, 64}, {3, -2}), -128);
  EXPECT_EQ(mean<int8_t>({0, 65}, {3, -2}), std::nullopt);
}

TEST(IntegersTest, SumIsCheckedAtItsEndOnly) {
  EXPECT_EQ(sum<int64_t>({kMost, 1}), std::nullopt);
  EXPECT_EQ(sum<int64_t>({kMost, 1, -1}), kMost);
  EXPECT_EQ(sum<int64_t>({kLeast, -1}), std::nullopt);
  EXPECT_EQ(sum<int64_t>({-1, kLeast, 1}), kLeast);
  EXPECT_EQ(sum<uint64_t>({UINT64_MAX, 1}), std::nullopt);
  EXPECT_EQ(sum<uint64_t>({UINT64_MAX, 0}), UINT64_MAX);
  EXPECT_EQ(sum<uint8_t>({200, 55}), 255);
  EXPECT_EQ(sum<uint8_t>({200, 56}), std::nullopt);
  EXPECT_EQ(sum<int32_t>({5, -7}), -2);
}

TEST(IntegersTest, MaxKnowsSigns) {
  EXPECT_EQ(max<int64_t>({-5, kLeast, -4}), -4);
  EXPECT_EQ(max<uint64_t>({1, UINT64_MAX, 2}), UINT64_MAX);
  EXPECT_EQ(max<int8_t>({-128}), -128);
}

TEST(IntegersTest, TheFirstElementThatDiffersIsFound) {
  const std::vector<int32_t> a = {1, 2, 3, 4}, b = {1, 2, 3, 5}, c = {1, 2, 0x10003, 4};
  const auto differs = [](const std::vector<const std::vector<int32_t>*>& vectors) {
    std::vector<const std::byte*> inputs;
    for (const auto* vector : vectors) inputs.push_back(reinterpret_cast<const std::byte*>(vector->data()));
    return first_difference(inputs, DType::kInt32, 4);
  };
  EXPECT_EQ(differs({&a}), std::nullopt);
  EXPECT_EQ(differs({&a, &a, &a}), std::nullopt);
  EXPECT_EQ(differs({&a, &b}), 3u);
  EXPECT_EQ(differs({&a, &b, &c}), 2u);
  EXPECT_EQ(differs({&a, &c, &b}), 2u);
}

}  // namespace
}  // namespace ckpt::average
