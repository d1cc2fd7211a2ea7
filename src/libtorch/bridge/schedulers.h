// The state of LibTorch's learning rate schedulers, whose counters are protected or private there.
#pragma once

#include <nlohmann/json.hpp>

namespace torch::optim {
class LRScheduler;
class ReduceLROnPlateauScheduler;
}  // namespace torch::optim

namespace ckpt::bridge {

/// What a scheduler is made of: `hyperparameters` must be the same where it is restored, `counters` are restored. Both
/// are flat objects; a floating number is as json_number() writes it.
struct SchedulerState {
  const char* type;
  nlohmann::json hyperparameters;
  nlohmann::json counters;
};

/// Error(kUnsupported) for what is not exactly StepLR.
SchedulerState capture_scheduler(torch::optim::LRScheduler& scheduler);
/// `counters` has the names, and the kinds of numbers, that capture_scheduler() gives.
void restore_scheduler(torch::optim::LRScheduler& scheduler, const nlohmann::json& counters);

// Defined only where LibTorch has the class.
SchedulerState capture_scheduler(torch::optim::ReduceLROnPlateauScheduler& scheduler);
void restore_scheduler(torch::optim::ReduceLROnPlateauScheduler& scheduler, const nlohmann::json& counters);

}  // namespace ckpt::bridge
