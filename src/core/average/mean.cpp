#include "core/average/mean.h"

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "ckpt/error.h"
#include "core/weights/convert.h"
#include "core/weights/numbers.h"

namespace ckpt::average {
namespace {

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

Mean::Mean(std::vector<double> weights, DType from, DType to, Kernel kernel)
    : weights_(std::move(weights)),
      weight_sum_(positive_sum(weights_)),
      from_(component(from)),
      to_(component(to)),
      numbers_per_element_(weights::numbers_per_element(from)) {
  const bool floating = is_floating(from) && is_floating(to);
  if (!floating && !(is_complex(from) && is_complex(to))) {
    throw Error(ErrorCode::kUnsupported, "", "no mean of " + std::string(name(from)) + " as " + std::string(name(to)));
  }
  prepare(kernel);
}

/// One call.
class Mean::Run {
 public:
  Run(const Mean& mean, std::span<const std::byte* const> inputs) : mean_(mean), inputs_(inputs), row_(inputs.size()) {
    pointers_.assign(inputs.begin(), inputs.end());
  }

  /// `count` numbers from number `first` on; at most kKernelBlock.
  void block(size_t first, size_t count, std::byte* to) {
    if (mean_.functions_ == nullptr) return exact_block(first, count, to);
    // Fewer numbers than a vector has go with zeros, as do those that the kernel does not know.
    const size_t padded = std::max(count, kKernelLeast);
    const bool copied = mean_.widen_ || padded != count;
    if (copied) copy(first, count, padded);
    const bool odd = mean_.task_.target == KernelTarget::kOddFloat64;
    std::array<double, kKernelBlock> block;  // where the kernel must not write to `to`
    std::array<uint64_t, kKernelBlock / 64> undecided = {};
    KernelTask task = mean_.task_;
    task.inputs = pointers_.data();
    task.first = copied ? 0 : first;
    task.count = padded;
    task.to = odd || padded != count ? std::as_writable_bytes(std::span(block)).data() : to;
    task.undecided = undecided.data();
    task.weights = mean_.kernel_weights_.empty() ? nullptr : mean_.kernel_weights_.data();
    mean_.functions_->mean(task);
    if (odd) {
      narrow(std::span(block).first(count), to);
    } else if (padded != count) {
      std::memcpy(to, block.data(), count * width(mean_.to_));
    }
    for (size_t word = 0; word * 64 < count; ++word) {
      for (uint64_t bits = undecided[word]; bits != 0; bits &= bits - 1) {
        const size_t k = word * 64 + static_cast<size_t>(std::countr_zero(bits));
        if (k < count) exact_number(first, k, to);
      }
    }
  }

  MeanFlags flags;

 private:
  void copy(size_t first, size_t count, size_t padded) {
    const DType dtype = mean_.widen_ ? DType::kFloat32 : mean_.from_;
    const size_t size = padded * width(dtype);
    copies_.assign(inputs_.size() * size, std::byte{0});
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const std::span<std::byte> copy = std::span(copies_).subspan(i * size, count * width(dtype));
      weights::convert_elements(numbers(i, first, count), mean_.from_, copy, dtype);
      pointers_[i] = copies_.data() + i * size;
    }
  }

  ByteView numbers(size_t input, size_t first, size_t count) const {
    const size_t size = width(mean_.from_);
    return {inputs_[input] + first * size, count * size};
  }

  void narrow(std::span<const double> block, std::byte* to) const {
    if (mean_.to_ == DType::kFloat16) {
      return weights::convert_elements(std::as_bytes(block), DType::kFloat64, {to, 2 * block.size()}, mean_.to_);
    }
    for (size_t k = 0; k < block.size(); ++k) {
      to[k] = static_cast<std::byte>(std::isnan(block[k]) ? 0 : round_number(block[k], mean_.to_).bits);
    }
  }

  /// Number `k` of a block.
  void exact_number(size_t first, size_t k, std::byte* to) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (mean_.widen_) {
        float number;
        std::memcpy(&number, pointers_[i] + k * sizeof number, sizeof number);
        row_[i] = number;
      } else {
        weights::as_doubles(numbers(i, first + k, 1), mean_.from_, {&row_[i], 1});
      }
    }
    const size_t size = width(mean_.to_);
    store(mean_.exact_mean(row_, flags), size, to + k * size);
  }

  void exact_block(size_t first, size_t count, std::byte* to) {
    const size_t size = width(mean_.to_);
    std::vector<double> block(inputs_.size() * count);  // the numbers of the first input, then of the next
    for (size_t i = 0; i < inputs_.size(); ++i) {
      weights::as_doubles(numbers(i, first, count), mean_.from_, std::span(block).subspan(i * count, count));
    }
    for (size_t k = 0; k < count; ++k) {
      for (size_t i = 0; i < inputs_.size(); ++i) row_[i] = block[i * count + k];
      store(mean_.exact_mean(row_, flags), size, to + k * size);
    }
  }

  const Mean& mean_;
  std::span<const std::byte* const> inputs_;
  std::vector<double> row_;
  std::vector<const std::byte*> pointers_;  // for the kernel
  std::vector<std::byte> copies_;
};

MeanFlags Mean::operator()(std::span<const std::byte* const> inputs, size_t elements, std::byte* to) const {
  if (inputs.size() != weights_.size()) {
    throw Error(ErrorCode::kInvalid, "",
                std::to_string(inputs.size()) + " inputs, expected " + std::to_string(weights_.size()));
  }
  const PlainFloatingPoint plain;
  Run run(*this, inputs);
  const size_t numbers = elements * numbers_per_element_;
  for (size_t done = 0, count = 0; done < numbers; done += count) {
    const size_t left = numbers - done;
    count = std::min(left, kKernelBlock);
    if (left > count && left - count < kKernelLeast) count /= 2;  // so that the last block is large enough
    run.block(done, count, to + done * width(to_));
  }
  return run.flags;
}

uint64_t Mean::exact_mean(std::span<const double> numbers, MeanFlags& flags) const {
  if (!std::ranges::all_of(numbers, [](double number) { return std::isfinite(number); })) {
    flags.nonfinite_input = true;
    return nonfinite_mean(numbers);
  }
  const auto same_bits = [&](double number) {
    return std::bit_cast<uint64_t>(number) == std::bit_cast<uint64_t>(numbers.front());
  };
  Rounded rounded;
  if (std::ranges::all_of(numbers, same_bits)) {
    rounded = round_number(numbers.front(), to_);
  } else {
    ExactSum sum;
    for (size_t i = 0; i < numbers.size(); ++i) sum.add_product(weights_[i], numbers[i]);
    rounded = round_quotient(sum.value(), weight_sum_, to_);
    ++flags.redone;
  }
  flags.overflow |= !rounded.fits;
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
