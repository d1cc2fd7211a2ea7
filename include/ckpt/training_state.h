// Everything that a training run needs to go on as if nothing had happened: references to the live objects, and the
// numbers of the run itself.
//
//   ckpt::TrainingState state;
//   state.add_module("model", *model).add_averager("ema", ema)
//        .add_optimizer("optimizer", optimizer).add_scheduler("schedule", schedule).add_sampler("data", sampler);
//
// A CheckpointManager captures and restores it. The file, state.pt, is an archive of torch::serialize with one nested
// archive for each part, so plain LibTorch reads a module from it:
//   torch::serialize::InputArchive file, part;
//   file.load_from("state.pt"); file.read("model", part); model->load(part);
//
// Objects are referred to, not owned: they outlive the TrainingState or at least its last save or load. What is added
// may still change (parameters frozen, groups added): it is looked at anew at each save and load.
//
// Names of parts are unique over all kinds, UTF-8, not empty and without "/"; "ckpt" and "rng" are reserved. Breaking this is
// Error(kInvalid), with the state as it was before the call.
//
// Always captured beside the parts: the CPU's random number generator and those of the CUDA devices in use.
//
// Thread rule: one thread at a time, and no training step while a save captures or a load restores.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ckpt/grad_scaler_state.h"
#include "ckpt/load_report.h"

namespace at {
class Tensor;
}
namespace torch::nn {
class Module;
}
namespace torch::optim {
class Optimizer;
class LRScheduler;
class ReduceLROnPlateauScheduler;
}  // namespace torch::optim

namespace ckpt {

class Averager;
class EpochSampler;
class Stateful;

class TrainingState {
 public:
  TrainingState();
  ~TrainingState();
  TrainingState(TrainingState&&) noexcept;
  TrainingState& operator=(TrainingState&&) noexcept;

  /// Parameters and buffers by qualified name. Where all names begin with "module." or "_orig_mod." (a wrapped model),
  /// that is left out, in the file and when loading.
  TrainingState& add_module(const std::string& name, torch::nn::Module& module);

  /// Tensors that no torch::nn::Module holds: the parameters of a torch::jit::Module, shadow weights. Dots in names
  /// make levels. The tensors are shared: loading writes into them.
  TrainingState& add_tensors(const std::string& name, const std::vector<std::pair<std::string, at::Tensor>>& tensors);

  /// An EMA or SWA of a module: the averages, stored as a module's tensors are (called "ema", `ckpt load --part ema` and
  /// OpenOptions::ema find them), and its counts. Options are not stored: a file with an EMA does not fit a SWA, and
  /// decay and steps are those that the live one was made with. A plain module in the file fits, too: its values then
  /// count as the average after one call of update() for each iteration so far, which the report notes. While averages
  /// are swapped in, saving and loading are Error(kInvalid).
  TrainingState& add_averager(const std::string& name, Averager& averager);

  /// SGD, Adam, AdamW, RMSprop, Adagrad or LBFGS, with all options and all state, by the names of the parameters: each
  /// must be in a module (or among the tensors) of this state when it is captured, else Error(kInvalid) names
  /// optimizer, group and index. kUnsupported for any other type: write a Stateful for it.
  TrainingState& add_optimizer(const std::string& name, torch::optim::Optimizer& optimizer);

  /// StepLR. kUnsupported for any other type: write a Stateful for it. Counters are restored; hyperparameters are
  /// compared, and differing ones are a mismatch.
  TrainingState& add_scheduler(const std::string& name, torch::optim::LRScheduler& scheduler);
  /// Where LibTorch has it (2.0 and newer).
  TrainingState& add_scheduler(const std::string& name, torch::optim::ReduceLROnPlateauScheduler& scheduler);

  /// Seed and position are restored; size and shuffling are compared.
  TrainingState& add_sampler(const std::string& name, EpochSampler& sampler);

  TrainingState& add_scaler(const std::string& name, GradScalerState& scaler);

  /// Anything else, by an adapter that this state keeps.
  TrainingState& add_custom(const std::string& name, std::shared_ptr<Stateful> custom);

  /// A metric of the present `iteration`: a save at a later iteration does not carry it.
  void set_metric(const std::string& name, double value);
  /// The metrics of the present `iteration`.
  std::map<std::string, double> metrics() const;

  uint64_t epoch = 0;
  uint64_t iteration = 0;
  std::optional<double> best_metric;
  /// A JSON object of the user's, stored as it is.
  nlohmann::json metadata = nlohmann::json::object();

  /// The parts, for the library's own use.
  struct Parts;
  const Parts& parts() const { return *parts_; }

 private:
  std::unique_ptr<Parts> parts_;
  std::map<std::string, double> metrics_;
  uint64_t metrics_iteration_ = 0;
};

}  // namespace ckpt
