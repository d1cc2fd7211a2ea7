// The loops of a kernel; included once by the source file for each vector unit.
//
// Numbers go through two ways. The short one takes the sum in one double, which is exact where the exponents of the
// numbers are close together and the weights have few digits (equal ones have one): nearly all of float16, bfloat16 and
// float32. The long one takes the sum as a pair of doubles, with a bound on what even that has lost. Both then divide
// and look at the exact remainder. What they cannot decide they leave.
#pragma once

#include "core/average/kernel.h"
#include "core/average/kernel_vector.h"

namespace ckpt::average {
namespace {

constexpr int64_t kExponentBits = 0x7FF0000000000000;
constexpr double kLeastSum = 0x1p-500, kGreatestSum = 0x1p1000;  // beyond them no product has to be watched
constexpr double kLeastNumber = 0x1p-600;

struct FromFloat64 {
  static constexpr size_t kWidth = 8;
  static Doubles doubles(const std::byte* from) { return load<Doubles>(from); }
};

struct FromFloat32 {
  static constexpr size_t kWidth = 4;
  static Floats floats(const std::byte* from) { return load<Floats>(from); }
  static Doubles doubles(const std::byte* from) { return convert<Doubles>(floats(from)); }
};

struct FromBFloat16 {
  static constexpr size_t kWidth = 2;
  static Floats floats(const std::byte* from) { return bits_as<Floats>(convert<UInts>(load<Shorts>(from)) << 16); }
  static Doubles doubles(const std::byte* from) { return convert<Doubles>(floats(from)); }
};

#if defined(__F16C__)
struct FromFloat16 {
  static constexpr size_t kWidth = 2;
  static Floats floats(const std::byte* from) {
#if defined(__AVX512F__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(from)));
#else
    return _mm_cvtph_ps(_mm_loadu_si64(from));
#endif
  }
  static Doubles doubles(const std::byte* from) { return convert<Doubles>(floats(from)); }
};
#endif

/// A quotient and what is known of it.
struct Quotient {
  Doubles value;
  Longs decided;
};

/// To the odd neighbour, from a quotient off by less than its last place, on the side that the remainder's sign tells.
inline Doubles to_odd(Doubles quotient, Doubles remainder) {
  const Longs bits = bits_as<Longs>(quotient);
  const Longs inexact = bits_as<Longs>(remainder != 0.0);
  const Longs too_large = (bits ^ bits_as<Longs>(remainder)) >> 63;  // the signs differ: cut off
  return bits_as<Doubles>((bits + (too_large & inexact)) | (inexact & 1));
}

template <class From, bool kWeighted>
class Loop {
 public:
  explicit Loop(const KernelTask& task) : task_(task) {}

  void run() const {
    for (size_t k = 0; k + kLanes <= task_.count; k += kLanes) chunk(k);
    if (task_.count % kLanes != 0) chunk(task_.count - kLanes);  // some of them again
  }

 private:
  void chunk(size_t k) const {
    const size_t offset = (task_.first + k) * From::kWidth;
    Quotient quotient;
    if (!by_short_way(offset, quotient)) quotient = by_long_way(offset);
    const Doubles size = magnitude(quotient.value);
    Longs decided = quotient.decided & bits_as<Longs>(size < task_.limit);
    if (!task_.positive) decided &= bits_as<Longs>(size > 0.0);  // the sign of 0 may be another one
    store(quotient.value, task_.to + k);
    const uint32_t undecided = lanes_of(~decided);
    if (undecided == 0) return;
    for (size_t i = 0; i < kLanes; ++i) {
      if ((undecided >> i & 1) != 0) task_.undecided[(k + i) / 64] |= uint64_t{1} << (k + i) % 64;
    }
  }

  /// The number of input `i`, times its weight.
  Doubles weighted(size_t i, Doubles number) const {
    if constexpr (kWeighted) return number * task_.weights[i];
    return number;
  }

