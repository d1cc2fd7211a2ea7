#include "ckpt/training_state.h"

#include <algorithm>
#include <unordered_set>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "libtorch/bridge/optimizers.h"
#include "libtorch/bridge/schedulers.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/bridge/version.h"
#include "libtorch/training/parts.h"

namespace ckpt {
namespace {

// Puts the part's name in front of what another function found wrong.
template <class Body>
void for_part(const std::string& name, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    throw Error(error.code(), "", "part " + quote(name) + ": " + error.message());
  }
}

}  // namespace

TrainingState::TrainingState() : parts_(new Parts) {}
TrainingState::~TrainingState() = default;
TrainingState::TrainingState(TrainingState&&) noexcept = default;
TrainingState& TrainingState::operator=(TrainingState&&) noexcept = default;

void TrainingState::Parts::add(const std::string& name, Part part) {
  const auto fail = [&](const char* reason) {
    throw Error(ErrorCode::kInvalid, "", "a part cannot be called " + quote(name) + ": " + reason);
  };
  if (name.empty() || !is_utf8(name)) fail("expected a name in UTF-8");
  if (name.find('/') != std::string::npos) fail("'/' divides the part from the names in it");
  if (name == training::kHeadPart || name == training::kRandomPart) fail("the name is reserved");
  if (std::any_of(list.begin(), list.end(), [&](const auto& other) { return other.first == name; })) {
    fail("another part has the name");
  }
  list.emplace_back(name, std::move(part));
}

void TrainingState::Parts::set_metrics(TrainingState& state, std::map<std::string, double> metrics) {
  state.metrics_ = std::move(metrics);
  state.metrics_iteration_ = state.iteration;
}

TrainingState& TrainingState::add_module(const std::string& name, torch::nn::Module& module) {
  parts_->add(name, &module);
  return *this;
}

TrainingState& TrainingState::add_tensors(const std::string& name,
                                          const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::unordered_set<std::string> seen;
  for (const auto& [tensor_name, tensor] : tensors) {
    std::string problem;
    if (!is_utf8(tensor_name)) problem = "its name is not UTF-8";
    if (!seen.insert(tensor_name).second) problem = "two tensors have this name";
    if (const char* reason = bridge::unsupported_reason(tensor)) problem = reason;
    if (!problem.empty()) {
      throw Error(ErrorCode::kInvalid, "", "part " + quote(name) + ": tensor " + quote(tensor_name) + ": " + problem);
    }
  }
  parts_->add(name, TensorList{tensors});
  return *this;
}

TrainingState& TrainingState::add_averager(const std::string& name, Averager& averager) {
  parts_->add(name, &averager);
  return *this;
}

TrainingState& TrainingState::add_optimizer(const std::string& name, torch::optim::Optimizer& optimizer) {
  for_part(name, [&] { bridge::optimizer_type(optimizer); });
  parts_->add(name, &optimizer);
  return *this;
}

TrainingState& TrainingState::add_scheduler(const std::string& name, torch::optim::LRScheduler& scheduler) {
  for_part(name, [&] { bridge::capture_scheduler(scheduler); });
  parts_->add(name, &scheduler);
  return *this;
}

#if CKPT_HAS_PLATEAU_SCHEDULER
TrainingState& TrainingState::add_scheduler(const std::string& name,
                                            torch::optim::ReduceLROnPlateauScheduler& scheduler) {
  parts_->add(name, &scheduler);
  return *this;
}
#endif

TrainingState& TrainingState::add_sampler(const std::string& name, EpochSampler& sampler) {
  parts_->add(name, &sampler);
  return *this;
}

TrainingState& TrainingState::add_scaler(const std::string& name, GradScalerState& scaler) {
  parts_->add(name, &scaler);
  return *this;
}

TrainingState& TrainingState::add_custom(const std::string& name, std::shared_ptr<Stateful> custom) {
  if (!custom) throw Error(ErrorCode::kInvalid, "", "part " + quote(name) + ": expected an object, found null");
  parts_->add(name, std::move(custom));
  return *this;
}

void TrainingState::set_metric(const std::string& name, double value) {
  if (metrics_iteration_ != iteration) metrics_.clear();
  metrics_iteration_ = iteration;
  metrics_[name] = value;
}

std::map<std::string, double> TrainingState::metrics() const {
  return metrics_iteration_ == iteration ? metrics_ : std::map<std::string, double>();
}

}  // namespace ckpt
