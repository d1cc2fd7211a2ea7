// A tensor in row-major pieces of a bounded size.
#pragma once

#include <cstdint>
#include <functional>

#include "core/format/stored_tensor.h"

namespace ckpt::weights {

/// How a shape is cut: tiles are narrow()ed parts which one after the other are the elements in row-major order. Where
/// the cuts are depends on the shape and the width alone, so that tensors which differ in strides are cut alike.
class TileGrid {
 public:
  /// Of at most `most_bytes`, at least one element.
  TileGrid(const format::StoredTensor& tensor, uint64_t most_bytes);

  uint64_t count() const { return count_; }  ///< 0 where there are no elements
  format::StoredTensor tile(const format::StoredTensor& tensor, uint64_t index) const;

 private:
  size_t dim_ = 0;      // cut into runs of places_; those before it into single places
  int64_t places_ = 0;  // 0: not cut
  uint64_t runs_ = 1;   // along dim_
  uint64_t count_ = 0;
};

void for_each_tile(const format::StoredTensor& tensor, uint64_t most_bytes,
                   const std::function<void(const format::StoredTensor&)>& visit);

}  // namespace ckpt::weights
