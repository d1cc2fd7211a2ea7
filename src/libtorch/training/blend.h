// One step of a moving average.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

namespace ckpt::training {

/// average += weight * (value - average), for each pair of tensors of one shape and device; floating or complex ones,
/// the values of any width.
void blend(const std::vector<std::pair<at::Tensor, at::Tensor>>& averages_and_values, double weight);

}  // namespace ckpt::training
