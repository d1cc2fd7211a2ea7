// Tensors that a writer is given, and the storages that they are written into.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/format/bytes_to_write.h"

namespace ckpt::format {

/// Row-major, little-endian.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  BytesToWrite data;
  bool is_parameter = false;
  /// Where this is a further name of another tensor: that one's place in the list; it is no tie itself, and `data` of
  /// this one is empty then.
  int64_t tied_to = -1;
};

}  // namespace ckpt::format
