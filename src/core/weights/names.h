// Names of tensors: prefixes of wrappers, and tensors that are one.
#pragma once

#include <cstdint>
#include <vector>

#include "core/weights/weights.h"

namespace ckpt::weights {

/// Takes "module." (DataParallel) and "_orig_mod." (torch.compile) from the front where all names have them,
/// repeatedly, in the module paths of `_metadata` too.
void strip_wrappers(Contents& contents);

/// Places of the tensors, sorted by name. kCorrupt where two have one name.
std::vector<uint32_t> index_names(const Contents& contents);

/// Sets tied_to: tensors with elements that have place, dtype, shape and strides in common.
void find_ties(std::vector<Tensor>& tensors);

}  // namespace ckpt::weights
