#include "core/average/integers.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/average/exact_sum.h"

namespace ckpt::average {
namespace {

template <class T>
T load(const std::byte* from, size_t i) {
  T value;
  std::memcpy(&value, from + i * sizeof value, sizeof value);
  return value;
}

/// Calls `act` with a value of the type that `dtype` is.
template <class F>
auto with_type(DType dtype, F&& act) {
  switch (dtype) {
    case DType::kUInt8:
      return act(uint8_t{});
    case DType::kInt8:
      return act(int8_t{});
    case DType::kUInt16:
      return act(uint16_t{});
    case DType::kInt16:
      return act(int16_t{});
    case DType::kUInt32:
      return act(uint32_t{});
    case DType::kInt32:
      return act(int32_t{});
    case DType::kUInt64:
      return act(uint64_t{});
    default:
      return act(int64_t{});
  }
}

template <class T>
std::optional<size_t> quotients(IntegerInputs inputs, std::span<const double> weights, const ExactNumber& divisor,
                                DType dtype, size_t elements, std::byte* to) {
  for (size_t k = 0; k < elements; ++k) {
    ExactSum sum;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const T value = load<T>(inputs[i], k);
      const bool negative = value < 0;
      sum.add_product(weights[i], negative ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value), negative);
    }
    const Rounded rounded = round_quotient(sum.value(), divisor, dtype);
    if (!rounded.fits) return k;
    const auto result = static_cast<T>(rounded.bits);
    std::memcpy(to + k * sizeof result, &result, sizeof result);
  }
  return std::nullopt;
}

}  // namespace

bool is_integer(DType dtype) { return dtype >= DType::kUInt8 && dtype <= DType::kInt64; }

void integer_max(IntegerInputs inputs, DType dtype, size_t elements, std::byte* to) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    for (size_t k = 0; k < elements; ++k) {
      T most = load<T>(inputs.front(), k);
      for (const std::byte* input : inputs.subspan(1)) most = std::max(most, load<T>(input, k));
      std::memcpy(to + k * sizeof most, &most, sizeof most);
    }
  });
}

std::optional<size_t> integer_sum(IntegerInputs inputs, DType dtype, size_t elements, std::byte* to) {
  const std::vector<double> ones(inputs.size(), 1);
  const ExactNumber one = exact_sum(std::span(ones).first(1));
  return with_type(dtype, [&](auto type) { return quotients<decltype(type)>(inputs, ones, one, dtype, elements, to); });
}

std::optional<size_t> integer_mean(IntegerInputs inputs, std::span<const double> weights, DType dtype, size_t elements,
                                   std::byte* to) {
  const ExactNumber sum = exact_sum(weights);
  return with_type(dtype,
                   [&](auto type) { return quotients<decltype(type)>(inputs, weights, sum, dtype, elements, to); });
}

std::optional<size_t> first_difference(IntegerInputs inputs, DType dtype, size_t elements) {
  const size_t bytes = elements * width(dtype);
  size_t same = bytes;
  for (const std::byte* input : inputs.subspan(1)) {
    same = static_cast<size_t>(std::mismatch(input, input + same, inputs.front()).first - input);
  }
  if (same == bytes) return std::nullopt;
  return same / width(dtype);
}

}  // namespace ckpt::average