  bool by_short_way(size_t offset, Quotient& quotient) const {
    if constexpr (From::kWidth == 8) {
      return false;
    } else {
      if (task_.exact_spread == 0) return false;
      UInts greatest = {}, least = ~UInts{};  // bits without the sign; twice that less 1, so that 0 is the greatest
      Doubles sum = {};
      for (size_t i = 0; i < task_.input_count; ++i) {
        const Floats number = From::floats(task_.inputs[i] + offset);
        const UInts twice = bits_as<UInts>(number) << 1;
        greatest = twice > greatest ? twice : greatest;
        least = twice - 1 < least ? twice - 1 : least;
        const Doubles term = weighted(i, convert<Doubles>(number));
        sum = i == 0 ? term : sum + term;
      }
      // Infinities and NaN are far from all others; alone they must be seen, too.
      const Ints exact = bits_as<Ints>(greatest - (least + 1) < task_.exact_spread << 24);
      const Ints finite = bits_as<Ints>(greatest < UINT32_C(0xFF000000));
      if (any(~(exact & finite))) return false;
      quotient = divide(sum);
      return true;
    }
  }

  /// An exact sum by an exact divisor.
  Quotient divide(Doubles sum) const {
    const Doubles value = sum / task_.sum;
    if (task_.nearest) return {value, ~Longs{}};
    Doubles product, error;
    two_product(value, all(task_.sum), product, error);
    return {to_odd(value, (sum - product) - error), ~Longs{}};
  }

  Quotient by_long_way(size_t offset) const {
    Doubles high = {}, low = {}, lost = {};
    Longs tiny = {};
    for (size_t i = 0; i < task_.input_count; ++i) {
      const Doubles number = From::doubles(task_.inputs[i] + offset);
      Doubles term = number, error = {};
      if constexpr (kWeighted) {
        two_product(number, all(task_.weights[i]), term, error);
        if constexpr (From::kWidth == 8) {
          tiny |= bits_as<Longs>(magnitude(number) < kLeastNumber) & bits_as<Longs>(number != 0.0);
        }
      }
      if (i == 0) {
        high = term;
        low = error;
        continue;
      }
      Doubles from_high, from_low;
      two_sum(high, term, high, from_high);
      two_sum(low, from_high, low, from_low);
      lost += magnitude(from_low);
      if constexpr (kWeighted) {
        two_sum(low, error, low, from_low);
        lost += magnitude(from_low);
      }
    }
    Quotient quotient = divide(high, low, lost);
    quotient.decided &= ~tiny;
    return quotient;
  }

  /// high + low, off by no more than `lost`, by the divisor.
  Quotient divide(Doubles high, Doubles low, Doubles lost) const {
    const Doubles zero_sum = choose(bits_as<Longs>(high == 0.0), high, Doubles{});  // with the sign of all zeros
    two_sum(high, low, high, low);
    const Doubles first = high / task_.sum;
    Doubles remainder, slack;
    remains(first, high, low, remainder, slack);
    const Doubles value = first + remainder / task_.sum;
    remains(value, high, low, remainder, slack);

    const Longs bits = bits_as<Longs>(value);
    Doubles half =
        bits_as<Doubles>(bits & kExponentBits) * 0x1p-53 * task_.sum;  // of the last place, times the divisor
    const Longs power_of_two = bits_as<Longs>((bits & ~(kExponentBits | INT64_MIN)) == 0);
    half = choose(power_of_two, half * 0.5, half);  // below it the places are half as far apart
    if (task_.sum_low != 0) slack += half * 0x1p-50;
    slack = 2 * (slack + lost + magnitude(value) * task_.sum_error);

    const Doubles size = magnitude(remainder);
    const Longs exact = bits_as<Longs>(slack == 0.0);
    const Longs in_range =
        bits_as<Longs>(magnitude(high) >= kLeastSum) & bits_as<Longs>(magnitude(high) < kGreatestSum);
    const Longs zero = bits_as<Longs>(high == 0.0) & bits_as<Longs>(lost == 0.0);
    if (task_.nearest) {
      const Longs tie_to_even = exact & bits_as<Longs>(size == half) & bits_as<Longs>((bits & 1) == 0);
      const Longs decided = bits_as<Longs>(size + slack < half) | tie_to_even;
      return {choose(zero, zero_sum, value), (decided & in_range) | zero};
    }
    const Longs decided = (bits_as<Longs>(size > slack) & bits_as<Longs>(size + slack < 2 * half)) |
                          (exact & bits_as<Longs>(size == 0.0));
    return {choose(zero, zero_sum, to_odd(value, remainder)), (decided & in_range) | zero};
  }

