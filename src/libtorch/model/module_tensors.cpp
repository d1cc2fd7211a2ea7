#include "libtorch/model/module_tensors.h"

#include "core/weights/names.h"

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
  const std::string wrapper = weights::wrapper_prefix(tensors);
  std::vector<std::string> result;
  for (const std::string& path : empty) {
    if (path.starts_with(wrapper)) result.push_back(path.substr(wrapper.size()));
  }
  return result;
}

void strip_wrappers(std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  const size_t prefix =
      weights::wrapper_prefix(tensors, [](const auto& item) { return std::string_view(item.first); }).size();
  for (auto& item : tensors) item.first.erase(0, prefix);
}

}  // namespace ckpt::model
