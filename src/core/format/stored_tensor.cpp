#include "core/format/stored_tensor.h"

#include "ckpt/error.h"

namespace ckpt::format {

bool StoredTensor::contiguous() const {
  if (elements < 2) return true;
  uint64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] == 1) continue;
    if (static_cast<uint64_t>(strides[i]) != expected) return false;
    expected *= static_cast<uint64_t>(shape[i]);
  }
  return true;
}

StoredTensor narrow(const StoredTensor& tensor, size_t dim, int64_t begin, int64_t end) {
  if (dim >= tensor.shape.size() || begin < 0 || begin > end || end > tensor.shape[dim]) {
    throw Error(ErrorCode::kInvalid, "",
                "a slice from " + std::to_string(begin) + " to " + std::to_string(end) + " of dimension " +
                    std::to_string(dim) + " leaves the tensor");
  }
  StoredTensor slice = tensor;
  slice.shape[dim] = end - begin;
  slice.elements = 1;
  for (const int64_t size : slice.shape) slice.elements *= static_cast<uint64_t>(size);
  slice.bytes = slice.elements * width(slice.dtype);
  if (slice.elements != 0) {
    slice.file_offset += static_cast<uint64_t>(begin) * static_cast<uint64_t>(tensor.strides[dim]) * width(slice.dtype);
  }
  return slice;
}

}  // namespace ckpt::format
