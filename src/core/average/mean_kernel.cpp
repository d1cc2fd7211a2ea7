// Which kernel takes a mean, and what it is told of the weights.
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/average/mean.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ckpt::average {
namespace {

#if defined(__x86_64__)
bool has_avx2() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && avx2_kernel() != nullptr;
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && avx512_kernel() != nullptr;
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

const KernelFunctions* functions_of(Kernel kernel) {
  switch (kernel) {
    case Kernel::kAvx512:
      return avx512_kernel();
    case Kernel::kAvx2:
      return avx2_kernel();
    case Kernel::kPortable:
      return portable_kernel();
    default:
      return nullptr;
  }
}

KernelTarget target_of(DType dtype, const KernelFunctions& functions) {
  switch (dtype) {
    case DType::kFloat64:
      return KernelTarget::kFloat64;
    case DType::kFloat32:
      return KernelTarget::kFloat32;
    case DType::kBFloat16:
      return KernelTarget::kBFloat16;
    case DType::kFloat16:
      return functions.has_float16 ? KernelTarget::kFloat16 : KernelTarget::kOddFloat64;
    default:
      return KernelTarget::kOddFloat64;
  }
}

/// Binary digits from the first that is not 0 to the last.
int significand_digits(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 24;
    case DType::kFloat16:
      return 11;
    case DType::kBFloat16:
      return 8;
    default:  // float8
      return 4;
  }
}

/// The exponent of the lowest binary digit that is not 0; of a number that is not 0.
int lowest_digit(double number) {
  int exponent = 0;
  const auto whole = static_cast<uint64_t>(std::ldexp(std::frexp(std::fabs(number), &exponent), 53));
  return exponent - 53 + std::countr_zero(whole);
}

/// Digits from the lowest one of any weight to the highest one of the sum of their magnitudes.
int sum_digits(std::span<const double> weights) {
  int lowest = 2000;
  double sum = 0;
  for (const double weight : weights) {
    if (weight == 0) continue;
    lowest = std::min(lowest, lowest_digit(weight));
    sum += std::fabs(weight);
  }
  return std::ilogb(sum) + 2 - lowest;  // 2: the sum was rounded, perhaps down
}

}  // namespace

Kernel best_kernel() {
  static const Kernel best = has_avx512() ? Kernel::kAvx512 : has_avx2() ? Kernel::kAvx2 : Kernel::kPortable;
  return best;
}

void Mean::prepare(Kernel kernel) {
  const KernelFunctions* functions = functions_of(std::min(kernel, best_kernel()));
  if (functions == nullptr || from_ == DType::kFloat8E8M0FNU || to_ == DType::kFloat8E8M0FNU) return;
  task_.input_count = weights_.size();
  task_.positive = std::ranges::all_of(weights_, [](double weight) { return weight > 0; });
  if (std::ranges::all_of(weights_, [&](double weight) { return weight == weights_.front(); })) {
    task_.sum = static_cast<double>(weights_.size());
  } else {
    const auto rounded = [](const ExactNumber& number) {
      const double one = 1;
      return std::bit_cast<double>(round_quotient(number, exact_sum({&one, 1}), DType::kFloat64).bits);
    };
    const double sum = rounded(weight_sum_);
    if (!std::isnormal(sum)) return;
    const int scale = -std::ilogb(sum);
    for (const double weight : weights_) {
      kernel_weights_.push_back(std::ldexp(weight, scale));
      const double size = std::fabs(kernel_weights_.back());
      if (weight != 0 && !(size >= 0x1p-300 && size <= 0x1p300)) return kernel_weights_.clear();
    }
    std::vector<double> terms = kernel_weights_;
    task_.sum = rounded(exact_sum(terms));
    terms.push_back(-task_.sum);
    task_.sum_low = rounded(exact_sum(terms));
    terms.push_back(-task_.sum_low);
    task_.sum_error = 2 * std::fabs(rounded(exact_sum(terms)));
  }

  functions_ = functions;
  switch (from_) {
    case DType::kFloat64:
      task_.source = KernelSource::kFloat64;
      break;
    case DType::kBFloat16:
      task_.source = KernelSource::kBFloat16;
      break;
    case DType::kFloat16:
      widen_ = !functions->has_float16;
      task_.source = widen_ ? KernelSource::kFloat32 : KernelSource::kFloat16;
      break;
    default:
      widen_ = from_ != DType::kFloat32;
      task_.source = KernelSource::kFloat32;
  }
  task_.inverse = 1 / task_.sum;
  task_.half_sum = task_.sum * 0x1p-53;
  if (from_ != DType::kFloat64) set_spreads();
  task_.target = target_of(to_, *functions);
  task_.target_width = task_.target == KernelTarget::kOddFloat64 ? sizeof(double) : width(to_);
  task_.limit = to_ == DType::kFloat64 ? 0x1p1000 : least_beyond(to_);
}

/// A sum of numbers of `digits` digits whose exponents are at most s apart, with weights whose sum has w digits, has no
/// more than digits + s + w. One double holds 53. In a pair, the low part is a sum of roundings of N sums and N
/// products, each at most 2^-53 of the whole.
void Mean::set_spreads() {
  const std::vector<double> ones(weights_.size(), 1);
  const int digits = significand_digits(from_) + sum_digits(kernel_weights_.empty() ? ones : kernel_weights_);
  const int roundings = std::bit_width(weights_.size()) + 1;
  task_.spread_of_pair = static_cast<uint32_t>(std::clamp(106 - digits - roundings, 0, 200));
  // The divisor is one double, too, on the shortest way.
  if (task_.sum_low == 0) task_.spread_of_one = static_cast<uint32_t>(std::max(53 - digits, 0));
}

}  // namespace ckpt::average
