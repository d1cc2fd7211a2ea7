#include "libtorch/model/module_tensors.h"

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/instancenorm.h>

#include "core/weights/module_metadata.h"
#include "core/weights/names.h"

namespace ckpt::model {

namespace {

/// Python's BatchNorm and InstanceNorm have version 2, with or without running statistics, and all else in torch.nn 1;
/// a module of the user's that counts its batches is one of that kind.
bool counts_batches(const torch::nn::Module& module) {
  using namespace torch::nn;
  return dynamic_cast<const BatchNorm1dImpl*>(&module) || dynamic_cast<const BatchNorm2dImpl*>(&module) ||
         dynamic_cast<const BatchNorm3dImpl*>(&module) || dynamic_cast<const InstanceNorm1dImpl*>(&module) ||
         dynamic_cast<const InstanceNorm2dImpl*>(&module) || dynamic_cast<const InstanceNorm3dImpl*>(&module) ||
         module.named_buffers(/*recurse=*/false).contains("num_batches_tracked");
}

/// Names of all tensors, and `_metadata` of all modules.
void collect(const torch::nn::Module& module, const std::string& path, std::vector<std::string>& tensors,
             nlohmann::ordered_json::object_t& metadata) {
  const std::string prefix = path.empty() ? "" : path + ".";
  metadata.emplace_back(path, weights::module_version(counts_batches(module)));
  visit_level(
      module, [&](const std::string& name, const at::Tensor&, bool) { tensors.push_back(prefix + name); },
      [&](const std::string& name, const torch::nn::Module& child) {
        collect(child, prefix + name, tensors, metadata);
      });
}

}  // namespace

nlohmann::ordered_json module_metadata(const torch::nn::Module& module) {
  std::vector<std::string> tensors;
  nlohmann::ordered_json metadata = nlohmann::ordered_json::object();
  collect(module, "", tensors, metadata.get_ref<nlohmann::ordered_json::object_t&>());
  weights::strip_module_paths(metadata, weights::wrapper_prefix(tensors));
  return metadata;
}

void strip_wrappers(std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  const size_t prefix =
      weights::wrapper_prefix(tensors, [](const auto& item) { return std::string_view(item.first); }).size();
  for (auto& item : tensors) item.first.erase(0, prefix);
}

}  // namespace ckpt::model
