#include "core/average/mean.h"

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "ckpt/error.h"
#include "core/weights/numbers.h"

namespace ckpt::average {
namespace {

constexpr size_t kBlock = 256;  // numbers done at a time: a block of each input stays in the cache

/// Rounding to nearest, and denormals as they are (torch.set_flush_denormal and its like are of the thread), while it
/// lives.
class PlainFloatingPoint {
 public:
  PlainFloatingPoint() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~PlainFloatingPoint() { std::fesetenv(&before_); }
  PlainFloatingPoint(const PlainFloatingPoint&) = delete;
  PlainFloatingPoint& operator=(const PlainFloatingPoint&) = delete;

 private:
  std::fenv_t before_;
};

DType component(DType dtype) {
  switch (dtype) {
    case DType::kComplex32:
      return DType::kFloat16;
    case DType::kComplex64:
      return DType::kFloat32;
    case DType::kComplex128:
      return DType::kFloat64;
    default:
      return dtype;
  }
}

ExactNumber positive_sum(std::span<const double> weights) {
  if (!std::ranges::all_of(weights, [](double weight) { return std::isfinite(weight); })) {
    throw Error(ErrorCode::kInvalid, "", "a weight is not finite");
  }
  const ExactNumber sum = exact_sum(weights);
  if (sum.size == 0 || sum.negative) throw Error(ErrorCode::kInvalid, "", "the sum of the weights is not above 0");
  return sum;
}

void store(uint64_t bits, size_t size, std::byte* to) {
  const auto put = [&](auto value) { std::memcpy(to, &value, sizeof value); };
  if (size == 1) put(static_cast<uint8_t>(bits));
  if (size == 2) put(static_cast<uint16_t>(bits));
  if (size == 4) put(static_cast<uint32_t>(bits));
  if (size == 8) put(bits);
}

}  // namespace

Kernel best_kernel() { return Kernel::kScalar; }

Mean::Mean(std::vector<double> weights, DType from, DType to, Kernel kernel)
    : weights_(std::move(weights)),
      weight_sum_(positive_sum(weights_)),
      from_(component(from)),
      to_(component(to)),
      numbers_per_element_(weights::numbers_per_element(from)),
      kernel_(kernel) {
  const bool floating = is_floating(from) && is_floating(to);
  if (!floating && !(is_complex(from) && is_complex(to))) {
    throw Error(ErrorCode::kUnsupported, "", "no mean of " + std::string(name(from)) + " as " + std::string(name(to)));
  }
}

MeanFlags Mean::operator()(std::span<const std::byte* const> inputs, size_t elements, std::byte* to) const {
  if (inputs.size() != weights_.size()) {
    throw Error(ErrorCode::kInvalid, "",
                std::to_string(inputs.size()) + " inputs, expected " + std::to_string(weights_.size()));
  }
  const PlainFloatingPoint plain;
  const size_t numbers = elements * numbers_per_element_;
  MeanFlags flags;
  for (size_t done = 0; done < numbers; done += kBlock) {
    const size_t count = std::min(kBlock, numbers - done);
    scalar_block(inputs, done, count, to + done * width(to_), flags);
  }
  return flags;
}

void Mean::scalar_block(std::span<const std::byte* const> inputs, size_t first, size_t count, std::byte* to,
                        MeanFlags& flags) const {
  std::vector<double> block(inputs.size() * count);  // the numbers of the first input, then of the next
  for (size_t i = 0; i < inputs.size(); ++i) {
    weights::as_doubles(ByteView(inputs[i] + first * width(from_), count * width(from_)), from_,
                        std::span(block).subspan(i * count, count));
  }
  std::vector<double> numbers(inputs.size());
  for (size_t k = 0; k < count; ++k) {
    for (size_t i = 0; i < inputs.size(); ++i) numbers[i] = block[i * count + k];
    store(exact_mean(numbers, flags), width(to_), to + k * width(to_));
  }
}

uint64_t Mean::exact_mean(std::span<const double> numbers, MeanFlags& flags) const {
  if (!std::ranges::all_of(numbers, [](double number) { return std::isfinite(number); })) {
    flags.nonfinite_input = true;
    return nonfinite_mean(numbers);
  }
  if (std::ranges::all_of(numbers, [](double number) { return number == 0 && std::signbit(number); })) {
    return negative_zero(to_);
  }
  ExactSum sum;
  for (size_t i = 0; i < numbers.size(); ++i) sum.add_product(weights_[i], numbers[i]);
  const Rounded rounded = round_quotient(sum.value(), weight_sum_, to_);
  flags.overflow |= !rounded.fits;
  ++flags.redone;
  return rounded.bits;
}

uint64_t Mean::nonfinite_mean(std::span<const double> numbers) const {
  bool above = false, below = false;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::isfinite(numbers[i])) continue;
    if (std::isnan(numbers[i]) || weights_[i] == 0) return quiet_nan(to_);
    (numbers[i] * weights_[i] > 0 ? above : below) = true;
  }
  return above && below ? quiet_nan(to_) : infinity(to_, below);
}

}  // namespace ckpt::average
