// Tensors of an archive that the core has read and checked, as LibTorch's.
//
// Thread rule: one thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "core/format/archive.h"

namespace ckpt::bridge {

/// Reads tensors from the file, on the CPU. Views of one storage share one, and one that is stored under two names is
/// one tensor, so that ties stay ties.
class ArchiveTensors {
 public:
  explicit ArchiveTensors(const format::ArchiveFile& file) : file_(file) {}

  /// Asks for gradients where the stored one did. kUnsupported: this LibTorch has no such dtype; kIo, kCorrupt.
  at::Tensor read(const format::StoredTensor& stored);

 private:
  using Place = std::tuple<uint64_t, int, std::vector<int64_t>, std::vector<int64_t>>;  // offset, dtype, shape, strides

  const format::ArchiveFile& file_;
  std::map<uint64_t, at::Tensor> storages_;  // by where they begin in the file
  std::map<Place, at::Tensor> tensors_;
};

}  // namespace ckpt::bridge
