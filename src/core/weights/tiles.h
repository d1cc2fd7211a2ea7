// A tensor in row-major pieces of a bounded size.
#pragma once

#include <cstdint>
#include <functional>

#include "core/format/stored_tensor.h"

namespace ckpt::weights {

/// Calls `visit` with narrow()ed parts of `tensor`, which one after the other are its elements in row-major order; each
/// has at most `most_bytes`, at least one element. How it is cut depends on the shape and the width alone.
void for_each_tile(const format::StoredTensor& tensor, uint64_t most_bytes,
                   const std::function<void(const format::StoredTensor&)>& visit);

}  // namespace ckpt::weights
