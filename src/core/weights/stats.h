// Numbers about the values of a tensor.
#pragma once

#include <cstdint>

#include "core/weights/weights.h"

namespace ckpt::weights {

/// Of the finite values; of bools as 0 and 1, of complex numbers as their absolute values.
struct Stats {
  double min = 0;
  double max = 0;
  double mean = 0;
  double std = 0;  ///< of the population
  uint64_t nan = 0;
  uint64_t inf = 0;
  uint64_t finite = 0;  ///< 0: the four numbers mean nothing
};

/// Reads the tensor once, in little memory. kUnsupported for sparse and quantized ones.
Stats stats(const Weights& weights, const Tensor& tensor);

}  // namespace ckpt::weights
