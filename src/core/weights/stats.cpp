#include "core/weights/stats.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/weights/numbers.h"
#include "core/weights/tiles.h"

namespace ckpt::weights {
namespace {

constexpr uint64_t kTileBytes = 1 << 20;
constexpr size_t kBlock = 4096;  // elements

/// Count, mean and sum of squared distances from it; blocks are merged by the formula of Chan et al., which loses
/// nothing where the mean is large and the deviation small.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void merge(const Moments& other) {
    if (count == 0) {
      *this = other;
      return;
    }
    const double sum = count + other.count, delta = other.mean - mean;
    mean += delta * (other.count / sum);
    squares += other.squares + delta * delta * (count * other.count / sum);
    count = sum;
  }
};

/// Leaves the finite values, in order, and counts the others.
size_t keep_finite(std::span<double> values, Stats& stats) {
  size_t kept = 0;
  for (const double value : values) {
    if (std::isfinite(value)) {
      values[kept++] = value;
    } else {
      ++(std::isnan(value) ? stats.nan : stats.inf);
    }
  }
  return kept;
}

Moments moments_of(std::span<const double> values) {
  Moments moments;
  if (values.empty()) return moments;
  moments.count = static_cast<double>(values.size());
  // Divided first: a sum of the largest numbers would be infinite.
  for (const double value : values) moments.mean += value / moments.count;
  for (const double value : values) moments.squares += (value - moments.mean) * (value - moments.mean);
  return moments;
}

}  // namespace

Stats stats(const Weights& weights, const Tensor& tensor) {
  Stats result;
  Moments moments;
  const DType dtype = tensor.stored.dtype;
  const size_t numbers = numbers_per_element(dtype);
  const size_t element = static_cast<size_t>(width(dtype));
  if (tensor.stored.layout != format::TensorLayout::kStrided) weights.read(tensor, {});  // says what it is, and throws
  std::vector<std::byte> tile(static_cast<size_t>(std::min(tensor.stored.bytes, kTileBytes)));
  std::vector<double> block(kBlock * numbers);
  for_each_tile(tensor.stored, kTileBytes, [&](const format::StoredTensor& part) {
    const std::span bytes(tile.data(), static_cast<size_t>(part.bytes));
    weights.read(tensor, part, bytes);
    for (size_t done = 0; done < part.elements; done += kBlock) {
      const size_t count = std::min(kBlock, static_cast<size_t>(part.elements) - done);
      std::span values(block.data(), count * numbers);
      as_doubles(bytes.subspan(done * element, count * element), dtype, values);
      if (numbers == 2) {
        for (size_t i = 0; i < count; ++i) values[i] = std::hypot(values[2 * i], values[2 * i + 1]);
      }
      values = values.first(keep_finite(values.first(count), result));
      if (values.empty()) continue;
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      result.min = result.finite == 0 ? *low : std::min(result.min, *low);
      result.max = result.finite == 0 ? *high : std::max(result.max, *high);
      result.finite += values.size();
      moments.merge(moments_of(values));
    }
  });
  result.mean = moments.mean;
  if (result.finite != 0) result.std = std::sqrt(moments.squares / moments.count);
  return result;
}

}  // namespace ckpt::weights
