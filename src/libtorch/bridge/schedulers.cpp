#include "libtorch/bridge/schedulers.h"

#include <torch/optim/schedulers/step_lr.h>

#include <typeinfo>

#include "ckpt/error.h"
#include "core/base/json.h"
#include "libtorch/bridge/version.h"
#if CKPT_HAS_PLATEAU_SCHEDULER
#include <torch/optim/schedulers/reduce_on_plateau_scheduler.h>
#endif

namespace ckpt::bridge {
namespace {

// The names in an explicit instantiation are not checked for access, so that is where a pointer to a private member can
// be taken; the friend function carries it out.
template <class Tag, auto Member>
struct Expose {
  friend auto member(Tag) { return Member; }
};

#define CKPT_EXPOSE(Tag, Class, Field) \
  struct Tag {                         \
    friend auto member(Tag);           \
  };                                   \
  template struct Expose<Tag, &Class::Field>

CKPT_EXPOSE(StepCount, torch::optim::LRScheduler, step_count_);
CKPT_EXPOSE(StepSize, torch::optim::StepLR, step_size_);
CKPT_EXPOSE(StepGamma, torch::optim::StepLR, gamma_);

#if CKPT_HAS_PLATEAU_SCHEDULER
using Plateau = torch::optim::ReduceLROnPlateauScheduler;
CKPT_EXPOSE(PlateauMode, Plateau, mode);
CKPT_EXPOSE(PlateauFactor, Plateau, factor);
CKPT_EXPOSE(PlateauPatience, Plateau, patience);
CKPT_EXPOSE(PlateauThreshold, Plateau, threshold);
CKPT_EXPOSE(PlateauThresholdMode, Plateau, threshold_mode);
CKPT_EXPOSE(PlateauCooldown, Plateau, cooldown);
CKPT_EXPOSE(PlateauMinLrs, Plateau, min_lrs);
CKPT_EXPOSE(PlateauEps, Plateau, eps);
CKPT_EXPOSE(PlateauCooldownCounter, Plateau, cooldown_counter);
CKPT_EXPOSE(PlateauBest, Plateau, best);
CKPT_EXPOSE(PlateauLastEpoch, Plateau, last_epoch);
CKPT_EXPOSE(PlateauBadEpochs, Plateau, num_bad_epochs);
#endif

#undef CKPT_EXPOSE

}  // namespace

SchedulerState capture_scheduler(torch::optim::LRScheduler& scheduler) {
  if (typeid(scheduler) != typeid(torch::optim::StepLR)) {
    throw Error(ErrorCode::kUnsupported, "",
                std::string("a learning rate scheduler of unknown type ") + typeid(scheduler).name() +
                    ": expected StepLR; add any other with a ckpt::Stateful");
  }
  auto& step = static_cast<torch::optim::StepLR&>(scheduler);
  return {"StepLR",
          {{"step_size", step.*member(StepSize())}, {"gamma", json_number(step.*member(StepGamma()))}},
          {{"step_count", scheduler.*member(StepCount())}}};
}

void restore_scheduler(torch::optim::LRScheduler& scheduler, const nlohmann::json& counters) {
  scheduler.*member(StepCount()) = counters.at("step_count").get<unsigned>();
}

#if CKPT_HAS_PLATEAU_SCHEDULER
SchedulerState capture_scheduler(torch::optim::ReduceLROnPlateauScheduler& scheduler) {
  nlohmann::json min_lrs = nlohmann::json::array();
  for (float lr : scheduler.*member(PlateauMinLrs())) min_lrs.push_back(json_number(lr));
  const auto number = [&](auto field) { return json_number(static_cast<double>(scheduler.*field)); };
  return {"ReduceLROnPlateau",
          {{"mode", scheduler.*member(PlateauMode()) == Plateau::min ? "min" : "max"},
           {"factor", number(member(PlateauFactor()))},
           {"patience", scheduler.*member(PlateauPatience())},
           {"threshold", number(member(PlateauThreshold()))},
           {"threshold_mode", scheduler.*member(PlateauThresholdMode()) == Plateau::rel ? "rel" : "abs"},
           {"cooldown", scheduler.*member(PlateauCooldown())},
           {"min_lrs", min_lrs},
           {"eps", number(member(PlateauEps()))}},
          {{"cooldown_counter", scheduler.*member(PlateauCooldownCounter())},
           {"best", number(member(PlateauBest()))},
           {"last_epoch", scheduler.*member(PlateauLastEpoch())},
           {"num_bad_epochs", scheduler.*member(PlateauBadEpochs())}}};
}

void restore_scheduler(torch::optim::ReduceLROnPlateauScheduler& scheduler, const nlohmann::json& counters) {
  scheduler.*member(PlateauCooldownCounter()) = counters.at("cooldown_counter").get<int>();
  scheduler.*member(PlateauBest()) = static_cast<float>(number_from_json(counters.at("best")).value());
  scheduler.*member(PlateauLastEpoch()) = counters.at("last_epoch").get<int>();
  scheduler.*member(PlateauBadEpochs()) = counters.at("num_bad_epochs").get<int>();
}
#endif

}  // namespace ckpt::bridge
