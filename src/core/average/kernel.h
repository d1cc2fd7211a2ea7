// The vector loops of mean.h: one source, kernel_loops.h, compiled for several vector units.
//
// What includes this file may be compiled for a vector unit that this machine does not have, so it has no headers with
// inline functions: the linker keeps only one copy of such a function for the whole library.
//
// Thread rule: any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ckpt::average {

/// Numbers of all inputs, at most kKernelBlock and at least kKernelLeast of them.
inline constexpr size_t kKernelBlock = 256;
inline constexpr size_t kKernelLeast = 16;

enum class KernelSource : uint8_t { kFloat64, kFloat32, kFloat16, kBFloat16 };
/// kOddFloat64: what is not exact becomes the one of the two neighbours that is odd, so that what rounds it to fewer
/// digits then sees on which side of a tie it was.
enum class KernelTarget : uint8_t { kFloat64, kFloat32, kFloat16, kBFloat16, kOddFloat64 };

struct KernelTask {
  const std::byte* const* inputs = nullptr;
  size_t input_count = 0;
  KernelSource source = KernelSource::kFloat64;
  size_t first = 0;  ///< number of each input to begin with
  size_t count = 0;

  /// By a power of two, their sum is 1 to 2, and none is below 2^-300 or above 2^300 but 0. nullptr: all are 1.
  const double* weights = nullptr;
  double sum = 0, sum_low = 0;       ///< of the weights, as a pair
  double sum_error = 0;              ///< how far that is off, at most
  double inverse = 0, half_sum = 0;  ///< near to 1 / sum; sum * 2^-53
  bool positive = true;              ///< all weights are above 0
  /// Sums of numbers (not of float64) whose exponents are no further apart than this are exact in one double, or in a
  /// pair of them. 0: none.
  uint32_t spread_of_one = 0, spread_of_pair = 0;
  double limit = 0;  ///< results are below it, or left undecided

  KernelTarget target = KernelTarget::kFloat64;
  size_t target_width = 8;
  std::byte* to = nullptr;
  /// A bit for each number, 1: not decided, and `to` is of no use there.
  uint64_t* undecided = nullptr;
};

struct KernelFunctions {
  void (*mean)(const KernelTask& task);
  bool has_float16;  ///< false: neither as source nor as target
};

/// nullptr: not compiled for this architecture.
const KernelFunctions* portable_kernel();
const KernelFunctions* avx2_kernel();
const KernelFunctions* avx512_kernel();

}  // namespace ckpt::average
