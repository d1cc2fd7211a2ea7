// Sums of products of numbers without any rounding, and their quotients rounded once.
//
// A sum is a fixed-point number wide enough for every product of two doubles: a superaccumulator (Kulisch). Slow beside
// the pairs of mean.h, so it is for what those cannot decide, and the measure of them in the tests.
//
// Thread rule: values.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/base/dtype.h"

namespace ckpt::average {

/// A whole number of `size` limbs, the lowest first, times 2^(32 * first + a constant that all of them share).
struct ExactNumber {
  static constexpr int kLimbs = 140;
  bool negative = false;
  int first = 0;
  int size = 0;  ///< 0: zero; else the highest limb is not 0
  std::array<uint32_t, kLimbs> limbs;
};

class ExactSum {
 public:
  /// Adds a * b; both finite.
  void add_product(double a, double b);
  /// Adds weight * value, or weight * -value.
  void add_product(double weight, uint64_t value, bool negative);

  ExactNumber value() const;

 private:
  static constexpr int kLowest = -2176;        // exponent of the lowest bit: products go down to 2^-2148
  static constexpr int kCarryAfter = 1 << 27;  // additions of less than 2^34 to a limb of 63 bits

  void add(uint64_t a, uint64_t b, int exponent, bool negative);
  void add_shifted(uint64_t value, int exponent, bool negative);
  void carry();

  std::array<int64_t, ExactNumber::kLimbs> limbs_ = {};  // 32 bits each; what is beyond, a sign too, is not carried yet
  int begin_ = ExactNumber::kLimbs;                      // limbs outside [begin_, end_) are 0
  int end_ = 0;
  int added_ = 0;
};

/// The sum of finite numbers.
ExactNumber exact_sum(std::span<const double> numbers);

/// An element's bits, in the lowest ones.
struct Rounded {
  uint64_t bits = 0;
  bool fits = true;  ///< false: beyond what the dtype can hold; `bits` is then what torch makes of it
};

/// numerator / denominator to the nearest number of a floating dtype, or of an integer one; of two as near to the even
/// one. The denominator is above 0. Beyond the range come infinities, or NaN where there are none, or the largest
/// number of float8_e4m3fn (as in torch), or that of an integer dtype. float8_e8m0fnu, which has neither zero, sign nor
/// an even number, has 2^-127 for 0, NaN below it, and the greater one of two as near.
Rounded round_quotient(const ExactNumber& numerator, const ExactNumber& denominator, DType dtype);

/// `value` (not a NaN) to a floating dtype in the same way; the zeros of both signs as they are.
Rounded round_number(double value, DType dtype);

/// The least number that does not fit into a floating dtype, of both signs; infinity for float64.
double least_beyond(DType dtype);

/// Special numbers of a floating dtype. Without infinities: a NaN.
uint64_t quiet_nan(DType dtype);
uint64_t infinity(DType dtype, bool negative);
uint64_t negative_zero(DType dtype);

}  // namespace ckpt::average
