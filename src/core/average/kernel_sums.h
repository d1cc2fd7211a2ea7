// Where a kernel's numbers come from, and their sums. See kernel.h for what may be included here.
#pragma once

#include "core/average/kernel_vector.h"

namespace ckpt::average {
namespace {

constexpr double kLeastNumber = 0x1p-600;  // of float64: its products with weights can lose nothing

// Where kChunk numbers come from.
struct FromFloat64 {
  static constexpr size_t kWidth = 8;
  static TwoDoubles doubles(const std::byte* from) { return {load<Doubles>(from), load<Doubles>(from + kBytes)}; }
};

struct FromFloat32 {
  static constexpr size_t kWidth = 4;
  static Floats floats(const std::byte* from) { return load<Floats>(from); }
  static TwoDoubles doubles(const std::byte* from) { return widen(floats(from)); }
};

struct FromBFloat16 {
  static constexpr size_t kWidth = 2;
  static Floats floats(const std::byte* from) {
    return bits_as<Floats>(__builtin_convertvector(load<Shorts>(from), UInts) << 16);
  }
  static TwoDoubles doubles(const std::byte* from) { return widen(floats(from)); }
};

#if defined(__F16C__)
struct FromFloat16 {
  static constexpr size_t kWidth = 2;
  static Floats floats(const std::byte* from) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(from)));
#else
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(from)));
#endif
  }
  static TwoDoubles doubles(const std::byte* from) { return widen(floats(from)); }
};
#endif

/// A sum as high + low, off by no more than `lost`; that is not looked at where kExact promises that nothing is.
template <bool kWeighted, bool kExact, bool kAnySize>
struct PairSum {
  Doubles high = {}, low = {}, lost = {};
  Longs unsafe = {};

  void begin(Doubles number, double weight) { multiply(number, weight, high, low); }

  void add(Doubles number, double weight) {
    Doubles term, error, from_high;
    multiply(number, weight, term, error);
    two_sum(high, term, high, from_high);
    add_low(from_high);
    if constexpr (kWeighted) add_low(error);
  }

 private:
  void multiply(Doubles number, double weight, Doubles& term, Doubles& error) {
    if constexpr (kWeighted) {
      two_product(number, all(weight), term, error);
      if constexpr (kAnySize) {
        unsafe |= bits_as<Longs>(magnitude(number) < kLeastNumber) & bits_as<Longs>(number != 0.0);
      }
    } else {
      term = number;
      error = Doubles{};
    }
  }

  void add_low(Doubles error) {
    if constexpr (kExact) {
      low += error;
    } else {
      Doubles from_low;
      two_sum(low, error, low, from_low);
      lost += magnitude(from_low);
    }
  }
};

/// How far the exponents of numbers are apart, lane by lane.
class Spread {
 public:
  void add(Floats numbers) {
    const UInts twice = bits_as<UInts>(numbers) << 1;
    greatest_ = twice > greatest_ ? twice : greatest_;
    least_ = twice - 1 < least_ ? twice - 1 : least_;
  }

  /// By no more than this in any lane, and no infinity or NaN.
  bool is_within(uint32_t exponents) const {
    const Ints close = bits_as<Ints>(greatest_ - (least_ + 1) < exponents << 24);
    return is_all(close & bits_as<Ints>(greatest_ < UINT32_C(0xFF000000)));
  }

 private:
  UInts greatest_ = {}, least_ = ~UInts{};  // twice the bits, without the sign; less 1, so that 0 is the greatest
};

}  // namespace
}  // namespace ckpt::average
