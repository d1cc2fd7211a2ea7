#include "ckpt/update_bn.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/training/norm_observer.h"

namespace ckpt {
namespace {

using training::NormStatistics;

/// A module with running statistics.
class Layer {
 public:
  Layer(std::string name, at::Tensor mean, at::Tensor var, at::Tensor count, bool pooled)
      : statistics(pooled), name_(std::move(name)) {
    for (at::Tensor& tensor : {std::ref(mean), std::ref(var), std::ref(count)}) {
      saved_.push_back(tensor.defined() ? tensor.clone() : tensor);
      live_.push_back(std::move(tensor));
    }
  }

  const std::string& name() const { return name_; }
  const at::Tensor& mean() const { return live_[0]; }
  void reset() const {
    live_[0].zero_();
    live_[1].fill_(1);
    if (live_[2].defined()) live_[2].zero_();
  }
  bool is_reset() const {
    return live_[0].eq(0).all().item<bool>() && live_[1].eq(1).all().item<bool>() &&
           (!live_[2].defined() || live_[2].eq(0).all().item<bool>());
  }
  void take(const at::Tensor& mean, const at::Tensor& var) const {
    live_[0].copy_(mean);
    live_[1].copy_(var);
  }
  void put_back() const {
    for (size_t i = 0; i < live_.size(); ++i) {
      if (live_[i].defined()) live_[i].copy_(saved_[i]);
    }
  }

  NormStatistics statistics;

 private:
  std::string name_;
  std::vector<at::Tensor> live_, saved_;  // mean, variance, count of batches (may be undefined)
};

using Layers = std::unordered_map<const void*, Layer>;  // by the memory of the mean

void find_layers(const torch::nn::Module& module, const std::string& path, bool pooled, Layers& layers) {
  const auto buffers = module.named_buffers(/*recurse=*/false);
  const auto buffer = [&](const char* name) {
    const at::Tensor* found = buffers.find(name);
    return found ? found->detach() : at::Tensor();
  };
  const at::Tensor mean = buffer("running_mean"), var = buffer("running_var");
  if (mean.defined() && var.defined() && mean.numel() > 0) {
    layers.try_emplace(mean.data_ptr(), path.empty() ? module.name() : path, mean, var, buffer("num_batches_tracked"),
                       pooled);
  }
  for (const auto& child : module.named_children()) {
    find_layers(*child.value(), path.empty() ? child.key() : path + "." + child.key(), pooled, layers);
  }
}

/// The training mode of each module below one; put back when it ends.
class Modes {
 public:
  explicit Modes(torch::nn::Module& module) : root_(module), mode_(module.is_training()) { remember(module); }
  ~Modes() {
    root_.train(mode_);  // of everything below, too
    for (const auto& [module, mode] : below_) module->train(mode);
  }
  Modes(const Modes&) = delete;
  Modes& operator=(const Modes&) = delete;

 private:
  void remember(const torch::nn::Module& module) {
    for (const auto& child : module.children()) {
      below_.emplace_back(child, child->is_training());
      remember(*child);
    }
  }

  torch::nn::Module& root_;
  const bool mode_;
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> below_;  // parents first
};

[[noreturn]] void fail(ErrorCode code, const std::string& what, std::vector<std::string> lines) {
  std::sort(lines.begin(), lines.end());
  const std::string first = lines.front();
  throw Error(code, "", "update_bn: " + what + ": " + std::to_string(lines.size()) + " layers, the first: " + first,
              {.details = std::move(lines)});
}

/// Writes what was observed; returns of how many layers.
size_t take_statistics(const Layers& layers) {
  std::vector<std::string> unknown, not_finite, unreached;
  std::vector<std::tuple<const Layer*, at::Tensor, at::Tensor>> taken;
  for (const auto& [memory, layer] : layers) {
    if (layer.statistics.empty()) {
      (layer.is_reset() ? unreached : unknown).push_back(quote(layer.name()));
      continue;
    }
    auto [mean, var] = layer.statistics.result();
    if (!mean.isfinite().all().item<bool>() || !var.isfinite().all().item<bool>()) {
      not_finite.push_back(quote(layer.name()));
    }
    taken.emplace_back(&layer, std::move(mean), std::move(var));
  }
  if (!unknown.empty()) fail(ErrorCode::kUnsupported, "statistics changed, but not by batch_norm", std::move(unknown));
  if (!not_finite.empty()) fail(ErrorCode::kInvalid, "statistics are NaN or infinite", std::move(not_finite));
  if (taken.empty()) fail(ErrorCode::kInvalid, "no batch reached", std::move(unreached));
  for (const auto& [layer, mean, var] : taken) layer->take(mean, var);
  for (const auto& [memory, layer] : layers) {
    if (layer.statistics.empty()) layer.put_back();
  }
  return taken.size();
}

}  // namespace

size_t update_bn_during(torch::nn::Module& module, const std::function<void()>& pass, const UpdateBnOptions& options) {
  const at::NoGradGuard no_grad;
  Layers layers;
  find_layers(module, "", options.pooled, layers);
  if (layers.empty()) return 0;
  const Modes modes(module);
  try {
    module.train();
    for (const auto& [memory, layer] : layers) layer.reset();
    {
      training::NormObserver observer([&](const void* mean) {
        const auto found = layers.find(mean);
        return found == layers.end() ? nullptr : &found->second.statistics;
      });
      pass();
      observer.finish();
    }
    return bridge::wrap_errors("", "update_bn", [&] { return take_statistics(layers); });
  } catch (...) {
    for (const auto& [memory, layer] : layers) layer.put_back();
    throw;
  }
}

}  // namespace ckpt
