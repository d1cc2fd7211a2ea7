// Means of random numbers against rational arithmetic, by every kernel that this machine has. CKPT_TEST_LONG: many more
// of them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>

#include "core/average/mean_testing.h"
#include "core/average/rational.h"

namespace ckpt::average {
namespace {

using test::Inputs;
using Random = std::mt19937_64;

uint64_t below(Random& random, uint64_t limit) { return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random); }

uint64_t any_sign(Random& random, DType dtype) { return (random() & 1) != 0 ? test::sign_bit(dtype) : 0; }

/// The bits of a number that is near a double; e8m0 gets some exponent.
uint64_t near(double number, DType dtype) {
  const mpq_class exact(number);
  const double one = 1;
  return test::rounded_mean({&exact, 1}, {&one, 1}, dtype);
}

/// Rows of N numbers, by their bits.
using Rows = std::vector<uint64_t> (*)(Random&, DType, size_t);

std::vector<uint64_t> normal(Random& random, DType dtype, size_t count) {
  std::vector<uint64_t> row(count);
  for (uint64_t& bits : row) bits = near(std::normal_distribution(0.0, 0.02)(random), dtype);
  if (dtype == DType::kFloat8E8M0FNU) {
    for (uint64_t& bits : row) bits = 100 + below(random, 30);
  }
  return row;
}

std::vector<uint64_t> wild(Random& random, DType dtype, size_t count) {
  std::vector<uint64_t> row(count);
  for (uint64_t& bits : row) bits = below(random, test::greatest(dtype) + 1) | any_sign(random, dtype);
  return row;
}

/// Zeros and denormal numbers, and the first normal ones.
std::vector<uint64_t> tiny(Random& random, DType dtype, size_t count) {
  std::vector<uint64_t> row(count);
  for (uint64_t& bits : row) {
    const uint64_t limit = std::max<uint64_t>(test::greatest(dtype) >> (6 + below(random, 54) % (width(dtype) * 8)), 3);
    bits = below(random, limit) | any_sign(random, dtype);
    if (below(random, 4) == 0) bits &= test::sign_bit(dtype);
  }
  return row;
}

std::vector<uint64_t> huge(Random& random, DType dtype, size_t count) {
  const uint64_t sign = any_sign(random, dtype);
  std::vector<uint64_t> row(count);
  for (uint64_t& bits : row) bits = (test::greatest(dtype) - below(random, 3)) | sign;
  return row;
}

/// Large ones that cancel each other, and what they hide.
std::vector<uint64_t> cancelling(Random& random, DType dtype, size_t count) {
  std::vector<uint64_t> row = wild(random, dtype, count);
  for (size_t i = 0; i + 1 < count; i += 2 + below(random, 2)) row[i + 1] = row[i] ^ test::sign_bit(dtype);
  std::ranges::shuffle(row, random);
  return row;
}

/// Neighbours: their means are ties and near them.
std::vector<uint64_t> neighbours(Random& random, DType dtype, size_t count) {
  const uint64_t sign = any_sign(random, dtype);
  const uint64_t first = below(random, test::greatest(dtype) - 3);
  std::vector<uint64_t> row(count);
  for (uint64_t& bits : row) bits = (first + below(random, 4)) | sign;
  return row;
}

std::vector<uint64_t> constant(Random& random, DType dtype, size_t count) {
  return std::vector(count, (below(random, 2) == 0 ? wild : normal)(random, dtype, 1)[0]);
}

constexpr Rows kRows[] = {normal, wild, tiny, huge, cancelling, neighbours, constant};

using Weights = std::vector<double> (*)(Random&, size_t);

std::vector<double> equal(Random& random, size_t count) {
  return std::vector<double>(count, below(random, 2) == 0 ? 1.0 : 0.3);
}

std::vector<double> whole(Random& random, size_t count) {
  std::vector<double> weights(count);
  for (double& weight : weights) weight = static_cast<double>(1 + below(random, 9));
  return weights;
}

std::vector<double> decimals(Random& random, size_t count) {
  std::vector<double> weights(count);
  for (double& weight : weights) weight = static_cast<double>(1 + below(random, 99)) / 100;
  return weights;
}

/// Some below 0, and zeros.
std::vector<double> mixed(Random& random, size_t count) {
  std::vector<double> weights(count);
  for (double& weight : weights) weight = (static_cast<double>(below(random, 20)) - 5) / 8;
  weights[below(random, count)] += 1 + std::abs(std::accumulate(weights.begin(), weights.end(), 0.0));
  return weights;
}

std::vector<double> moving(Random& random, size_t count) {
  const double decay = below(random, 2) == 0 ? 0.9 : 0.999;
  std::vector<double> weights(count);
  for (size_t i = 0; i < count; ++i) {
    weights[i] = std::pow(decay, static_cast<double>(count - 1 - i)) * (i == 0 ? 1 : 1 - decay);
  }
  return weights;
}

std::vector<double> far_apart(Random& random, size_t count) {
  const double range = below(random, 2) == 0 ? 30 : 300;
  std::vector<double> weights(count);
  for (double& weight : weights) weight = std::pow(10, std::uniform_real_distribution(-range, range)(random));
  return weights;
}

constexpr Weights kWeights[] = {equal, whole, decimals, mixed, moving, far_apart};

constexpr size_t kElements = 40;

struct Case {
  DType from, to;
  size_t rows, weights, inputs;
};

std::string describe(const Case& test) {
  return std::string(name(test.from)) + " to " + std::string(name(test.to)) + ", rows " + std::to_string(test.rows) +
         ", weights " + std::to_string(test.weights) + ", inputs " + std::to_string(test.inputs);
}

void check(const Case& test, Random& random) {
  const std::vector<double> weights = kWeights[test.weights](random, test.inputs);
  const size_t size = width(test.from);
  Inputs inputs(test.inputs);
  std::vector<uint64_t> expected;
  for (size_t k = 0; k < kElements; ++k) {
    std::vector<uint64_t> row = kRows[test.rows](random, test.from, test.inputs);
    if (!test::has_negative_zero(test.from)) std::ranges::replace(row, test::sign_bit(test.from), 0);
    std::vector<mpq_class> numbers;
    bool negative_zeros = true;
    for (size_t i = 0; i < row.size(); ++i) {
      inputs[i].append(reinterpret_cast<const char*>(&row[i]), size);
      numbers.push_back(test::value_of(row[i], test.from));
      negative_zeros = negative_zeros && row[i] == test::sign_bit(test.from) && row[i] != 0;
    }
    const uint64_t negative_zero = test::has_negative_zero(test.to) ? test::sign_bit(test.to) : 0;
    expected.push_back(negative_zeros ? negative_zero : test::rounded_mean(numbers, weights, test.to));
  }
  for (const Kernel kernel : test::kernels()) {
    const test::Result result = test::mean_of(inputs, weights, test.from, test.to, kernel);
    EXPECT_FALSE(result.flags.nonfinite_input);
    for (size_t k = 0; k < kElements; ++k) {
      uint64_t bits = 0;
      std::memcpy(&bits, result.bytes.data() + k * width(test.to), width(test.to));
      ASSERT_EQ(bits, expected[k]) << describe(test) << ", kernel " << static_cast<int>(kernel) << ", element " << k;
    }
  }
}

TEST(MeanRationalTest, EveryMeanIsCorrectlyRounded) {
  const int rounds = std::getenv("CKPT_TEST_LONG") != nullptr ? 2000 : 8;
  Random random(20);
  for (int round = 0; round < rounds; ++round) {
    for (const DType from : test::kFloats) {
      for (const DType to : test::kFloats) {
        const size_t rows = below(random, std::size(kRows)), weights = below(random, std::size(kWeights));
        const size_t inputs = below(random, 8) == 0 ? 1 + below(random, 100) : 1 + below(random, 6);
        check({from, to, rows, weights, inputs}, random);
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace ckpt::average