  /// remainder = high + low - quotient * divisor, off by no more than `slack`, which is 0 where it is exact.
  void remains(Doubles quotient, Doubles high, Doubles low, Doubles& remainder, Doubles& slack) const {
    Doubles product, error, sum, tail;
    two_product(quotient, all(task_.sum), product, error);
    two_sum(low, -error, sum, tail);
    slack = magnitude(tail);
    if (task_.sum_low != 0) {
      Doubles product_low, error_low, tail_low;
      two_product(quotient, all(task_.sum_low), product_low, error_low);
      two_sum(sum, -product_low, sum, tail_low);
      slack += magnitude(tail_low) + magnitude(error_low);
      tail += tail_low - error_low;
    }
    Doubles head, tail_head;
    two_sum(high - product, sum, head, tail_head);  // high and product are close: their difference is exact
    slack = (slack + magnitude(tail_head)) * 0x1p-50;
    tail += tail_head;
    two_sum(head, tail, remainder, tail);
    slack += magnitude(tail);
  }

  const KernelTask& task_;
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

/// Calls act(k) for chunks of kLanes that make `count`; the last two may overlap.
template <class F>
inline void for_chunks(size_t count, F&& act) {
  for (size_t k = 0; k + kLanes <= count; k += kLanes) act(k);
  if (count % kLanes != 0) act(count - kLanes);
}

void to_float32(const double* from, size_t count, std::byte* to) {
  for_chunks(count, [&](size_t k) { store(convert<Floats>(load<Doubles>(from + k)), to + k * sizeof(float)); });
}

/// To the odd neighbour where that is not exact.
inline UInts odd_floats(Doubles value) {
  const Floats nearest = convert<Floats>(value);
  const Doubles back = convert<Doubles>(nearest);
  const Longs too_large = bits_as<Longs>(magnitude(back) > magnitude(value)), inexact = bits_as<Longs>(back != value);
  return bits_as<UInts>((bits_as<Ints>(nearest) + convert<Ints>(too_large)) | (convert<Ints>(inexact) & 1));
}

void to_bfloat16(const double* from, size_t count, std::byte* to) {
  for_chunks(count, [&](size_t k) {
    const UInts bits = odd_floats(load<Doubles>(from + k));
    store(convert<Shorts>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16), to + k * sizeof(uint16_t));
  });
}

#if defined(__F16C__)
void to_float16(const double* from, size_t count, std::byte* to) {
  for_chunks(count, [&](size_t k) {
    const UInts bits = odd_floats(load<Doubles>(from + k));
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(to + k * sizeof(uint16_t)),
                     _mm256_cvtps_ph(reinterpret_cast<__m256>(bits), _MM_FROUND_TO_NEAREST_INT));
#else
    _mm_storeu_si64(to + k * sizeof(uint16_t), _mm_cvtps_ph(reinterpret_cast<__m128>(bits), _MM_FROUND_TO_NEAREST_INT));
#endif
  });
}
#else
constexpr void (*to_float16)(const double*, size_t, std::byte*) = nullptr;
#endif

constexpr KernelFunctions kFunctions = {mean, to_float32, to_bfloat16, to_float16};

}  // namespace
}  // namespace ckpt::average
