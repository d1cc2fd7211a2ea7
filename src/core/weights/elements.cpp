// Floating numbers of one width from those of another. All of them but float64 fit into float32 without loss, so each
// conversion goes through blocks of float32 in the cache, and rounds once.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/weights/convert.h"

namespace ckpt::weights {
namespace {

constexpr size_t kBlock = 1024;  // elements

template <class T>
T load(const std::byte* from, size_t i) {
  T value;
  std::memcpy(&value, from + i * sizeof value, sizeof value);
  return value;
}

template <class T>
void store(std::byte* to, size_t i, T value) {
  std::memcpy(to + i * sizeof value, &value, sizeof value);
}

// Both loops below are of M. Dukhan's FP16: no branches, so that compilers make vector code of them.
float float_of_half(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  const uint32_t twice = bits + bits;
  const float normal = std::bit_cast<float>((twice >> 4) + (UINT32_C(0xE0) << 23)) * 0x1.0p-112f;
  const float subnormal = std::bit_cast<float>((twice >> 17) | (UINT32_C(126) << 23)) - 0.5f;
  const uint32_t magnitude = std::bit_cast<uint32_t>(twice < (UINT32_C(1) << 27) ? subnormal : normal);
  return std::bit_cast<float>((bits & 0x80000000u) | magnitude);
}

uint16_t half_of_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t twice = bits + bits;
  const float saturated = (std::fabs(value) * 0x1.0p+112f) * 0x1.0p-110f;  // too large ones become infinite
  const uint32_t bias = std::max(twice & 0xFF000000u, UINT32_C(0x71000000));
  const uint32_t rounded = std::bit_cast<uint32_t>(std::bit_cast<float>((bias >> 1) + 0x07800000u) + saturated);
  const uint32_t magnitude = ((rounded >> 13) & 0x7C00u) + (rounded & 0x0FFFu);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (twice > 0xFF000000u ? 0x7E00u : magnitude));
}

float float_of_bfloat(uint16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

uint16_t bfloat_of_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1);
  return static_cast<uint16_t>(((bits & 0x7FFFFFFFu) > 0x7F800000u ? bits | 0x400000u : rounded) >> 16);
}

/// To the odd one of the two neighbours where `value` lies between: a later rounding to fewer digits then sees on which
/// side of a tie it was.
float odd_float_of_double(double value) {
  const auto nearest = static_cast<float>(value);
  const auto back = static_cast<double>(nearest);
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  bits -= std::fabs(back) > std::fabs(value) ? 1 : 0;  // now cut off; the magnitude is in the low bits
  return std::bit_cast<float>(bits | (back != value ? 1u : 0u));
}

/// A float8 with `exponent_bits` and `mantissa_bits`. Finite ones ("fn") have no infinities; "uz" ones have no negative
/// zero, which is their NaN.
float small_float(uint8_t bits, int mantissa_bits, int bias, bool infinities, bool unsigned_zero) {
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int exponent = (bits & 0x7F) >> mantissa_bits;
  const int highest = 0x7F >> mantissa_bits;
  const float sign = bits & 0x80 ? -1.0f : 1.0f;
  if (unsigned_zero && bits == 0x80) return std::numeric_limits<float>::quiet_NaN();
  if (!unsigned_zero && exponent == highest) {
    if (infinities && mantissa == 0) return sign * std::numeric_limits<float>::infinity();
    if (infinities || (bits & 0x7F) == 0x7F) return std::numeric_limits<float>::quiet_NaN();
  }
  const int implied = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  return sign * std::ldexp(static_cast<float>(implied), std::max(exponent, 1) - bias - mantissa_bits);
}

float float_of_small(uint8_t bits, DType dtype) {
  switch (dtype) {
    case DType::kFloat8E4M3FN:
      return small_float(bits, 3, 7, false, false);
    case DType::kFloat8E5M2:
      return small_float(bits, 2, 15, true, false);
    case DType::kFloat8E4M3FNUZ:
      return small_float(bits, 3, 8, false, true);
    case DType::kFloat8E5M2FNUZ:
      return small_float(bits, 2, 16, false, true);
    default:  // kFloat8E8M0FNU: an exponent alone
      return bits == 0xFF ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, bits - 127);
  }
}

