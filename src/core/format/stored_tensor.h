// A tensor as it lies in a file, whatever the format: what it is, and where its bytes are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/dtype.h"

namespace ckpt::format {

enum class TensorLayout : uint8_t {
  kStrided,    ///< elements in a storage, found by strides
  kQuantized,  ///< the same, of integers that stand for scaled numbers: listed, not converted
  kSparse,     ///< indices and values: listed alone (dtype and shape; no place in the file)
};

/// Strides and the storage are checked: every element lies inside its record.
struct StoredTensor {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  ///< in elements
  uint64_t elements = 0;         ///< product of shape
  uint64_t bytes = 0;            ///< elements x width
  uint64_t file_offset = 0;      ///< of the element [0, 0, ...]
  uint64_t storage_offset = 0;   ///< of the storage's first byte, in the file
  uint64_t storage_bytes = 0;
  std::string record;         ///< zip record of the storage ("data/3"); empty where the file is no zip
  bool is_parameter = false;  ///< requires_grad in the file, or a torch.nn.Parameter
  bool big_endian = false;    ///< its elements lie with the highest byte first
  TensorLayout layout = TensorLayout::kStrided;

  /// Row-major without gaps: the bytes at file_offset are the tensor (but for their order in an element).
  bool contiguous() const;
};

struct NamedTensor {
  std::string name;
  StoredTensor stored;
  // For lists of what is in several files, in which a tensor may have several names; a reader of one leaves them.
  uint32_t file = 0;
  int32_t tied_to = -1;
};

/// The places `begin` to `end` (not with it) of dimension `dim`, without reading anything. kInvalid where they leave
/// the tensor.
StoredTensor narrow(const StoredTensor& tensor, size_t dim, int64_t begin, int64_t end);

}  // namespace ckpt::format
