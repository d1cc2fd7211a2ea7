// The loops of a kernel; included once by the source file for each vector unit.
//
// Numbers go one of three ways. Where their exponents are close together and the weights have few digits (equal ones
// have one), the sum is exact in one double: nearly always so for float16, bfloat16 and float32. Where the weights have
// many digits, it is exact in a pair of doubles. Else it is taken as a pair, with a bound on what even that has lost.
// All then divide and look at the remainder. What they cannot decide they leave.
#pragma once

#include "core/average/kernel.h"
#include "core/average/kernel_vector.h"

namespace ckpt::average {
namespace {

constexpr int64_t kExponentBits = 0x7FF0000000000000;
constexpr double kLeastSum = 0x1p-500, kGreatestSum = 0x1p1000;  // between them no product can lose anything
constexpr double kLeastNumber = 0x1p-600;

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

/// The odd neighbour of what `value` stands for, unless it is that: it is off by less than its last place, on the side
/// that the sign of the remainder tells.
inline Doubles to_odd(Doubles value, Doubles remainder) {
  const Longs bits = bits_as<Longs>(value), inexact = bits_as<Longs>(remainder != 0.0);
  const Longs too_large = (bits ^ bits_as<Longs>(remainder)) >> 63;  // the signs differ; now cut off
  return bits_as<Doubles>((bits + (too_large & inexact)) | (inexact & 1));
}

inline Floats to_odd(Floats value, Floats remainder) {
  const Ints bits = bits_as<Ints>(value), inexact = bits_as<Ints>(remainder != 0.0f);
  const Ints too_large = (bits ^ bits_as<Ints>(remainder)) >> 31;
  return bits_as<Floats>((bits + (too_large & inexact)) | (inexact & 1));
}

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

template <class From, bool kWeighted>
class Loop {
 public:
  explicit Loop(const KernelTask& task) : task_(task) {}

  void run() const {
    // The last chunk may do some of the one before it again.
    for (size_t k = 0; k < task_.count; k += kChunk) chunk(k + kChunk <= task_.count ? k : task_.count - kChunk);
  }

 private:
  struct Quotient {
    Doubles value;
    Longs decided;
  };

  void chunk(size_t k) const {
    const size_t offset = (task_.first + k) * From::kWidth;
    Quotient left, right;
    if (!by_one_double(offset, left, right) && !by_exact_pairs(offset, left, right)) by_pairs(offset, left, right);
    finish(left);
    finish(right);
    store(left.value, task_.to + k);
    store(right.value, task_.to + k + kLanes);
    const uint32_t undecided = lanes_of(~left.decided) | lanes_of(~right.decided) << kLanes;
    if (undecided != 0) leave(k, undecided);
  }

  void finish(Quotient& quotient) const {
    const Doubles size = magnitude(quotient.value);
    quotient.decided &= bits_as<Longs>(size < task_.limit);
    if (!task_.positive) quotient.decided &= bits_as<Longs>(size > 0.0);  // the sign of 0 may be another one
  }

  [[gnu::noinline]] void leave(size_t k, uint32_t undecided) const {
    for (size_t i = 0; i < kChunk; ++i) {
      if ((undecided >> i & 1) != 0) task_.undecided[(k + i) / 64] |= uint64_t{1} << (k + i) % 64;
    }
  }

  double weight(size_t i) const { return kWeighted ? task_.weights[i] : 1; }

  bool by_one_double(size_t offset, Quotient& left, Quotient& right) const {
    if constexpr (From::kWidth == 8) {
      return false;
    } else {
      if (task_.spread_of_one == 0) return false;
      Spread spread;
      TwoDoubles sum = {};
      for (size_t i = 0; i < task_.input_count; ++i) {
        const Floats numbers = From::floats(task_.inputs[i] + offset);
        spread.add(numbers);
        TwoDoubles term = widen(numbers);
        if constexpr (kWeighted) {
          term.left *= weight(i);
          term.right *= weight(i);
        }
        sum.left = i == 0 ? term.left : sum.left + term.left;
        sum.right = i == 0 ? term.right : sum.right + term.right;
      }
      if (!spread.is_within(task_.spread_of_one)) return false;
      left = divide(sum.left);
      right = divide(sum.right);
      return true;
    }
  }

