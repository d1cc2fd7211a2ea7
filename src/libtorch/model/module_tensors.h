// The tensors of a live module by name.
#pragma once

#include <torch/nn/module.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace ckpt::model {

/// One level in the order of Python's state_dict: on_tensor(name, tensor, is_buffer) for the module's own parameters
/// and then its own buffers, undefined ones left out; then on_child(name, child) for the children that are stored.
template <class OnTensor, class OnChild>
void visit_level(const torch::nn::Module& module, OnTensor on_tensor, OnChild on_child) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    if (item.value().defined()) on_tensor(item.key(), item.value(), false);
  }
  for (const auto& item : module.named_buffers(/*recurse=*/false)) {
    if (item.value().defined()) on_tensor(item.key(), item.value(), true);
  }
  for (const auto& item : module.named_children()) {
    if (item.value()->is_serializable()) on_child(item.key(), *item.value());
  }
}

/// Takes the prefix of a wrapper from all names.
void strip_wrappers(std::vector<std::pair<std::string, at::Tensor>>& tensors);

/// The `_metadata` that Python's state_dict has: every module's path, its children after it, and the version of its
/// kind. Without the prefix of a wrapper.
nlohmann::ordered_json module_metadata(const torch::nn::Module& module);

}  // namespace ckpt::model
