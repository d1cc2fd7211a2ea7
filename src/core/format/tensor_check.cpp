#include "core/format/tensor_check.h"

#include <algorithm>

#include "core/base/checked.h"

namespace ckpt::format {

std::optional<uint64_t> element_count(std::span<const int64_t> shape) {
  // A zero anywhere makes the whole product zero, but what torch multiplies up before it must fit all the same.
  uint64_t product = 1;
  for (int64_t size : shape) {
    if (size < 0) return std::nullopt;
    const std::optional<uint64_t> next = checked_mul(product, static_cast<uint64_t>(std::max<int64_t>(size, 1)));
    if (!next || *next > INT64_MAX) return std::nullopt;
    product = *next;
  }
  return std::find(shape.begin(), shape.end(), 0) == shape.end() ? product : 0;
}

std::vector<int64_t> contiguous_strides(std::span<const int64_t> shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
  return strides;
}

std::string place_in_storage(StoredTensor& tensor, int64_t offset, uint64_t storage_elements, uint64_t expanded_limit) {
  if (tensor.shape.size() > kMaxRank)
    return "expected at most 64 dimensions, found " + std::to_string(tensor.shape.size());
  if (tensor.shape.size() != tensor.strides.size()) {
    return std::to_string(tensor.shape.size()) + " sizes, but " + std::to_string(tensor.strides.size()) + " strides";
  }
  const std::optional<uint64_t> elements = element_count(tensor.shape);
  const std::optional<uint64_t> bytes = elements ? checked_mul(*elements, width(tensor.dtype)) : std::nullopt;
  if (!bytes) return "its sizes are negative or too large";
  if (offset < 0 || static_cast<uint64_t>(offset) > storage_elements) {
    return "it begins at element " + std::to_string(offset) + " of a storage of " + std::to_string(storage_elements);
  }
  uint64_t last = static_cast<uint64_t>(offset);
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.strides[i] < 0) return "a stride of " + std::to_string(tensor.strides[i]);
    if (*elements == 0) continue;
    const auto steps =
        checked_mul(static_cast<uint64_t>(tensor.shape[i] - 1), static_cast<uint64_t>(tensor.strides[i]));
    const auto sum = steps ? checked_add(last, *steps) : std::nullopt;
    if (!sum) return "its sizes and strides overflow";
    last = *sum;
  }
  if (*elements != 0 && last >= storage_elements) {
    return "it reaches to element " + std::to_string(last) + " of a storage of " + std::to_string(storage_elements);
  }
  if (*bytes > std::max(tensor.storage_bytes, expanded_limit)) {
    return "it is " + std::to_string(*bytes) + " bytes made of a storage of " + std::to_string(tensor.storage_bytes);
  }
  tensor.elements = *elements;
  tensor.bytes = *bytes;
  tensor.file_offset = tensor.storage_offset + static_cast<uint64_t>(offset) * width(tensor.dtype);
  return {};
}

}  // namespace ckpt::format
