#include "core/weights/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/weights/numbers.h"

namespace ckpt::weights {
namespace {

constexpr size_t kBlock = 1024;  // elements
constexpr double kInfinity = std::numeric_limits<double>::infinity();

void compare_numbers(std::span<const double> a, std::span<const double> b, const DiffOptions& options,
                     Comparison& result) {
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    if (std::isfinite(x) && std::isfinite(y)) {
      const double distance = std::fabs(x - y);
      result.dot += x * y;
      result.squares_a += x * x;
      result.squares_b += y * y;
      if (distance == 0) continue;
      result.differs = result.differs || !(distance <= options.atol + options.rtol * std::fabs(y));
      result.max_abs = std::max(result.max_abs, distance);
      if (y != 0) result.max_rel = std::max(result.max_rel, distance / std::fabs(y));
    } else if (x != y && !(std::isnan(x) && std::isnan(y))) {
      result.differs = true;
      result.max_abs = result.max_rel = kInfinity;
    }
  }
}

/// Integers that float64 cannot tell apart.
template <class T>
void compare_integers(ByteView a, ByteView b, Comparison& result) {
  for (size_t i = 0; i + sizeof(T) <= a.size(); i += sizeof(T)) {
    T x, y;
    std::memcpy(&x, a.data() + i, sizeof x);
    std::memcpy(&y, b.data() + i, sizeof y);
    const auto wide_x = static_cast<double>(x), wide_y = static_cast<double>(y);
    result.dot += wide_x * wide_y;
    result.squares_a += wide_x * wide_x;
    result.squares_b += wide_y * wide_y;
    if (x == y) continue;
    const auto low = static_cast<uint64_t>(std::min(x, y)), high = static_cast<uint64_t>(std::max(x, y));
    const auto distance = static_cast<double>(high - low);
    result.differs = true;
    result.max_abs = std::max(result.max_abs, distance);
    if (y != 0) result.max_rel = std::max(result.max_rel, distance / std::fabs(wide_y));
  }
}

/// How many numbers of the dtype lie from one to the other: their bits count them, from zero up on either side.
/// `infinity`: its bits; what is above is NaN.
template <class T>
void count_steps(ByteView a, ByteView b, uint64_t infinity, Comparison& result) {
  constexpr T kSign = static_cast<T>(T{1} << (8 * sizeof(T) - 1));
  for (size_t i = 0; i + sizeof(T) <= a.size(); i += sizeof(T)) {
    T x, y;
    std::memcpy(&x, a.data() + i, sizeof x);
    std::memcpy(&y, b.data() + i, sizeof y);
    if (x == y) continue;
    const uint64_t from = x & static_cast<T>(~kSign), to = y & static_cast<T>(~kSign);
    if (from > infinity || to > infinity) {
      if (from <= infinity || to <= infinity) result.has_ulp = false;
      continue;
    }
    const bool same_sign = (x & kSign) == (y & kSign);
    result.max_ulp = std::max(result.max_ulp, same_sign ? std::max(from, to) - std::min(from, to) : from + to);
  }
}

void count_steps(ByteView a, ByteView b, DType dtype, Comparison& result) {
  switch (dtype) {
    case DType::kFloat16:
      return count_steps<uint16_t>(a, b, 0x7C00, result);
    case DType::kBFloat16:
      return count_steps<uint16_t>(a, b, 0x7F80, result);
    case DType::kFloat32:
      return count_steps<uint32_t>(a, b, 0x7F800000, result);
    case DType::kFloat64:
      return count_steps<uint64_t>(a, b, 0x7FF0000000000000, result);
    default:
      result.has_ulp = false;
  }
}

}  // namespace

void Comparison::add(const Comparison& next) {
  differs = differs || next.differs;
  max_abs = std::max(max_abs, next.max_abs);
  max_rel = std::max(max_rel, next.max_rel);
  max_ulp = std::max(max_ulp, next.max_ulp);
  has_ulp = has_ulp && next.has_ulp;
  dot += next.dot;
  squares_a += next.squares_a;
  squares_b += next.squares_b;
}

std::optional<double> Comparison::cosine() const {
  const double length = std::sqrt(squares_a) * std::sqrt(squares_b);
  if (length == 0 || !std::isfinite(length) || !std::isfinite(dot)) return std::nullopt;
  return std::clamp(dot / length, -1.0, 1.0);
}

Comparison compare(ByteView a, ByteView b, DType dtype, const DiffOptions& options) {
  Comparison result;
  count_steps(a, b, dtype, result);
  if (dtype == DType::kInt64) {
    compare_integers<int64_t>(a, b, result);
    return result;
  }
  if (dtype == DType::kUInt64) {
    compare_integers<uint64_t>(a, b, result);
    return result;
  }
  const bool exact = !is_floating(dtype) && !is_complex(dtype);
  const DiffOptions allowed = exact ? DiffOptions{} : options;
  const size_t element = static_cast<size_t>(width(dtype)), numbers = numbers_per_element(dtype);
  std::array<double, 2 * kBlock> of_a, of_b;
  for (size_t done = 0; done < a.size(); done += kBlock * element) {
    const size_t bytes = std::min(kBlock * element, a.size() - done);
    const std::span values_a(of_a.data(), bytes / element * numbers), values_b(of_b.data(), bytes / element * numbers);
    as_doubles(a.subspan(done, bytes), dtype, values_a);
    as_doubles(b.subspan(done, bytes), dtype, values_b);
    compare_numbers(values_a, values_b, allowed, result);
  }
  return result;
}

}  // namespace ckpt::weights
