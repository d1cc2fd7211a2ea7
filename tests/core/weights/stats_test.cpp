// Numbers about tensors, against what numpy says of the same values.
#include "core/weights/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

class StatsTest : public testing::Test {
 protected:
  template <class T>
  Stats stats_of(DType dtype, const std::vector<T>& values) {
    const std::string bytes = test::bytes_of(values);
    const auto count = static_cast<int64_t>(bytes.size() / width(dtype));
    const Weights weights =
        Weights::open(test::write_safetensors(dir_ / "f.safetensors", {test::to_write("t", dtype, {count}, bytes)}));
    return stats(weights, weights.tensors()[0]);
  }

  test::TempDir dir_;
};

TEST_F(StatsTest, OfManyNumbersFarFromZeroAreWhatNumpySays) {
  std::vector<float> values(300001);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(std::fmod(static_cast<double>(i) * 0.37, 5.0) - 2) + 1000.0f;
  }
  const Stats seen = stats_of(DType::kFloat32, values);
  EXPECT_EQ(seen.min, 998.0);
  EXPECT_EQ(seen.max, 1002.989990234375);
  EXPECT_NEAR(seen.mean, 1000.494991683361, 1e-9);
  EXPECT_NEAR(seen.std, 1.443377331909419, 1e-9);
  EXPECT_EQ(seen.finite, 300001u);
  EXPECT_EQ(seen.nan + seen.inf, 0u);
}

TEST_F(StatsTest, NaNAndInfinityAreCountedAndLeftOut) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();
  const Stats seen = stats_of<double>(DType::kFloat64, {kNaN, -1, kInf, 3, -kInf, kNaN});
  EXPECT_EQ(seen.nan, 2u);
  EXPECT_EQ(seen.inf, 2u);
  EXPECT_EQ(seen.finite, 2u);
  EXPECT_EQ(seen.min, -1);
  EXPECT_EQ(seen.max, 3);
  EXPECT_EQ(seen.mean, 1);
  EXPECT_EQ(seen.std, 2);
  EXPECT_EQ(stats_of<double>(DType::kFloat64, {kNaN}).finite, 0u);
  EXPECT_EQ(stats_of<double>(DType::kFloat64, {}).finite, 0u);
}

TEST_F(StatsTest, OfTheLargestNumbersTheMeanIsFinite) {
  constexpr double kMax = std::numeric_limits<double>::max();
  const Stats seen = stats_of<double>(DType::kFloat64, {kMax, kMax, kMax, kMax});
  EXPECT_EQ(seen.mean, kMax);
  EXPECT_EQ(seen.std, 0);
}

TEST_F(StatsTest, OfEveryKindOfElement) {
  EXPECT_EQ(stats_of<uint8_t>(DType::kBool, {0, 1, 1, 0}).mean, 0.5);
  EXPECT_EQ(stats_of<int64_t>(DType::kInt64, {-3, 5}).min, -3);
  EXPECT_EQ(stats_of<uint64_t>(DType::kUInt64, {UINT64_C(1) << 63}).max, 0x1.0p63);
  EXPECT_EQ(stats_of<uint16_t>(DType::kBFloat16, {0x3f80, 0xc000}).min, -2);
  EXPECT_EQ(stats_of<uint8_t>(DType::kFloat8E4M3FN, {0x38, 0x7f}).nan, 1u);
  const Stats complex = stats_of<float>(DType::kComplex64, {3, 4, 0, -1});
  EXPECT_EQ(complex.max, 5);
  EXPECT_EQ(complex.min, 1);
  EXPECT_EQ(complex.finite, 2u);
}

TEST_F(StatsTest, SparseAndQuantizedTensorsHaveNone) {
  for (const char* name : {"torch/sparse.pt", "torch/quantized.pt"}) {
    const Weights weights = Weights::open(std::string(CKPT_TEST_DATA) + "/" + name);
    for (const Tensor& tensor : weights.tensors()) {
      EXPECT_EQ(test::error_of([&] { stats(weights, tensor); }).code(), ErrorCode::kUnsupported);
    }
  }
}

}  // namespace
}  // namespace ckpt::weights
