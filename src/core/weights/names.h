// Names of tensors: prefixes of wrappers, and tensors that are one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/weights/weights.h"

namespace ckpt::weights {

/// What stands at the front of all names, and something after it: "module." (DataParallel) and "_orig_mod."
/// (torch.compile), repeated. `name_of` gives the name of an item.
template <class Items, class NameOf = std::identity>
std::string wrapper_prefix(const Items& items, NameOf name_of = {}) {
  // Found first and taken off at once by the caller: a name may hold thousands.
  std::string prefix;
  for (bool found = !items.empty(); found;) {
    found = false;
    for (const std::string_view wrapper : {"module.", "_orig_mod."}) {
      const bool in_all = std::all_of(items.begin(), items.end(), [&](const auto& item) {
        const std::string_view name = std::invoke(name_of, item);
        return name.size() > prefix.size() + wrapper.size() && name.substr(prefix.size()).starts_with(wrapper);
      });
      if (!in_all) continue;
      prefix += wrapper;
      found = true;
    }
  }
  return prefix;
}

/// Takes wrapper_prefix() from all names, and from the module paths of `_metadata`.
void strip_wrappers(Contents& contents);

/// Places of the tensors, sorted by name. kCorrupt where two have one name.
std::vector<uint32_t> index_names(const Contents& contents);

/// Sets tied_to: tensors with elements that have place, dtype, shape and strides in common.
void find_ties(std::vector<Tensor>& tensors);

}  // namespace ckpt::weights
