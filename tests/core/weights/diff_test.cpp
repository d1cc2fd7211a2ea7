// Differences between files of weights.
#include "core/weights/diff.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/weights/convert.h"
#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

using Names = std::vector<std::string>;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

class DiffTest : public testing::Test {
 protected:
  struct Sample {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  Weights file_of(const std::vector<Sample>& samples, const std::map<std::string, std::string>& metadata = {}) {
    std::vector<format::TensorToWrite> tensors;
    for (const Sample& one : samples) tensors.push_back(test::to_write(one.name, one.dtype, one.shape, one.bytes));
    const std::string path = dir_ / (std::to_string(count_++) + ".safetensors");
    return Weights::open(test::write_safetensors(path, std::move(tensors), metadata));
  }
  template <class T>
  Weights one(DType dtype, const std::vector<T>& values) {
    const auto count = static_cast<int64_t>(values.size() * sizeof(T) / width(dtype));
    return file_of({{"t", dtype, {count}, test::bytes_of(values)}});
  }
  /// The one difference between two tensors.
  template <class T>
  Difference difference(DType dtype, const std::vector<T>& a, const std::vector<T>& b, DiffOptions options = {}) {
    const Diff result = diff(one(dtype, a), one(dtype, b), options);
    EXPECT_EQ(result.changed.size(), 1u);
    return result.changed.empty() ? Difference() : result.changed[0];
  }
  template <class T>
  bool equal(DType dtype, const std::vector<T>& a, const std::vector<T>& b, DiffOptions options = {}) {
    return diff(one(dtype, a), one(dtype, b), options).equal();
  }

  test::TempDir dir_;
  int count_ = 0;
};

TEST_F(DiffTest, OneFileInTwoFormatsIsEqual) {
  const Weights a = Weights::open(std::string(CKPT_TEST_DATA) + "/torch/shapes.pt");
  convert(a, dir_ / "b.safetensors", {.to = Format::kSafetensors});
  EXPECT_TRUE(diff(a, Weights::open(dir_ / "b.safetensors")).equal());
  EXPECT_TRUE(diff(a, a, {.threads = 2}).equal());
}

TEST_F(DiffTest, NamesShapesAndDTypesAreToldApart) {
  const std::string four(16, '\0');
  const Weights a = file_of({{"gone", DType::kFloat32, {4}, four},
                             {"shape", DType::kFloat32, {4}, four},
                             {"dtype", DType::kFloat32, {4}, four},
                             {"same", DType::kFloat32, {4}, four}});
  const Weights b = file_of({{"new", DType::kFloat32, {4}, four},
                             {"shape", DType::kFloat32, {2, 2}, four},
                             {"dtype", DType::kInt32, {4}, four},
                             {"same", DType::kFloat32, {4}, four}});
  const Diff result = diff(a, b);
  EXPECT_FALSE(result.equal());
  EXPECT_EQ(result.added, (Names{"new"}));
  EXPECT_EQ(result.removed, (Names{"gone"}));
  ASSERT_EQ(result.changed.size(), 2u);
  EXPECT_EQ(result.changed[0].name, "dtype");
  EXPECT_EQ(result.changed[0].kind, Difference::Kind::kDType);
  EXPECT_EQ(result.changed[0].a, "float32 [4]");
  EXPECT_EQ(result.changed[0].b, "int32 [4]");
  EXPECT_EQ(result.changed[1].kind, Difference::Kind::kShape);
  EXPECT_EQ(result.changed[1].b, "float32 [2, 2]");
}

TEST_F(DiffTest, NumbersOfADifferenceAreWhatNumpySays) {
  std::vector<float> a(5000), b(5000);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(std::fmod(static_cast<double>(i) * 0.37, 5.0) - 2);
    b[i] = static_cast<float>(static_cast<double>(a[i]) * 1.001 + 0.01);
  }
  const Difference seen = difference(DType::kFloat32, a, b);
  EXPECT_EQ(seen.kind, Difference::Kind::kValue);
  EXPECT_DOUBLE_EQ(seen.max_abs, 0.012989997863769531);
  EXPECT_DOUBLE_EQ(seen.max_rel, 999.0223769812649);
  EXPECT_NEAR(seen.cosine.value(), 0.999980905550843, 1e-12);
  EXPECT_EQ(seen.max_ulp, 1008981770u);
}

TEST_F(DiffTest, WhatTheTolerancesAllowIsEqual) {
  const std::vector<float> a = {1, 100}, b = {1.25f, 101};
  EXPECT_FALSE(equal(DType::kFloat32, a, b));
  EXPECT_TRUE(equal(DType::kFloat32, a, b, {.rtol = 0, .atol = 1}));
  EXPECT_FALSE(equal(DType::kFloat32, a, b, {.rtol = 0, .atol = 0.5}));
  EXPECT_TRUE(equal(DType::kFloat32, a, b, {.rtol = 0.2, .atol = 0}));
  EXPECT_FALSE(equal(DType::kFloat32, a, b, {.rtol = 0.1, .atol = 0}));
}

