// The weighted mean of elements, correctly rounded.
//
// Each element is sum(weight[i] * x[i]) / sum(weight[i]) over the reals, rounded once, to nearest even, straight to the
// target's dtype. The sum is taken as a pair of float64 (error-free transformations: Knuth's two-sum, two-product by
// FMA: Ogita, Rump, Oishi, "Accurate sum and dot product", 2005); an element whose pair was not exact, or whose
// rounding the pair cannot decide, is done again in exact arithmetic (exact_sum.h). The result is therefore the same
// for any order of the inputs, any vector width and any number of threads.
//
// Thread rule: does not change; use it from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/average/exact_sum.h"
#include "core/average/kernel.h"
#include "core/base/dtype.h"

namespace ckpt::average {

/// Which vector unit does it; all give the same bits.
enum class Kernel : uint8_t { kScalar, kPortable, kAvx2, kAvx512 };

/// The widest that this machine has.
Kernel best_kernel();

/// What was met in a run of elements.
struct MeanFlags {
  /// NaN or infinity in an input: the element is what IEEE sums make of it, and NaN is the quiet one.
  bool nonfinite_input = false;
  /// The inputs were finite and the mean is beyond what the target can hold (see round_quotient()).
  bool overflow = false;
  uint64_t redone = 0;  ///< elements done in exact arithmetic
};

class Mean {
 public:
  /// Floating or complex dtypes (complex ones by components, to a complex dtype of any width). `weights`: finite, with
  /// a sum above 0, else kInvalid. kUnsupported for other dtypes.
  Mean(std::vector<double> weights, DType from, DType to, Kernel kernel = best_kernel());

  /// inputs[i]: `elements` elements of `from` in this machine's byte order, weighted by weights[i]; `to`: room for as
  /// many of the target's. No alignment is asked for. Zero has the sign + unless all inputs are -0.
  MeanFlags operator()(std::span<const std::byte* const> inputs, size_t elements, std::byte* to) const;

 private:
  class Run;
  void prepare(Kernel kernel);
  void set_spreads();
  /// The bits of the mean of one number of each input, by exact arithmetic.
  uint64_t exact_mean(std::span<const double> numbers, MeanFlags& flags) const;
  uint64_t nonfinite_mean(std::span<const double> numbers) const;

  std::vector<double> weights_;
  ExactNumber weight_sum_;
  DType from_, to_;  // of complex dtypes: of their components
  size_t numbers_per_element_;

  const KernelFunctions* functions_ = nullptr;  // nullptr: no kernel, all by exact arithmetic
  bool widen_ = false;                          // numbers are made float32 for the kernel
  KernelTask task_;                             // but for what a run sets
  std::vector<double> kernel_weights_;          // empty: all are 1
};

}  // namespace ckpt::average
