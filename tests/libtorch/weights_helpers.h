// What the tests of ModelState share: files to load, and modules to load them into.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "ckpt/model_state.h"
#include "core/format/safetensors.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/state_helpers.h"

namespace ckpt::test {

inline void write_safetensors(const std::string& path, const StateDict& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  std::vector<torch::Tensor> plain;
  std::vector<format::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) {
    plain.push_back(tensor.detach().contiguous());
    format::TensorToWrite& one = list.emplace_back();
    one.name = name;
    one.dtype = *bridge::dtype_of(tensor.scalar_type());
    one.shape = tensor.sizes().vec();
    one.data = ByteView(static_cast<const std::byte*>(plain.back().data_ptr()), plain.back().nbytes());
  }
  io::replace_file(path, [&](io::BlockWriter& writer) { format::write_safetensors(writer, list, metadata); });
}

/// A module around another, as DataParallel ("module") and torch.compile ("_orig_mod") make it.
struct Wrapper : torch::nn::Module {
  Wrapper(const std::string& name, const std::shared_ptr<torch::nn::Module>& inner) { register_module(name, inner); }
};

/// All parameters and buffers.
inline void fill(torch::nn::Module& module, double value) {
  const torch::NoGradGuard no_grad;
  for (const torch::Tensor& tensor : tensors_of(module)) tensor.fill_(value);
}

}  // namespace ckpt::test
