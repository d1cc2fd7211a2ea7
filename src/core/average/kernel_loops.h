// The loops of a kernel; included once by the source file for each vector unit.
//
// Numbers go one of three ways. Where their exponents are close together and the weights have few digits (equal ones
// have one), the sum is exact in one double: nearly always so for float16, bfloat16 and float32. Where the weights have
// many digits, it is exact in a pair of doubles. Else it is taken as a pair, with a bound on what even that has lost.
// All then divide and look at the remainder. What they cannot decide they leave.
#pragma once

#include "core/average/kernel.h"
#include "core/average/kernel_sums.h"

namespace ckpt::average {
namespace {

constexpr int64_t kExponentBits = 0x7FF0000000000000;
constexpr double kLeastSum = 0x1p-500, kGreatestSum = 0x1p1000;  // between them no product can lose anything

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

/// 1 or -1 with the sign of `value`, 0 for 0.
inline Doubles side_of(Doubles value) {
  const Longs one = bits_as<Longs>(all(1)) & bits_as<Longs>(value != 0.0);
  return bits_as<Doubles>((bits_as<Longs>(value) & INT64_MIN) | one);
}

/// The same, for remainders that a float may be too small or too large to hold.
inline Floats to_odd(Floats value, TwoDoubles remainder) {
  return to_odd(value, narrow({side_of(remainder.left), side_of(remainder.right)}));
}

inline Floats odd_floats(TwoDoubles doubles) {
  const Floats nearest = narrow(doubles);
  const TwoDoubles back = widen(nearest);
  return to_odd(nearest, {doubles.left - back.left, doubles.right - back.right});
}

inline void store_bfloat16(Floats odd, std::byte* to) {
  const auto bits = bits_as<UInts>(odd);
  const UInts rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(to), _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(rounded)));
#elif defined(__AVX2__)
  const auto all_bits = reinterpret_cast<__m256i>(rounded);
  _mm_storeu_si128(reinterpret_cast<__m128i_u*>(to),
                   _mm_packus_epi32(_mm256_castsi256_si128(all_bits), _mm256_extracti128_si256(all_bits, 1)));
#else
  store(__builtin_convertvector(rounded, Shorts), to);
#endif
}

#if defined(__F16C__)
inline void store_float16(Floats odd, std::byte* to) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(to), _mm512_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT));
#else
  _mm_storeu_si128(reinterpret_cast<__m128i_u*>(to), _mm256_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT));
#endif
}
#endif

template <class From, bool kWeighted>
class Loop {
 public:
  explicit Loop(const KernelTask& task) : task_(task) {}

  void run() const {
    // The last chunk may do some of the one before it again.
    for (size_t k = 0; k < task_.count; k += kChunk) chunk(k + kChunk <= task_.count ? k : task_.count - kChunk);
  }

 private:
  using ExactPair = PairSum<true, true, false>;

  struct Pair {
    Doubles high, low;
  };

  struct Quotient {
    Doubles value;
    Longs decided;
  };

  void chunk(size_t k) const {
    const size_t offset = (task_.first + k) * From::kWidth;
    if constexpr (From::kWidth != 8) {
      TwoDoubles sum;
      if (sum_in_one_double(offset, sum)) {
        if (of_16_bits()) return put(k, odd_quotients(sum));
        return put(k, divide(sum.left), divide(sum.right));
      }
    }
    if constexpr (From::kWidth != 8 && kWeighted) {
      ExactPair left, right;
      if (sum_in_exact_pairs(offset, left, right)) {
        if (put_if_easy(k, left, right)) return;
        return put(k, divide(left), divide(right));
      }
    }
    PairSum<kWeighted, false, From::kWidth == 8> left, right;
    add_all(offset, left, right, nullptr);
    put(k, divide(left), divide(right));
  }

  bool of_16_bits() const { return task_.target == KernelTarget::kFloat16 || task_.target == KernelTarget::kBFloat16; }

  void put(size_t k, Quotient left, Quotient right) const {
    left.decided &= is_allowed(left.value);
    right.decided &= is_allowed(right.value);
    std::byte* to = task_.to + k * task_.target_width;
    if (of_16_bits()) {
      store_16_bits(odd_floats({left.value, right.value}), to);
    } else if (task_.target == KernelTarget::kFloat32) {
      store(narrow({left.value, right.value}), to);
    } else {
      store(left.value, to);
      store(right.value, to + kBytes);
    }
    const uint32_t undecided = lanes_of(~left.decided) | lanes_of(~right.decided) << kLanes;
    if (undecided != 0) leave(k, undecided);
  }

  void put(size_t k, Floats odd) const {
    store_16_bits(odd, task_.to + k * task_.target_width);
    const Floats size = bits_as<Floats>(bits_as<Ints>(odd) & INT32_MAX);
    Ints decided = bits_as<Ints>(size < static_cast<float>(task_.limit));
    if (!task_.positive) decided &= bits_as<Ints>(size > 0.0f);
    if (!is_all(decided)) leave(k, lanes_of(~decided));
  }

  /// In the range of the target, and with a known sign.
  Longs is_allowed(Doubles value) const {
    const Doubles size = magnitude(value);
    const Longs in_range = bits_as<Longs>(size < task_.limit);
    return task_.positive ? in_range : in_range & bits_as<Longs>(size > 0.0);
  }

  void store_16_bits(Floats odd, std::byte* to) const {
#if defined(__F16C__)
    if (task_.target == KernelTarget::kFloat16) return store_float16(odd, to);
#endif
    store_bfloat16(odd, to);
  }

