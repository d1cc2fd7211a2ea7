#include "libtorch/model/module_tensors.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace ckpt::model {

namespace {

/// Names of all tensors, and of the modules that hold nothing.
void collect(const torch::nn::Module& module, const std::string& path, std::vector<std::string>& tensors,
             std::vector<std::string>& empty) {
  bool holds_any = false;
  visit_level(
      module,
      [&](const std::string& name, const at::Tensor&, bool) {
        tensors.push_back(path + name);
        holds_any = true;
      },
      [&](const std::string& name, const torch::nn::Module& child) {
        collect(child, path + name + ".", tensors, empty);
        holds_any = true;
      });
  if (!holds_any && !path.empty()) empty.push_back(path.substr(0, path.size() - 1));
}

}  // namespace

std::vector<std::string> empty_modules(const torch::nn::Module& module) {
  std::vector<std::string> tensors, empty;
  collect(module, "", tensors, empty);
  const size_t prefix = wrapper_prefix(tensors);
  const std::string wrapper = tensors.empty() ? "" : tensors.front().substr(0, prefix);
  std::vector<std::string> result;
  for (const std::string& path : empty) {
    if (path.starts_with(wrapper)) result.push_back(path.substr(prefix));
  }
  return result;
}

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
