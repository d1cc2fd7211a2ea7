// Reads stored tensors into live ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "core/format/stored_tensor.h"
#include "core/io/file.h"

namespace ckpt::bridge {

struct TensorRead {
  format::StoredTensor stored;  ///< strided, of the live one's shape
  /// On any device, with any strides (but no two elements in one place). Of another dtype where both are floating, or
  /// where this LibTorch has the stored one and copy_() converts it.
  at::Tensor live;
};

/// Reads all, on at most `threads` threads: straight into row-major memory of the CPU where nothing needs converting,
/// else through a small buffer for each thread. Floating numbers are rounded to nearest even, bools are made 0 or 1. No
/// two reads share memory. Throws the first error; the rest may then be read or not.
void read_tensors(const io::File& file, std::span<const TensorRead> reads, unsigned threads);

/// Whether two stored tensors have one dtype, one shape and the same bits. Reads both where they are not at one place.
bool same_values(const format::StoredTensor& a, const io::File& file_a, const format::StoredTensor& b,
                 const io::File& file_b);

}  // namespace ckpt::bridge