std::array<float, 256> table_of(DType dtype) {
  std::array<float, 256> table;
  for (size_t i = 0; i < table.size(); ++i) table[i] = float_of_small(static_cast<uint8_t>(i), dtype);
  return table;
}

class Converter {
 public:
  Converter(DType from, DType to) : from_(from), to_(to) {
    if (width(from) == 1) table_ = table_of(from);
  }

  void run(const std::byte* from, std::byte* to, size_t count) const {
    if (from_ == DType::kFloat64) return from_double(from, to, count);
    std::array<float, kBlock> block;
    for (size_t done = 0; done < count; done += kBlock) {
      const size_t size = std::min(kBlock, count - done);
      to_floats(from + done * width(from_), block.data(), size);
      from_floats(block.data(), to + done * width(to_), size);
    }
  }

 private:
  void to_floats(const std::byte* from, float* to, size_t count) const {
    switch (from_) {
      case DType::kFloat16:
        for (size_t i = 0; i < count; ++i) to[i] = float_of_half(load<uint16_t>(from, i));
        return;
      case DType::kBFloat16:
        for (size_t i = 0; i < count; ++i) to[i] = float_of_bfloat(load<uint16_t>(from, i));
        return;
      case DType::kFloat32:
        std::memcpy(to, from, count * sizeof(float));
        return;
      default:
        for (size_t i = 0; i < count; ++i) to[i] = table_[load<uint8_t>(from, i)];
    }
  }

  void from_floats(const float* from, std::byte* to, size_t count) const {
    switch (to_) {
      case DType::kFloat16:
        for (size_t i = 0; i < count; ++i) store(to, i, half_of_float(from[i]));
        return;
      case DType::kBFloat16:
        for (size_t i = 0; i < count; ++i) store(to, i, bfloat_of_float(from[i]));
        return;
      case DType::kFloat64:
        for (size_t i = 0; i < count; ++i) store(to, i, static_cast<double>(from[i]));
        return;
      default:
        std::memcpy(to, from, count * sizeof(float));
    }
  }

  void from_double(const std::byte* from, std::byte* to, size_t count) const {
    std::array<float, kBlock> block;
    for (size_t done = 0; done < count; done += kBlock) {
      const size_t size = std::min(kBlock, count - done);
      const std::byte* first = from + done * sizeof(double);
      if (to_ == DType::kFloat32) {
        for (size_t i = 0; i < size; ++i) block[i] = static_cast<float>(load<double>(first, i));
      } else {
        for (size_t i = 0; i < size; ++i) block[i] = odd_float_of_double(load<double>(first, i));
      }
      from_floats(block.data(), to + done * width(to_), size);
    }
  }

  DType from_, to_;
  std::array<float, 256> table_ = {};
};

}  // namespace

void convert_elements(ByteView from, DType from_dtype, std::span<std::byte> to, DType to_dtype) {
  const bool known = to_dtype >= DType::kFloat16 && to_dtype <= DType::kFloat64;
  if (from_dtype != to_dtype && (!is_floating(from_dtype) || !known)) {
    throw Error(ErrorCode::kUnsupported, "",
                "cannot convert " + std::string(name(from_dtype)) + " to " + std::string(name(to_dtype)));
  }
  const size_t count = from.size() / width(from_dtype);
  if (from.size() % width(from_dtype) != 0 || to.size() != count * width(to_dtype)) {
    throw Error(
        ErrorCode::kInvalid, "",
        "room for " + std::to_string(to.size()) + " bytes, expected " + std::to_string(count * width(to_dtype)));
  }
  if (from_dtype == to_dtype) {
    if (count != 0) std::memcpy(to.data(), from.data(), from.size());
    return;
  }
  Converter(from_dtype, to_dtype).run(from.data(), to.data(), count);
}

}  // namespace ckpt::weights
