#include "core/average/exact_sum.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace ckpt::average {
namespace {

/// A finite double as a whole number times a power of two.
struct Parts {
  explicit Parts(double value) {
    const uint64_t bits = std::bit_cast<uint64_t>(value);
    const int field = static_cast<int>(bits >> 52 & 0x7FF);
    negative = bits >> 63 != 0;
    significand = (bits & 0xFFFFFFFFFFFFF) | (field != 0 ? uint64_t{1} << 52 : 0);
    exponent = std::max(field, 1) - 1075;
  }
  uint64_t significand;
  int exponent;
  bool negative;
};

/// How a floating dtype with a sign lays out its numbers.
struct Format {
  DType dtype;
  int mantissa_bits;
  int lowest_exponent;  // of normal numbers
  uint64_t largest;     // finite
  uint64_t beyond;      // what is larger becomes this
  uint64_t infinity;    // or a NaN
  uint64_t nan;
  uint64_t sign;  // 0 where `beyond` and zero have none
};

constexpr std::array kFormats = {
    Format{DType::kFloat64, 52, -1022, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0x7FF0000000000000, 0x7FF8000000000000,
           0x8000000000000000},
    Format{DType::kFloat32, 23, -126, 0x7F7FFFFF, 0x7F800000, 0x7F800000, 0x7FC00000, 0x80000000},
    Format{DType::kFloat16, 10, -14, 0x7BFF, 0x7C00, 0x7C00, 0x7E00, 0x8000},
    Format{DType::kBFloat16, 7, -126, 0x7F7F, 0x7F80, 0x7F80, 0x7FC0, 0x8000},
    Format{DType::kFloat8E4M3FN, 3, -6, 0x7E, 0x7E, 0x7F, 0x7F, 0x80},
    Format{DType::kFloat8E5M2, 2, -14, 0x7B, 0x7C, 0x7C, 0x7F, 0x80},
    Format{DType::kFloat8E4M3FNUZ, 3, -7, 0x7F, 0x80, 0x80, 0x80, 0x80},
    Format{DType::kFloat8E5M2FNUZ, 2, -15, 0x7F, 0x80, 0x80, 0x80, 0x80},
    Format{DType::kFloat8E8M0FNU, 0, -127, 0xFE, 0xFF, 0xFF, 0xFF, 0},
};

const Format& format_of(DType dtype) {
  return *std::find_if(kFormats.begin(), kFormats.end(), [&](const Format& format) { return format.dtype == dtype; });
}

bool unsigned_zero(const Format& format) { return format.nan == format.sign || format.sign == 0; }

/// A natural number that changes in place.
class Natural {
 public:
  explicit Natural(const ExactNumber& number) : size_(number.size) {
    std::copy_n(number.limbs.begin(), size_, limbs_.begin());
  }

  int bits() const { return size_ == 0 ? 0 : 32 * size_ - std::countl_zero(limbs_[index(size_ - 1)]); }

  void shift_left(int count) {
    if (size_ == 0 || count == 0) return;
    const int whole = count / 32, rest = count % 32;
    const int size = (bits() + count + 31) / 32;
    for (int i = size - 1; i >= 0; --i) {
      const uint64_t above = at(i - whole), below = at(i - whole - 1);
      limbs_[index(i)] = static_cast<uint32_t>((above << 32 | below) >> (32 - rest));
    }
    size_ = size;
  }

  /// Below 0, 0 or above 0, as this number is less than, equal to or greater than `other`.
  int compare(const Natural& other) const {
    if (size_ != other.size_) return size_ - other.size_;
    for (int i = size_ - 1; i >= 0; --i) {
      if (at(i) != other.at(i)) return at(i) < other.at(i) ? -1 : 1;
    }
    return 0;
  }

  /// `other` is not greater.
  void subtract(const Natural& other) {
    int64_t borrow = 0;
    for (int i = 0; i < size_; ++i) {
      borrow += static_cast<int64_t>(at(i)) - static_cast<int64_t>(other.at(i));
      limbs_[index(i)] = static_cast<uint32_t>(borrow);
      borrow >>= 32;
    }
    while (size_ > 0 && limbs_[index(size_ - 1)] == 0) --size_;
  }

 private:
  static size_t index(int i) { return static_cast<size_t>(i); }
  uint64_t at(int i) const { return i < 0 || i >= size_ ? 0 : limbs_[index(i)]; }

  int size_;
  std::array<uint32_t, ExactNumber::kLimbs> limbs_;
};

/// The magnitude of a quotient that is not 0, by long division, one binary digit after the other.
class Division {
 public:
  Division(const ExactNumber& numerator, const ExactNumber& denominator)
      : rest_(numerator), divisor_(denominator), exponent_(rest_.bits() - divisor_.bits()) {
    align();
    if (rest_.compare(divisor_) < 0) {
      rest_.shift_left(1);
      --exponent_;
    }
    exponent_ += 32 * (numerator.first - denominator.first);
  }

