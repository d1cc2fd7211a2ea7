// What a mean does not depend on: the kernel, the order of the inputs, where they lie in memory, how many there are.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "core/average/mean_testing.h"
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace ckpt::average {
namespace {

using test::Inputs;
using Random = std::mt19937_64;

constexpr DType kDTypes[] = {DType::kFloat64,  DType::kFloat32,      DType::kFloat16,
                             DType::kBFloat16, DType::kFloat8E4M3FN, DType::kFloat8E5M2FNUZ};

/// Any bits, or numbers such as weights are (of both halves of float32).
Inputs make_inputs(Random& random, DType dtype, size_t count, size_t elements, bool any_bits) {
  Inputs inputs(count);
  for (std::string& input : inputs) {
    if (any_bits) {
      for (size_t i = 0; i < elements * width(dtype); ++i) input += static_cast<char>(random());
      continue;
    }
    std::vector<double> numbers(elements);
    for (double& number : numbers) number = std::normal_distribution(0.0, 0.02)(random);
    input = test::mean_of({test::bytes_of(numbers)}, {1}, DType::kFloat64, dtype, Kernel::kScalar).bytes;
  }
  return inputs;
}

std::vector<double> make_weights(Random& random, size_t count) {
  switch (random() % 4) {
    case 0:
      return std::vector<double>(count, 1);
    case 1: {
      std::vector<double> weights(count);
      std::iota(weights.begin(), weights.end(), 1);
      return weights;
    }
    case 2: {  // whole numbers of which some are not above 0
      std::vector<double> weights(count);
      for (size_t i = 0; i < count; ++i) weights[i] = static_cast<double>(i % 4) - 1;
      weights[0] = static_cast<double>(2 * count);
      return weights;
    }
    default: {
      std::vector<double> weights(count);
      for (double& weight : weights) weight = std::uniform_real_distribution(0.01, 1.0)(random);
      return weights;
    }
  }
}

bool same(const test::Result& a, const test::Result& b) {
  return a.bytes == b.bytes && a.flags.nonfinite_input == b.flags.nonfinite_input &&
         a.flags.overflow == b.flags.overflow;
}

TEST(MeanKernelTest, EveryKernelGivesTheSameBits) {
  Random random(1);
  for (const DType from : kDTypes) {
    for (const DType to : kDTypes) {
      for (const bool any_bits : {false, true}) {
        const size_t count = 1 + random() % 8;
        const Inputs inputs = make_inputs(random, from, count, 300, any_bits);
        const std::vector<double> weights = make_weights(random, count);
        const test::Result expected = test::mean_of(inputs, weights, from, to, Kernel::kScalar);
        for (const Kernel kernel : test::kernels()) {
          EXPECT_TRUE(same(test::mean_of(inputs, weights, from, to, kernel), expected))
              << name(from) << " to " << name(to) << ", kernel " << static_cast<int>(kernel);
        }
      }
    }
  }
}

TEST(MeanKernelTest, AnyNumberOfElementsAtAnyAddress) {
  Random random(2);
  for (const DType dtype : kDTypes) {
    const Inputs inputs = make_inputs(random, dtype, 3, 600, false);
    const std::vector<double> weights = {0.5, 0.25, 0.3};
    const std::string whole = test::mean_of(inputs, weights, dtype, dtype, Kernel::kScalar).bytes;
    for (const Kernel kernel : test::kernels()) {
      const Mean mean(weights, dtype, dtype, kernel);
      for (size_t elements = 0; elements < 600; elements += elements < 68 ? 1 : 61) {
        const size_t bytes = elements * width(dtype), shift = random() % 8;
        std::vector<std::string> moved;
        std::vector<const std::byte*> pointers;
        for (size_t i = 0; i < inputs.size(); ++i) {
          moved.push_back(std::string(shift + i, '!') + inputs[i].substr(0, bytes));
          moved.back().shrink_to_fit();
        }
        for (size_t i = 0; i < inputs.size(); ++i) {
          pointers.push_back(reinterpret_cast<const std::byte*>(moved[i].data()) + shift + i);
        }
        std::string to(bytes + 2 * shift + 1, '?');
        mean(pointers, elements, reinterpret_cast<std::byte*>(to.data()) + shift);
        EXPECT_EQ(to, std::string(shift, '?') + whole.substr(0, bytes) + std::string(shift + 1, '?'))
            << name(dtype) << ", kernel " << static_cast<int>(kernel) << ", " << elements << " elements";
      }
    }
  }
}

TEST(MeanKernelTest, TheOrderOfInputsDoesNotMatter) {
  Random random(3);
  for (const DType dtype : kDTypes) {
    for (const bool any_bits : {false, true}) {
      Inputs inputs = make_inputs(random, dtype, 5, 64, any_bits);
      std::vector<double> weights = make_weights(random, 5);
      const test::Result expected = test::mean_of(inputs, weights, dtype, dtype, best_kernel());
      std::vector<size_t> order(5);
      std::iota(order.begin(), order.end(), 0);
      do {
        Inputs ordered;
        std::vector<double> ordered_weights;
        for (const size_t i : order) {
          ordered.push_back(inputs[i]);
          ordered_weights.push_back(weights[i]);
        }
        EXPECT_TRUE(same(test::mean_of(ordered, ordered_weights, dtype, dtype, best_kernel()), expected));
      } while (std::next_permutation(order.begin(), order.end()));
    }
  }
}

TEST(MeanKernelTest, WeightsCountByTheirRatioAlone) {
  Random random(4);
  const Inputs inputs = make_inputs(random, DType::kFloat32, 4, 200, false);
  const auto mean = [&](const std::vector<double>& weights) {
    return test::mean_of(inputs, weights, DType::kFloat32, DType::kFloat32, best_kernel()).bytes;
  };
  EXPECT_EQ(mean({0.1, 0.1, 0.1, 0.1}), mean({1, 1, 1, 1}));
  EXPECT_EQ(mean({0x1p-900, 0x1p-899, 0x3p-900, 0x1p-900}), mean({1, 2, 3, 1}));
}

TEST(MeanKernelTest, ComplexNumbersAreDoneByComponents) {
  Random random(5);
  for (const auto& [complex, real] :
       {std::pair(DType::kComplex32, DType::kFloat16), std::pair(DType::kComplex64, DType::kFloat32),
        std::pair(DType::kComplex128, DType::kFloat64)}) {
    const Inputs inputs = make_inputs(random, real, 3, 202, false);
    for (const Kernel kernel : test::kernels()) {
      EXPECT_EQ(test::mean_of(inputs, {1, 2, 4}, complex, complex, kernel).bytes,
                test::mean_of(inputs, {1, 2, 4}, real, real, kernel).bytes);
      EXPECT_EQ(test::mean_of(inputs, {1, 2, 4}, complex, DType::kComplex64, kernel).bytes,
                test::mean_of(inputs, {1, 2, 4}, real, DType::kFloat32, kernel).bytes);
    }
  }
}

TEST(MeanKernelTest, NearlyAllWeightsOfModelsAreDoneInVectors) {
  Random random(6);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
    const Inputs inputs = make_inputs(random, dtype, 5, 4000, false);
    for (const auto& weights : {std::vector<double>{1, 1, 1, 1, 1}, {0.1, 0.3, 0.25, 0.2, 0.15}}) {
      EXPECT_LT(test::mean_of(inputs, weights, dtype, dtype, Kernel::kPortable).flags.redone, 10u) << name(dtype);
    }
  }
}

TEST(MeanKernelTest, EqualInputsAreNotDoneTwice) {
  Random random(7);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat64}) {
    const Inputs one = make_inputs(random, dtype, 1, 1000, false);
    const test::Result result =
        test::mean_of({one[0], one[0], one[0]}, {0.1, 0.2, 0.7}, dtype, dtype, Kernel::kPortable);
    EXPECT_EQ(result.bytes, one[0]);
    EXPECT_EQ(result.flags.redone, 0u);
  }
}

#if defined(__SSE2__)
TEST(MeanKernelTest, WhatAThreadHasSetForDenormalsAndRoundingChangesNothing) {
  const std::vector<float> numbers(40, 0x1p-140f);
  const std::string input = test::bytes_of(numbers);
  for (const Kernel kernel : test::kernels()) {
    const Mean mean({1, 2}, DType::kFloat32, DType::kFloat32, kernel);
    const std::vector<const std::byte*> inputs(2, reinterpret_cast<const std::byte*>(input.data()));
    std::string to(input.size(), '?');
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0xE040);  // flush denormals, and take them for 0; round towards 0
    const unsigned set = _mm_getcsr();
    mean(inputs, numbers.size(), reinterpret_cast<std::byte*>(to.data()));
    EXPECT_EQ(_mm_getcsr(), set);
    _mm_setcsr(before);
    EXPECT_EQ(to, input);
  }
}
#endif

}  // namespace
}  // namespace ckpt::average
