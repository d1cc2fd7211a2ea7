// What the tests of TrainingState share: saving, loading, and comparing to the last bit.
#pragma once

#include <torch/torch.h>

#include <cstring>
#include <string>
#include <vector>

#include "ckpt/error.h"
#include "ckpt/training_state.h"
#include "core/format/archive.h"
#include "core/io/block_writer.h"
#include "libtorch/training/snapshot.h"
#include "support/temp_dir.h"

namespace ckpt::test {

inline void save_state(const TrainingState& state, const std::string& path, StagingBuffer* staging = nullptr) {
  const training::Snapshot snapshot = training::capture(state, staging);
  io::replace_file(path, [&](io::BlockWriter& writer) { snapshot.write(writer); });
}

inline LoadReport load_state(TrainingState& state, const std::string& path, const LoadOptions& options = {}) {
  return training::restore(state, format::ArchiveFile::open(path), options);
}

/// Dtype, shape and every bit.
inline bool identical(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const torch::Tensor x = a.detach().cpu().contiguous(), y = b.detach().cpu().contiguous();
  return a.numel() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

inline std::vector<torch::Tensor> tensors_of(const torch::nn::Module& module) {
  std::vector<torch::Tensor> all = module.parameters();
  for (const torch::Tensor& buffer : module.buffers()) all.push_back(buffer);
  return all;
}

inline bool identical(const torch::nn::Module& a, const torch::nn::Module& b) {
  const auto x = tensors_of(a), y = tensors_of(b);
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!identical(x[i], y[i])) return false;
  }
  return true;
}

inline std::vector<torch::Tensor> copies(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> result;
  for (const torch::Tensor& tensor : tensors) result.push_back(tensor.detach().clone());
  return result;
}

/// Convolution, BatchNorm and Dropout: parameters, buffers (an integer among them) and random numbers.
struct SmallNetImpl : torch::nn::Module {
  explicit SmallNetImpl(int64_t classes = 3) {
    conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 4, 3)));
    norm = register_module("norm", torch::nn::BatchNorm2d(4));
    drop = register_module("drop", torch::nn::Dropout(0.3));
    fc = register_module("fc", torch::nn::Linear(4 * 4 * 4, classes));
  }
  torch::Tensor forward(torch::Tensor x) {
    x = torch::relu(norm(conv(x))).flatten(1);
    return fc(drop(x));
  }
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Dropout drop{nullptr};
  torch::nn::Linear fc{nullptr};
};
TORCH_MODULE(SmallNet);

/// The Error that `body` throws; fails the test where it throws none.
template <class Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "", "nothing was thrown");
}

inline bool mentions(const std::vector<std::string>& lines, const std::string& text) {
  for (const std::string& line : lines) {
    if (line.find(text) != std::string::npos) return true;
  }
  return false;
}

}  // namespace ckpt::test