TEST_F(DiffTest, NaNAndInfinityEqualThemselvesAlone) {
  const DiffOptions loose{.rtol = 1, .atol = 1e30};
  EXPECT_TRUE(equal<float>(DType::kFloat32, {kNaN, kInf, -kInf, 0.0f}, {-kNaN, kInf, -kInf, -0.0f}));
  for (const auto& [x, y] : {std::pair(kNaN, 1.0f), {1.0f, kNaN}, {kInf, 1.0f}, {kInf, -kInf}, {kNaN, kInf}}) {
    const Difference seen = difference<float>(DType::kFloat32, {x, 1}, {y, 1}, loose);
    EXPECT_EQ(seen.max_abs, kInf);
    EXPECT_EQ(seen.max_rel, kInf);
    EXPECT_EQ(seen.max_ulp.has_value(), !std::isnan(x) && !std::isnan(y));
    EXPECT_EQ(seen.cosine, 1.0);  // of the pairs that are finite
  }
}

TEST_F(DiffTest, StepsAreCountedInTheDTypeOfTheTensors) {
  EXPECT_EQ(difference<uint16_t>(DType::kFloat16, {0x3c00}, {0x3c05}).max_ulp, 5u);
  EXPECT_EQ(difference<uint16_t>(DType::kBFloat16, {0x0001}, {0x8001}).max_ulp, 2u);
  EXPECT_EQ(difference<double>(DType::kFloat64, {1.0}, {std::nextafter(1.0, 2.0)}).max_ulp, 1u);
  EXPECT_EQ(difference<float>(DType::kFloat32, {std::numeric_limits<float>::max()}, {kInf}).max_ulp, 1u);
  EXPECT_EQ(difference<int32_t>(DType::kInt32, {1}, {2}).max_ulp, std::nullopt);
}

TEST_F(DiffTest, IntegersAndBoolsAreComparedExactly) {
  const int64_t big = INT64_C(1) << 62;
  Difference seen = difference<int64_t>(DType::kInt64, {big, 7}, {big + 1, 7}, {.rtol = 1, .atol = 10});
  EXPECT_EQ(seen.max_abs, 1);
  EXPECT_EQ(difference<int64_t>(DType::kInt64, {INT64_MIN}, {INT64_MAX}).max_abs, 0x1.0p64);
  EXPECT_EQ(difference<uint64_t>(DType::kUInt64, {0}, {UINT64_MAX}).max_abs, 0x1.0p64);
  seen = difference<int16_t>(DType::kInt16, {-5, 1}, {4, 1}, {.rtol = 10, .atol = 10});
  EXPECT_EQ(seen.max_abs, 9);
  EXPECT_EQ(seen.max_rel, 2.25);
  EXPECT_EQ(difference<uint8_t>(DType::kBool, {0, 1}, {1, 1}).max_abs, 1);
  EXPECT_TRUE(equal<uint8_t>(DType::kBool, {0, 2}, {0, 1}));
}

TEST_F(DiffTest, ComplexNumbersAreComparedByComponents) {
  const Difference seen = difference<float>(DType::kComplex64, {1, 2, 3, 4}, {1, 2, 3, 8});
  EXPECT_EQ(seen.max_abs, 4);
  EXPECT_EQ(seen.max_rel, 0.5);
  EXPECT_EQ(seen.max_ulp, std::nullopt);
}

TEST_F(DiffTest, ACosineNeedsTwoLengths) {
  EXPECT_EQ(difference<float>(DType::kFloat32, {0, 0}, {1, 2}).cosine, std::nullopt);
  EXPECT_DOUBLE_EQ(difference<float>(DType::kFloat32, {1, 0}, {0, 3}).cosine.value(), 0);
  EXPECT_DOUBLE_EQ(difference<float>(DType::kFloat32, {1, 2}, {-2, -4}).cosine.value(), -1);
}

TEST_F(DiffTest, LargeTensorsGiveTheSameNumbersOnAnyNumberOfThreads) {
  std::vector<float> a(2000000), b;
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 977) - 400.5f;
  b = a;
  b[1999999] += 3;
  b[7] *= 2;
  const Difference one_thread = difference(DType::kFloat32, a, b, {.threads = 1});
  const Difference four = difference(DType::kFloat32, a, b, {.threads = 4});
  EXPECT_EQ(one_thread.max_abs, 393.5);
  EXPECT_EQ(one_thread.max_abs, four.max_abs);
  EXPECT_EQ(one_thread.cosine, four.cosine);
}

TEST_F(DiffTest, ATieThatOneSideDroppedIsNoDifference) {
  const std::string bytes = test::bytes_of<float>({1, 2});
  const Weights tied = file_of({{"a", DType::kFloat32, {2}, bytes}}, {{"b", "a"}});
  const Weights alone = file_of({{"a", DType::kFloat32, {2}, bytes}});
  EXPECT_TRUE(diff(tied, alone).equal());
  EXPECT_TRUE(diff(alone, tied).equal());
  const Weights other = file_of({{"c", DType::kFloat32, {2}, bytes}});
  EXPECT_EQ(diff(tied, other).removed, (Names{"a", "b"}));
}

TEST_F(DiffTest, SparseAndQuantizedTensorsCannotBeCompared) {
  for (const char* name : {"torch/sparse.pt", "torch/quantized.pt"}) {
    const Weights weights = Weights::open(std::string(CKPT_TEST_DATA) + "/" + name);
    const Error error = test::error_of([&] { diff(weights, weights); });
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.details().size(), weights.tensors().size());
  }
}

}  // namespace
}  // namespace ckpt::weights
