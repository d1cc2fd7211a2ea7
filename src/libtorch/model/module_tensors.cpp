#include "libtorch/model/module_tensors.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace ckpt::model {

size_t wrapper_prefix(const std::vector<std::string>& names) {
  static constexpr std::string_view kWrappers[] = {"module.", "_orig_mod."};
  size_t prefix = 0;
  while (!names.empty()) {
    const auto* wrapper = std::find_if(std::begin(kWrappers), std::end(kWrappers), [&](std::string_view text) {
      return std::all_of(names.begin(), names.end(),
                         [&](const std::string& name) { return name.compare(prefix, text.size(), text) == 0; });
    });
    if (wrapper == std::end(kWrappers)) break;
    prefix += wrapper->size();
  }
  return prefix;
}

void strip_wrappers(std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<std::string> names;
  names.reserve(tensors.size());
  for (const auto& item : tensors) names.push_back(item.first);
  const size_t prefix = wrapper_prefix(names);
  for (auto& item : tensors) item.first.erase(0, prefix);
}

}  // namespace ckpt::model
