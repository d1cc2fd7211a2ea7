#include "core/weights/tiles.h"

#include <algorithm>

namespace ckpt::weights {
namespace {

/// `dim` is the first dimension to be looked at; those before it are one place long.
void cut(const format::StoredTensor& tensor, size_t dim, uint64_t most_bytes,
         const std::function<void(const format::StoredTensor&)>& visit) {
  if (tensor.bytes <= most_bytes || dim == tensor.shape.size()) return visit(tensor);
  const int64_t size = tensor.shape[dim];
  const uint64_t inner = tensor.bytes / static_cast<uint64_t>(size);
  if (inner > most_bytes) {
    for (int64_t i = 0; i < size; ++i) cut(format::narrow(tensor, dim, i, i + 1), dim + 1, most_bytes, visit);
    return;
  }
  const auto places = static_cast<int64_t>(most_bytes / inner);
  for (int64_t i = 0; i < size; i += std::min(places, size - i)) {
    visit(format::narrow(tensor, dim, i, i + std::min(places, size - i)));
  }
}

}  // namespace

void for_each_tile(const format::StoredTensor& tensor, uint64_t most_bytes,
                   const std::function<void(const format::StoredTensor&)>& visit) {
  if (tensor.elements != 0) cut(tensor, 0, most_bytes, visit);
}

}  // namespace ckpt::weights
