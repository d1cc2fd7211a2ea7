#include "core/average/rational.h"

#include <algorithm>

namespace ckpt::average::test {
namespace {

struct Layout {
  int mantissa_bits;
  int bias;
  uint64_t greatest;
  uint64_t sign;
};

Layout layout_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return {52, 1023, 0x7FEFFFFFFFFFFFFF, uint64_t{1} << 63};
    case DType::kFloat32:
      return {23, 127, 0x7F7FFFFF, 0x80000000};
    case DType::kFloat16:
      return {10, 15, 0x7BFF, 0x8000};
    case DType::kBFloat16:
      return {7, 127, 0x7F7F, 0x8000};
    case DType::kFloat8E4M3FN:
      return {3, 7, 0x7E, 0x80};
    case DType::kFloat8E5M2:
      return {2, 15, 0x7B, 0x80};
    case DType::kFloat8E4M3FNUZ:
      return {3, 8, 0x7F, 0x80};
    case DType::kFloat8E5M2FNUZ:
      return {2, 16, 0x7F, 0x80};
    default:
      return {0, 127, 0xFE, 0};
  }
}

mpq_class power_of_two(long exponent) {
  mpq_class result(1);
  if (exponent >= 0) {
    mpq_mul_2exp(result.get_mpq_t(), result.get_mpq_t(), static_cast<mp_bitcnt_t>(exponent));
  } else {
    mpq_div_2exp(result.get_mpq_t(), result.get_mpq_t(), static_cast<mp_bitcnt_t>(-exponent));
  }
  return result;
}

/// What torch makes of numbers beyond the greatest.
uint64_t beyond(bool negative, DType dtype) {
  const Layout layout = layout_of(dtype);
  const uint64_t sign = negative ? layout.sign : 0;
  switch (dtype) {
    case DType::kFloat8E4M3FN:
      return layout.greatest | sign;
    case DType::kFloat8E4M3FNUZ:
    case DType::kFloat8E5M2FNUZ:
      return 0x80;
    case DType::kFloat8E8M0FNU:
      return 0xFF;
    default:
      return (layout.greatest + 1) | sign;
  }
}

/// The bits of the greatest number that is not above `magnitude`, which is not above the greatest one.
uint64_t floor_bits(const mpq_class& magnitude, DType dtype) {
  if (magnitude == 0) return 0;
  const Layout layout = layout_of(dtype);
  const long lowest = (layout.mantissa_bits == 0 ? 0 : 1) - layout.bias;
  const auto bits = [](const mpz_class& number) { return static_cast<long>(mpz_sizeinbase(number.get_mpz_t(), 2)); };
  long exponent = bits(magnitude.get_num()) - bits(magnitude.get_den());  // or one less
  if (power_of_two(exponent) > magnitude) --exponent;
  exponent = std::max(exponent, lowest);
  const mpq_class scaled = magnitude * power_of_two(layout.mantissa_bits - exponent);
  const mpz_class digits = scaled.get_num() / scaled.get_den();
  const auto above = static_cast<uint64_t>(exponent - lowest);
  return layout.mantissa_bits == 0 ? above : (above << layout.mantissa_bits) + digits.get_ui();
}

}  // namespace

uint64_t greatest(DType dtype) { return layout_of(dtype).greatest; }
uint64_t sign_bit(DType dtype) { return layout_of(dtype).sign; }

bool has_negative_zero(DType dtype) {
  return dtype != DType::kFloat8E4M3FNUZ && dtype != DType::kFloat8E5M2FNUZ && dtype != DType::kFloat8E8M0FNU;
}

mpq_class value_of(uint64_t bits, DType dtype) {
  const Layout layout = layout_of(dtype);
  const bool negative = (bits & layout.sign) != 0;
  bits &= ~layout.sign;
  if (layout.mantissa_bits == 0) return power_of_two(static_cast<long>(bits) - layout.bias);
  const auto field = static_cast<long>(bits >> layout.mantissa_bits);
  const uint64_t implied = uint64_t{1} << layout.mantissa_bits;
  const uint64_t digits = (bits & (implied - 1)) + (field == 0 ? 0 : implied);
  const mpq_class value = mpq_class(static_cast<unsigned long>(digits)) *
                          power_of_two(std::max(field, 1L) - layout.bias - layout.mantissa_bits);
  return negative ? mpq_class(-value) : value;
}

uint64_t rounded_mean(std::span<const mpq_class> numbers, std::span<const double> weights, DType dtype) {
  mpq_class sum = 0, divisor = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    sum += numbers[i] * mpq_class(weights[i]);
    divisor += mpq_class(weights[i]);
  }
  const mpq_class mean = sum / divisor, magnitude = abs(mean);
  const bool negative = mean < 0;
  const Layout layout = layout_of(dtype);
  if (layout.mantissa_bits == 0 && negative) return beyond(true, dtype);
  if (layout.mantissa_bits == 0 && magnitude <= value_of(0, dtype)) return 0;

  uint64_t bits = magnitude >= value_of(layout.greatest, dtype) ? layout.greatest : floor_bits(magnitude, dtype);
  // fnuz's sign follows its greatest number: what would come after that.
  const mpq_class next =
      bits < layout.greatest ? value_of(bits + 1, dtype) : 2 * value_of(bits, dtype) - value_of(bits - 1, dtype);
  const mpq_class last = layout.mantissa_bits == 0 ? 2 * value_of(bits, dtype) : next;
  const int side = cmp(magnitude - value_of(bits, dtype), last - magnitude);
  if (side > 0 || (side == 0 && (layout.mantissa_bits == 0 || (bits & 1) != 0))) ++bits;
  if (bits > layout.greatest) return beyond(negative, dtype);
  if (bits == 0 && !has_negative_zero(dtype)) return 0;
  return bits | (negative ? layout.sign : 0);
}

}  // namespace ckpt::average::test
