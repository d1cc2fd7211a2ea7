// Reads stored tensors into live ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "core/format/archive.h"
#include "core/io/file.h"

namespace ckpt::bridge {

struct TensorRead {
  format::StoredTensor stored;
  at::Tensor live;  ///< of the same dtype and shape, on any device, with any strides (but no two elements in one place)
};

/// Reads all, on at most `threads` threads: straight into row-major memory of the CPU, else through a small buffer for
/// each thread and copy_(). No two reads share memory. Throws the first error; the rest may then be read or not.
void read_tensors(const io::File& file, std::span<const TensorRead> reads, unsigned threads);

}  // namespace ckpt::bridge