  /// An exact sum by an exact divisor.
  Quotient divide(Doubles sum) const {
    if (task_.nearest) return {sum / task_.sum, ~Longs{}};
    const Doubles first = sum * task_.inverse;  // at most two places off, and so hardly off after the next step
    const Doubles value = first + remainder_of(sum, first) * task_.inverse;
    return {choose(bits_as<Longs>(sum == 0.0), sum, to_odd(value, remainder_of(sum, value))), ~Longs{}};
  }

  /// With the right sign, and 0 where it is 0.
  Doubles remainder_of(Doubles sum, Doubles quotient) const {
    Doubles product, error;
    two_product(quotient, all(task_.sum), product, error);
    return (sum - product) - error;
  }

  bool by_exact_pairs(size_t offset, Quotient& left, Quotient& right) const {
    if constexpr (From::kWidth == 8 || !kWeighted) {
      return false;
    } else {
      if (task_.spread_of_pair == 0) return false;
      Spread spread;
      spread.add(From::floats(task_.inputs[0] + offset));
      PairSum<true, true, false> left_sum, right_sum;
      add_all(offset, left_sum, right_sum, &spread);
      if (!spread.is_within(task_.spread_of_pair)) return false;
      left = divide(left_sum);
      right = divide(right_sum);
      return true;
    }
  }

  void by_pairs(size_t offset, Quotient& left, Quotient& right) const {
    PairSum<kWeighted, false, From::kWidth == 8> left_sum, right_sum;
    add_all(offset, left_sum, right_sum, nullptr);
    left = divide(left_sum);
    right = divide(right_sum);
  }

  template <class Sum>
  void add_all(size_t offset, Sum& left, Sum& right, [[maybe_unused]] Spread* spread) const {
    const TwoDoubles first = From::doubles(task_.inputs[0] + offset);
    left.begin(first.left, weight(0));
    right.begin(first.right, weight(0));
    for (size_t i = 1; i < task_.input_count; ++i) {
      const std::byte* from = task_.inputs[i] + offset;
      const TwoDoubles numbers = From::doubles(from);
      if constexpr (From::kWidth != 8) {
        if (spread != nullptr) spread->add(From::floats(from));
      }
      left.add(numbers.left, weight(i));
      right.add(numbers.right, weight(i));
    }
  }

  template <class Sum>
  Quotient divide(const Sum& sum) const {
    const Doubles high = sum.high + sum.low, low = sum.low - (high - sum.high);  // exact where |low| <= |high|
    const Doubles first = high * task_.inverse;
    Doubles head, tail, slack;
    remains(first, high, low, head, tail, slack);
    // The second step is of few digits, so that the product is exact.
    const Doubles value = first + (head + tail) * task_.inverse;
    Doubles product, error, remainder, rest;
    two_product(value - first, all(task_.sum), product, error);
    two_sum(head, -product, head, rest);
    const Doubles step_low = (value - first) * task_.sum_low;
    slack += (magnitude(rest) + magnitude(error) + magnitude(step_low)) * 0x1p-50;
    two_sum(head, tail + ((rest - error) - step_low), remainder, rest);
    slack += magnitude(rest);

    const Longs bits = bits_as<Longs>(value);
    Doubles half = bits_as<Doubles>(bits & kExponentBits) * task_.half_sum;  // of the last place, times the divisor
    const Longs power_of_two = bits_as<Longs>((bits & ~(kExponentBits | INT64_MIN)) == 0);
    half = choose(power_of_two, half * 0.5, half);  // below it the places are half as far apart
    if (task_.sum_low != 0) slack += half * 0x1p-50 + magnitude(value) * task_.sum_error;
    slack = 2 * (slack + sum.lost);

    const Doubles size = magnitude(remainder);
    const Longs exact = bits_as<Longs>(slack == 0.0);
    const Longs safe = bits_as<Longs>(magnitude(high) >= kLeastSum) & bits_as<Longs>(magnitude(high) < kGreatestSum) &
                       bits_as<Longs>(magnitude(sum.high) >= magnitude(sum.low));
    const Longs zero =
        bits_as<Longs>(sum.high == 0.0) & bits_as<Longs>(sum.low == 0.0) & bits_as<Longs>(sum.lost == 0.0);
    Quotient quotient;
    if (task_.nearest) {
      const Longs tie_to_even = exact & bits_as<Longs>(size == half) & bits_as<Longs>((bits & 1) == 0);
      quotient = {value, bits_as<Longs>(size + slack < half) | tie_to_even};
    } else {
      const Longs known_side = bits_as<Longs>(size > slack) & bits_as<Longs>(size + slack < 2 * half);
      quotient = {to_odd(value, remainder), known_side | (exact & bits_as<Longs>(size == 0.0))};
    }
    return {choose(zero, sum.high, quotient.value), ((quotient.decided & safe) | zero) & ~sum.unsafe};
  }