  /// 2^exponent() <= quotient < 2^(exponent() + 1).
  int exponent() const { return exponent_; }

  /// The first `count` digits of the quotient, as a whole number; once.
  uint64_t digits(int count) {
    uint64_t quotient = 0;
    for (int i = 0; i < count; ++i) {
      const bool one = rest_.compare(divisor_) >= 0;
      if (one) rest_.subtract(divisor_);
      rest_.shift_left(1);
      quotient = quotient << 1 | (one ? 1 : 0);
    }
    return quotient;
  }

  /// The same, but with what follows rounded to nearest, of two as near to the even one. `count` below 0: as many
  /// zeros go before the first digit, and the last of them is what is rounded to.
  uint64_t round(int count) {
    if (count < 0) return 0;
    const uint64_t quotient = digits(count);
    const int half = rest_.compare(divisor_);
    return quotient + (half > 0 || (half == 0 && (quotient & 1) != 0) ? 1 : 0);
  }

 private:
  void align() {
    if (exponent_ < 0) {
      rest_.shift_left(-exponent_);
    } else {
      divisor_.shift_left(exponent_);
    }
  }

  Natural rest_, divisor_;
  int exponent_;
};

/// rounded(count) and cut(count): the first `count` digits of a magnitude as a whole number, where rounded() may be
/// asked for less than none: the first digit has `exponent`.
template <class RoundedDigits, class CutDigits>
Rounded encode(const Format& format, bool negative, int exponent, RoundedDigits&& rounded, CutDigits&& cut) {
  if (format.mantissa_bits == 0) {  // the nearest power of two, of two as near the greater one
    const int power = exponent + (cut(2) == 3 ? 1 : 0);
    if (negative || power > format.lowest_exponent + static_cast<int>(format.largest)) return {format.beyond, false};
    return {static_cast<uint64_t>(std::max(power - format.lowest_exponent, 0)), true};
  }
  const int first = std::max(exponent, format.lowest_exponent);  // of the first digit that the format has
  const uint64_t significand = rounded(exponent - first + format.mantissa_bits + 1);
  const uint64_t sign = negative ? format.sign : 0;
  // The implied digit, where there is one, adds 1 to the exponent's field, and so does a carry out of the significand.
  const auto above = static_cast<uint64_t>(first - format.lowest_exponent);
  if (above > format.largest >> format.mantissa_bits) return {format.beyond | sign, false};
  const uint64_t bits = (above << format.mantissa_bits) + significand;
  if (bits > format.largest) return {format.beyond | sign, false};
  return {bits == 0 && unsigned_zero(format) ? 0 : bits | sign, true};
}

Rounded round_to_integer(const ExactNumber& numerator, const ExactNumber& denominator, DType dtype) {
  const bool is_signed =
      dtype == DType::kInt8 || dtype == DType::kInt16 || dtype == DType::kInt32 || dtype == DType::kInt64;
  const auto digits = static_cast<int>(8 * width(dtype));
  const uint64_t all = UINT64_MAX >> (64 - digits);
  const bool negative = numerator.negative;
  const uint64_t largest = is_signed ? (all >> 1) + (negative ? 1 : 0) : (negative ? 0 : all);
  Division division(numerator, denominator);
  if (division.exponent() >= 64) return {(negative ? 0 - largest : largest) & all, false};
  const uint64_t magnitude = division.round(division.exponent() + 1);
  // 2^64 - 1/2 and more come round to 0 here.
  const bool fits = magnitude <= largest && (magnitude != 0 || division.exponent() < 63);
  return {(negative ? 0 - (fits ? magnitude : largest) : (fits ? magnitude : largest)) & all, fits};
}

}  // namespace

void ExactSum::add_product(double a, double b) {
  const Parts left(a), right(b);
  add(left.significand, right.significand, left.exponent + right.exponent, left.negative != right.negative);
}

void ExactSum::add_product(double weight, uint64_t value, bool negative) {
  const Parts parts(weight);
  add(parts.significand, value, parts.exponent, parts.negative != negative);
}

void ExactSum::add(uint64_t a, uint64_t b, int exponent, bool negative) {
  if (a == 0 || b == 0) return;
  const uint64_t a0 = a & UINT32_MAX, a1 = a >> 32, b0 = b & UINT32_MAX, b1 = b >> 32;
  add_shifted(a0 * b0, exponent, negative);
  add_shifted(a1 * b0, exponent + 32, negative);
  add_shifted(a0 * b1, exponent + 32, negative);
  add_shifted(a1 * b1, exponent + 64, negative);
  if (++added_ == kCarryAfter) carry();
}

