// Differences between the elements of two tensors of one dtype.
#pragma once

#include <cstdint>
#include <optional>

#include "core/base/bytes.h"
#include "core/weights/diff.h"

namespace ckpt::weights {

/// What was seen of two tensors; parts are added in the order of the elements.
struct Comparison {
  bool differs = false;  ///< beyond what DiffOptions allow
  double max_abs = 0;
  double max_rel = 0;
  uint64_t max_ulp = 0;
  bool has_ulp = true;
  double dot = 0, squares_a = 0, squares_b = 0;  ///< of pairs that are finite

  void add(const Comparison& next);
  std::optional<double> cosine() const;
};

/// Elements in this machine's byte order, as many on both sides.
Comparison compare(ByteView a, ByteView b, DType dtype, const DiffOptions& options);

}  // namespace ckpt::weights