  /// head + tail = high + low - quotient * divisor, off by no more than `slack`, which is 0 where that is exact. The
  /// quotient is nearly right.
  void remains(Doubles quotient, Doubles high, Doubles low, Doubles& head, Doubles& tail, Doubles& slack) const {
    Doubles product, error, sum, rest;
    two_product(quotient, all(task_.sum), product, error);
    two_sum(low, -error, sum, tail);
    slack = magnitude(tail);
    if (task_.sum_low != 0) {
      Doubles product_low, error_low;
      two_product(quotient, all(task_.sum_low), product_low, error_low);
      two_sum(sum, -product_low, sum, rest);
      slack += magnitude(rest) + magnitude(error_low);
      tail += rest - error_low;
    }
    two_sum(high - product, sum, head, rest);  // high and product are close: their difference is exact
    slack = (slack + magnitude(rest)) * 0x1p-50;
    tail += rest;
  }

  const KernelTask task_;
};

template <class From>
void mean_of(const KernelTask& task) {
  if (task.weights != nullptr) {
    Loop<From, true>(task).run();
  } else {
    Loop<From, false>(task).run();
  }
}

void mean(const KernelTask& task) {
  switch (task.source) {
    case KernelSource::kFloat64:
      return mean_of<FromFloat64>(task);
    case KernelSource::kFloat32:
      return mean_of<FromFloat32>(task);
    case KernelSource::kBFloat16:
      return mean_of<FromBFloat16>(task);
    case KernelSource::kFloat16:
#if defined(__F16C__)
      return mean_of<FromFloat16>(task);
#else
      return;
#endif
  }
}

/// Calls act(doubles, k) for chunks that make `count`; the last two may overlap.
template <class F>
inline void for_chunks(const double* from, size_t count, F&& act) {
  for (size_t next = 0; next < count; next += kChunk) {
    const size_t k = next + kChunk <= count ? next : count - kChunk;
    act(TwoDoubles{load<Doubles>(from + k), load<Doubles>(from + k + kLanes)}, k);
  }
}

inline Floats odd_floats(TwoDoubles doubles) {
  const Floats nearest = narrow(doubles);
  const TwoDoubles back = widen(nearest);
  // What is left has so few bits that a float can lose all of it; so larger.
  return to_odd(nearest, narrow({(doubles.left - back.left) * 0x1p64, (doubles.right - back.right) * 0x1p64}));
}

void to_float32(const double* from, size_t count, std::byte* to) {
  for_chunks(from, count, [&](TwoDoubles doubles, size_t k) { store(narrow(doubles), to + k * sizeof(float)); });
}

void to_bfloat16(const double* from, size_t count, std::byte* to) {
  for_chunks(from, count, [&](TwoDoubles doubles, size_t k) {
    const auto bits = bits_as<UInts>(odd_floats(doubles));
    const UInts rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    store(__builtin_convertvector(rounded, Shorts), to + k * sizeof(uint16_t));
  });
}

#if defined(__F16C__)
void to_float16(const double* from, size_t count, std::byte* to) {
  for_chunks(from, count, [&](TwoDoubles doubles, size_t k) {
    std::byte* at = to + k * sizeof(uint16_t);
    const Floats odd = odd_floats(doubles);
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(at), _mm512_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT));
#else
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(at), _mm256_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT));
#endif
  });
}
#else
constexpr void (*to_float16)(const double*, size_t, std::byte*) = nullptr;
#endif

constexpr KernelFunctions kFunctions = {mean, to_float32, to_bfloat16, to_float16};

}  // namespace
}  // namespace ckpt::average
