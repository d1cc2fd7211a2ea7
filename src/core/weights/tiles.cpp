#include "core/weights/tiles.h"

#include <algorithm>

namespace ckpt::weights {

TileGrid::TileGrid(const format::StoredTensor& tensor, uint64_t most_bytes) {
  if (tensor.elements == 0) return;
  count_ = 1;
  uint64_t inner = tensor.bytes;  // of one place of the dimensions before dim_
  for (; dim_ < tensor.shape.size() && inner > most_bytes; ++dim_) {
    const auto size = static_cast<uint64_t>(tensor.shape[dim_]);
    inner /= size;
    if (inner > most_bytes) {
      count_ *= size;
      continue;
    }
    places_ = static_cast<int64_t>(most_bytes / inner);
    runs_ = (size + static_cast<uint64_t>(places_) - 1) / static_cast<uint64_t>(places_);
    count_ *= runs_;
    return;
  }
}

format::StoredTensor TileGrid::tile(const format::StoredTensor& tensor, uint64_t index) const {
  if (count_ == 1) return tensor;
  format::StoredTensor tile = tensor;
  if (places_ != 0) {
    const auto begin = static_cast<int64_t>(index % runs_) * places_;
    tile = format::narrow(tile, dim_, begin, std::min(begin + places_, tensor.shape[dim_]));
    index /= runs_;
  }
  for (size_t dim = dim_; dim-- > 0;) {
    const auto size = static_cast<uint64_t>(tensor.shape[dim]);
    const auto place = static_cast<int64_t>(index % size);
    if (size > 1) tile = format::narrow(tile, dim, place, place + 1);
    index /= size;
  }
  return tile;
}

void for_each_tile(const format::StoredTensor& tensor, uint64_t most_bytes,
                   const std::function<void(const format::StoredTensor&)>& visit) {
  const TileGrid grid(tensor, most_bytes);
  for (uint64_t i = 0; i < grid.count(); ++i) visit(grid.tile(tensor, i));
}

}  // namespace ckpt::weights
