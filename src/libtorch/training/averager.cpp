#include "ckpt/averager.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/average/average.h"
#include "core/base/log.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/model/model_state_impl.h"
#include "libtorch/training/shadows.h"

namespace ckpt {

DecaySchedule warmed_up(double decay) {
  return [decay](uint64_t updates) {
    const auto n = static_cast<double>(updates);
    return std::min(decay, (1 + n) / (10 + n));
  };
}

Averager::Averager(torch::nn::Module& module, AveragerOptions options)
    : shadows_(bridge::wrap_errors("", "making averages",
                                   [&] { return std::make_shared<Shadows>(module, std::move(options)); })) {}

Averager::~Averager() = default;

AverageReport Averager::average(const std::vector<std::string>& inputs, const std::string& out,
                                const AverageOptions& options) {
  return average::average(inputs, out, options);
}

bool Averager::update() { return shadows_->update(); }
uint64_t Averager::calls() const { return shadows_->calls; }
uint64_t Averager::updates() const { return shadows_->updates; }
const AveragerOptions& Averager::options() const { return shadows_->options(); }

StateDict Averager::state_dict() const {
  return bridge::wrap_errors("", "looking at the averages", [&] {
    StateDict result;
    for (const Shadows::Shadow& one : shadows_->look()) result.emplace_back(one.name, one.average);
    return result;
  });
}

void Averager::copy_to(torch::nn::Module& module) const {
  const StateDict averages = state_dict();
  bridge::wrap_errors("", "copying averages",
                      [&] { model::copy(averages, ckpt::state_dict(module), {.convert_dtype = true}); });
}

Averager::Swapped Averager::swap_in() {
  return bridge::wrap_errors("", "swapping averages in", [&] { return Swapped(shadows_->swap_in()); });
}

Averager::Swapped::Swapped(std::shared_ptr<Saved> saved) : saved_(std::move(saved)) {}
Averager::Swapped::Swapped(Swapped&&) noexcept = default;

Averager::Swapped::~Swapped() {
  try {
    restore();
  } catch (const std::exception& error) {
    log(LogLevel::kError, std::string("Averager: the model keeps the averages: ") + error.what());
  }
}

void Averager::Swapped::restore() {
  if (!saved_) return;
  bridge::wrap_errors("", "giving a model its weights back", [&] {
    const at::NoGradGuard no_grad;
    for (const auto& [live, own] : saved_->values) live.copy_(own);
  });
  saved_->values.clear();
  saved_.reset();
}

}  // namespace ckpt
