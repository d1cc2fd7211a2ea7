#include <torch/nn/module.h>

#include <memory>
#include <utility>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "libtorch/bridge/archive_tensors.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/training/import.h"

namespace ckpt::training {
namespace {

/// A module that is nothing but its tensors and children. Children without tensors stay: LibTorch's own loading looks
/// for them.
class ArchivedModule : public torch::nn::Module {
 public:
  ArchivedModule(const format::Archive& level, bool escaped, bridge::ArchiveTensors& tensors, size_t& tensor_count,
                 std::vector<std::string>& left_out) {
    for (const auto& [stored, value] : level.members) {
      const std::string name = escaped ? format::unescape_name(stored) : stored;
      if (const auto* tensor = std::get_if<format::StoredTensor>(&value)) {
        const at::Tensor read = tensors.read(*tensor);
        ++tensor_count;
        if (read.requires_grad()) {
          register_parameter(name, read);
        } else {
          register_buffer(name, read);
        }
      } else if (const auto* nested = std::get_if<std::shared_ptr<const format::Archive>>(&value)) {
        register_module(name, std::make_shared<ArchivedModule>(**nested, escaped, tensors, tensor_count, left_out));
      } else {
        left_out.push_back(name);
      }
    }
  }
};

}  // namespace

std::shared_ptr<torch::nn::Module> import_module(const format::ArchiveFile& file, const std::string& part,
                                                 std::vector<std::string>& warnings) {
  const std::string& path = file.file().path();
  const bool own = format::is_training_state(file.root());
  const format::Archive* level = own ? file.root().nested(part) : &file.root();
  if (!level) throw Error(ErrorCode::kNotFound, path, "has no part " + quote(part));
  if (!own && level->find("param_groups") && level->find("pytorch_version")) {
    throw Error(ErrorCode::kMismatch, path, "expected the weights of a module, found an optimizer");
  }
  return bridge::wrap_errors(path, "reading the weights", [&] {
    bridge::ArchiveTensors tensors(file);
    size_t count = 0;
    std::vector<std::string> left_out;
    auto module = std::make_shared<ArchivedModule>(*level, own, tensors, count, left_out);
    if (count == 0) throw Error(ErrorCode::kNotFound, path, "holds no tensors");
    if (!left_out.empty()) {
      warnings.push_back(path + ": left out " + std::to_string(left_out.size()) + " values that are no tensors, " +
                         quote(left_out.front()) + " among them");
    }
    return module;
  });
}

}  // namespace ckpt::training
