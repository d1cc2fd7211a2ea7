#include "libtorch/training/blend.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/version.h>

#include <algorithm>

namespace ckpt::training {
namespace {

constexpr int64_t kBlock = 1024;  // elements; a known count is what GCC vectorises at -O2
constexpr int64_t kGrain = 32 * kBlock;

template <class Average, class Value>
void blend_block(Average* __restrict average, const Value* __restrict value, Average weight) {
  for (int64_t i = 0; i < kBlock; ++i) average[i] += weight * (static_cast<Average>(value[i]) - average[i]);
}

// One pass over memory, where LibTorch takes two or three for half precision, and is slow at lerp_ before 2.0.
template <class Average, class Value>
void blend_memory(const at::Tensor& averages, const at::Tensor& values, double weight) {
  auto* const average = averages.data_ptr<Average>();
  const auto* const value = values.data_ptr<Value>();
  const auto w = static_cast<Average>(weight);
  const int64_t blocks = averages.numel() / kBlock;
  at::parallel_for(0, blocks, kGrain / kBlock, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin * kBlock; i < end * kBlock; i += kBlock) blend_block(average + i, value + i, w);
  });
  for (int64_t i = blocks * kBlock; i < averages.numel(); ++i) {
    average[i] += w * (static_cast<Average>(value[i]) - average[i]);
  }
}

// Whether it was done: on the CPU, for the usual dtypes and layouts.
bool blend_on_cpu(const at::Tensor& averages, const at::Tensor& values, double weight) {
  if (!averages.is_cpu() || !values.is_cpu() || !averages.is_non_overlapping_and_dense()) return false;
  if (averages.strides() != values.strides() || values.is_neg()) return false;
  const at::ScalarType to = averages.scalar_type(), from = values.scalar_type();
  if (to == at::kDouble && from == at::kDouble) {
    blend_memory<double, double>(averages, values, weight);
  } else if (to == at::kFloat && from == at::kFloat) {
    blend_memory<float, float>(averages, values, weight);
  } else if (to == at::kFloat && from == at::kBFloat16) {
    blend_memory<float, at::BFloat16>(averages, values, weight);
  } else if (to == at::kFloat && from == at::kHalf) {
    blend_memory<float, at::Half>(averages, values, weight);
  } else {
    return false;
  }
  return true;
}

}  // namespace

void blend(const std::vector<std::pair<at::Tensor, at::Tensor>>& averages_and_values, double weight) {
  std::vector<at::Tensor> averages, values;  // for one call, which is few kernels on a GPU
  for (const auto& [average, value] : averages_and_values) {
    if (blend_on_cpu(average, value, weight)) continue;
    averages.push_back(average);
    values.push_back(value.to(average.scalar_type()));
  }
  if (averages.empty()) return;
#if TORCH_VERSION_MAJOR >= 2
  at::_foreach_lerp_(averages, values, at::Scalar(weight));
#else
  for (size_t i = 0; i < averages.size(); ++i) averages[i].lerp_(values[i], weight);
#endif
}

}  // namespace ckpt::training