void ExactSum::add_shifted(uint64_t value, int exponent, bool negative) {
  if (value == 0) return;
  const auto at = static_cast<size_t>((exponent - kLowest) / 32);
  const int shift = (exponent - kLowest) % 32;
  const uint64_t high = (value >> 32) << shift;
  const std::array<uint64_t, 3> parts = {(value << shift) & UINT32_MAX,
                                         ((value & UINT32_MAX) << shift >> 32) + (high & UINT32_MAX), high >> 32};
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto part = static_cast<int64_t>(parts[i]);
    limbs_[at + i] += negative ? -part : part;
  }
  begin_ = std::min(begin_, static_cast<int>(at));
  end_ = std::max(end_, static_cast<int>(at + parts.size()));
}

void ExactSum::carry() {
  for (int i = begin_; i < end_; ++i) {
    int64_t& limb = limbs_[static_cast<size_t>(i)];
    if (i + 1 == end_ && std::abs(limb) <= UINT32_MAX) break;  // the highest one keeps the sign
    const int64_t over = limb >> 32;
    limb -= over * (int64_t{1} << 32);
    limbs_[static_cast<size_t>(i) + 1] += over;
    end_ = std::max(end_, i + 2);
  }
  added_ = 0;
}

ExactNumber ExactSum::value() const {
  ExactSum sum = *this;
  sum.carry();
  ExactNumber number;
  // All limbs but the highest are natural now: that one has the sign.
  const auto highest = [&] {
    while (sum.end_ > sum.begin_ && sum.limbs_[static_cast<size_t>(sum.end_) - 1] == 0) --sum.end_;
    return sum.end_ > sum.begin_ ? sum.limbs_[static_cast<size_t>(sum.end_) - 1] : 0;
  };
  if (highest() == 0) return number;
  if (highest() < 0) {
    number.negative = true;
    for (int i = sum.begin_; i < sum.end_; ++i) sum.limbs_[static_cast<size_t>(i)] *= -1;
    sum.carry();
    highest();
  }
  int begin = sum.begin_;
  const int end = sum.end_;
  while (sum.limbs_[static_cast<size_t>(begin)] == 0) ++begin;
  number.first = begin;
  number.size = end - begin;
  for (int i = begin; i < end; ++i) {
    number.limbs[static_cast<size_t>(i - begin)] = static_cast<uint32_t>(sum.limbs_[static_cast<size_t>(i)]);
  }
  return number;
}

ExactNumber exact_sum(std::span<const double> numbers) {
  ExactSum sum;
  for (const double number : numbers) sum.add_product(number, 1);
  return sum.value();
}

Rounded round_quotient(const ExactNumber& numerator, const ExactNumber& denominator, DType dtype) {
  if (numerator.size == 0) return {0, true};
  if (!is_floating(dtype)) return round_to_integer(numerator, denominator, dtype);
  Division division(numerator, denominator);
  return encode(
      format_of(dtype), numerator.negative, division.exponent(), [&](int count) { return division.round(count); },
      [&](int count) { return division.digits(count); });
}

Rounded round_number(double value, DType dtype) {
  const Parts parts(value);
  if (std::isinf(value)) return {infinity(dtype, parts.negative), true};
  if (value == 0) return {parts.negative ? negative_zero(dtype) : 0, true};
  const int digits = 64 - std::countl_zero(parts.significand);
  const auto cut = [&](int count) {
    return count <= digits ? parts.significand >> (digits - count) : parts.significand << (count - digits);
  };
  const auto rounded = [&](int count) {
    if (count < 0) return uint64_t{0};
    if (count >= digits) return cut(count);
    const uint64_t rest = parts.significand & ((uint64_t{1} << (digits - count)) - 1);
    const uint64_t half = uint64_t{1} << (digits - count - 1);
    return cut(count) + (rest > half || (rest == half && (cut(count) & 1) != 0) ? 1 : 0);
  };
  return encode(format_of(dtype), parts.negative, parts.exponent + digits - 1, rounded, cut);
}

double least_beyond(DType dtype) {
  const Format& format = format_of(dtype);
  if (format.mantissa_bits == 0) return 0x1.8p127;
  const uint64_t implied = uint64_t{1} << format.mantissa_bits;
  const uint64_t significand = (format.largest & (implied - 1)) | implied;
  const int exponent = static_cast<int>(format.largest >> format.mantissa_bits) - 1 + format.lowest_exponent;
  return std::ldexp(static_cast<double>(2 * significand + 1), exponent - format.mantissa_bits - 1);
}

uint64_t quiet_nan(DType dtype) { return format_of(dtype).nan; }

uint64_t infinity(DType dtype, bool negative) {
  const Format& format = format_of(dtype);
  return format.infinity | (negative ? format.sign : 0);
}

uint64_t negative_zero(DType dtype) {
  const Format& format = format_of(dtype);
  return unsigned_zero(format) ? 0 : format.sign;
}

}  // namespace ckpt::average