  [[gnu::noinline]] void leave(size_t k, uint32_t undecided) const {
    for (size_t i = 0; i < kChunk; ++i) {
      if ((undecided >> i & 1) != 0) task_.undecided[(k + i) / 64] |= uint64_t{1} << (k + i) % 64;
    }
  }

  double weight(size_t i) const { return kWeighted ? task_.weights[i] : 1; }

  bool sum_in_one_double(size_t offset, TwoDoubles& sum) const {
    if (task_.spread_of_one == 0) return false;
    Spread spread;
    sum = TwoDoubles{};
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
    return spread.is_within(task_.spread_of_one);
  }

  /// An exact sum by an exact divisor.
  Quotient divide(Doubles sum) const {
    if (task_.target == KernelTarget::kFloat64) return {sum / task_.sum, ~Longs{}};
    const Doubles first = sum * task_.inverse;  // at most two places off, and so hardly off after the next step
    const Doubles value = first + remainder_of(sum, first) * task_.inverse;
    return {choose(bits_as<Longs>(sum == 0.0), sum, to_odd(value, remainder_of(sum, value))), ~Longs{}};
  }

  Floats odd_quotients(TwoDoubles sum) const {
    const Floats value = narrow({sum.left * task_.inverse, sum.right * task_.inverse});
    const TwoDoubles back = widen(value);
    return to_odd(value, {remainder_of(sum.left, back.left), remainder_of(sum.right, back.right)});
  }

  /// With the right sign, and 0 where it is 0.
  Doubles remainder_of(Doubles sum, Doubles quotient) const {
    Doubles product, error;
    two_product(quotient, all(task_.sum), product, error);
    return (sum - product) - error;
  }

  bool sum_in_exact_pairs(size_t offset, ExactPair& left, ExactPair& right) const {
    if (task_.spread_of_pair == 0) return false;
    Spread spread;
    spread.add(From::floats(task_.inputs[0] + offset));
    add_all(offset, left, right, &spread);
    return spread.is_within(task_.spread_of_pair);
  }

  /// Without a full division, where the quotient is not near a tie or a special case in any lane.
  bool put_if_easy(size_t k, const ExactPair& left_sum, const ExactPair& right_sum) const {
    if (task_.target == KernelTarget::kFloat64 || task_.target == KernelTarget::kOddFloat64) return false;
    Longs decided = has_greater_high(left_sum) & has_greater_high(right_sum);
    const Pair left = normal(left_sum), right = normal(right_sum);
    const TwoDoubles value = {left.high * task_.inverse, right.high * task_.inverse};
    if (task_.target == KernelTarget::kFloat32) {
      decided &= is_clear(value.left) & is_clear(value.right);
      if (!is_all(bits_as<Ints>(decided))) return false;
      put(k, {value.left, decided}, {value.right, decided});
      return true;
    }
    const Floats near = narrow(value);
    const TwoDoubles back = widen(near);
    const TwoDoubles rest = {rough_remainder(left, back.left, decided), rough_remainder(right, back.right, decided)};
    if (!is_all(bits_as<Ints>(decided))) return false;
    put(k, to_odd(near, rest));
    return true;
  }

  template <class Sum>
  static Longs has_greater_high(const Sum& sum) {
    return bits_as<Longs>(magnitude(sum.high) >= magnitude(sum.low));
  }

  /// high is the rounded sum. Exact where that of the sum was greater before.
  template <class Sum>
  static Pair normal(const Sum& sum) {
    const Doubles high = sum.high + sum.low;
    return {high, sum.low - (high - sum.high)};
  }

  /// What is left of a sum by a float next to its quotient; the sign is right where it is decided.
  Doubles rough_remainder(const Pair& sum, Doubles quotient, Longs& decided) const {
    Doubles product, error;
    two_product(quotient, all(task_.sum), product, error);
    const Doubles product_low = quotient * task_.sum_low;
    const Doubles remainder = (sum.high - product) + ((sum.low - error) - product_low);
    const Doubles slack = (magnitude(sum.low) + magnitude(error) + magnitude(product_low)) * 0x1p-50 +
                          magnitude(quotient) * task_.sum_error;
    decided &= bits_as<Longs>(magnitude(remainder) > slack) & bits_as<Longs>(magnitude(sum.high) >= kLeastSum);
    return remainder;
  }

  /// A quotient that is off by a few last places rounds to the right float: it is normal, and no tie is near.
  static Longs is_clear(Doubles quotient) {
    constexpr int64_t kDigits = (int64_t{1} << 29) - 1, kTie = int64_t{1} << 28, kNear = 32;
    const Longs from_tie = (bits_as<Longs>(quotient) - (kTie - kNear)) & kDigits;
    return bits_as<Longs>(from_tie > 2 * kNear) & bits_as<Longs>(magnitude(quotient) > 0x1p-125);
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
    const auto [high, low] = normal(sum);
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
                       has_greater_high(sum);
    const Longs zero =
        bits_as<Longs>(sum.high == 0.0) & bits_as<Longs>(sum.low == 0.0) & bits_as<Longs>(sum.lost == 0.0);
    Quotient quotient;
    if (task_.target == KernelTarget::kFloat64) {
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

#if defined(__F16C__)
constexpr bool kHasFloat16 = true;
#else
constexpr bool kHasFloat16 = false;
#endif
constexpr KernelFunctions kFunctions = {mean, kHasFloat16};

}  // namespace
}  // namespace ckpt::average
