// The averages of a live module: one tensor for each of its own.
#pragma once

#include <torch/nn/module.h>

#include <string>
#include <utility>
#include <vector>

#include "ckpt/averager.h"

namespace ckpt {

struct Averager::Swapped::Saved {
  std::vector<std::pair<at::Tensor, at::Tensor>> values;  ///< live tensor, its own values; empty: given back
};

class Averager::Shadows {
 public:
  struct Shadow {
    std::string name;
    at::Tensor live;
    at::Tensor average;
    bool is_buffer = false;
    int64_t tied_to = -1;  ///< the first with the same live memory, whose average this is, too
  };

  Shadows(torch::nn::Module& module, AveragerOptions options);

  /// The shadows, with the module as it is now. kMismatch: names or shapes are others; nothing changed then.
  const std::vector<Shadow>& look();
  /// kInvalid while the averages are in the module, which makes `doing` meaningless.
  void check_not_swapped(const char* doing) const;

  bool update();
  std::shared_ptr<Swapped::Saved> swap_in();

  const torch::nn::Module& module() const { return module_; }
  const AveragerOptions& options() const { return options_; }
  bool is_ema() const { return options_.decay || options_.schedule; }
  const char* method() const { return is_ema() ? "ema" : "swa"; }
  /// How many updates there are in so many calls.
  uint64_t updates_in(uint64_t calls) const;

  uint64_t calls = 0;
  uint64_t updates = 0;

 private:
  /// Those of the module as it is now, without averages.
  std::vector<Shadow> live_tensors() const;
  bool is_averaged(const Shadow& shadow) const;
  /// Of the average of its memory: `known` where that fits, else in new memory.
  at::Tensor average_for(const Shadow& shadow, const at::Tensor& known) const;
  double next_weight() const;

  torch::nn::Module& module_;
  const AveragerOptions options_;
  std::vector<Shadow> shadows_;
  std::weak_ptr<Swapped::Saved> swapped_;
};

}  // namespace ckpt
