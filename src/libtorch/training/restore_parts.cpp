// Plans for schedulers, samplers, scalers and custom parts.
#include <ATen/ATen.h>

#include <algorithm>

#include "ckpt/epoch_sampler.h"
#include "ckpt/error.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "libtorch/bridge/schedulers.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/bridge/version.h"
#include "libtorch/training/restore_plan.h"
#include "libtorch/training/shadows.h"

namespace ckpt::training {

using nlohmann::json;

Fields::Fields(json object, std::string where, const std::string& path)
    : object_(std::move(object)), where_(std::move(where)), path_(path) {
  if (!object_.is_object()) fail("", "an object", object_);
}

void Fields::fail(const std::string& name, const char* expected, const json& actual) const {
  const std::string field = name.empty() ? "" : ": " + quote(name);
  throw Error(ErrorCode::kCorrupt, path_,
              where_ + field + ": expected " + expected + ", found " + quote(dump_json(actual), 60));
}

const json& Fields::any(const std::string& name) const {
  const auto found = object_.find(name);
  if (found == object_.end()) throw Error(ErrorCode::kCorrupt, path_, where_ + ": has no " + quote(name));
  return *found;
}

uint64_t Fields::u64(const std::string& name) const {
  const json& value = any(name);
  if (!value.is_number_unsigned()) fail(name, "a whole number", value);
  return value.get<uint64_t>();
}

int64_t Fields::i64(const std::string& name) const {
  const json& value = any(name);
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (!value.is_number_integer() || too_large) fail(name, "an integer", value);
  return value.get<int64_t>();
}

double Fields::number(const std::string& name) const {
  const auto value = number_from_json(any(name));
  if (!value) fail(name, "a number", any(name));
  return *value;
}

bool Fields::boolean(const std::string& name) const {
  if (!any(name).is_boolean()) fail(name, "true or false", any(name));
  return any(name).get<bool>();
}

std::string Fields::text(const std::string& name) const {
  if (!any(name).is_string()) fail(name, "a text", any(name));
  return any(name).get<std::string>();
}

const json& Fields::object(const std::string& name) const {
  if (!any(name).is_object()) fail(name, "an object", any(name));
  return any(name);
}

const json& Fields::array(const std::string& name) const {
  if (!any(name).is_array()) fail(name, "a list", any(name));
  return any(name);
}

Fields description_of(const RestorePlan& plan, const std::string& part, const format::Archive& archive) {
  const std::string where = "part " + quote(part);
  const auto* text = archive.get<std::string>("description");
  if (!text) throw Error(ErrorCode::kCorrupt, plan.path, where + ": has no description");
  return Fields(parse_json(*text, plan.path), where, plan.path);
}

namespace {

template <class Scheduler>
void plan_any_scheduler(RestorePlan& plan, const std::string& part, Scheduler& scheduler,
                        const format::Archive& archive) {
  const Fields stored = description_of(plan, part, archive);
  const bridge::SchedulerState live = bridge::capture_scheduler(scheduler);
  const size_t before = plan.findings.count();
  const std::string type = stored.text("type");
  if (type != live.type) return plan.findings.mismatch(part, std::string("type ") + live.type, "type " + quote(type));
  const json& hyperparameters = stored.object("hyperparameters");
  for (const auto& [name, value] : live.hyperparameters.items()) {
    const auto found = hyperparameters.find(name);
    const json actual = found == hyperparameters.end() ? json() : *found;
    if (actual != value) plan.findings.mismatch(part, name + " " + dump_json(value), quote(dump_json(actual), 60));
  }
  const Fields counters(stored.object("counters"), "part " + quote(part), plan.path);
  json taken = json::object();
  for (const auto& [name, value] : live.counters.items()) {
    if (value.is_number_integer()) {
      const int64_t count = counters.i64(name);
      if (count < 0 || count > INT32_MAX) {
        plan.findings.mismatch(part, name + " from 0 to 2147483647", std::to_string(count));
      }
      taken[name] = count;
    } else {
      taken[name] = json_number(counters.number(name));
    }
  }
  if (plan.findings.count() != before) return;
  plan.report.loaded.push_back(part);
  plan.commits.push_back([&scheduler, taken = std::move(taken)] { bridge::restore_scheduler(scheduler, taken); });
}

}  // namespace

void plan_scheduler(RestorePlan& plan, const std::string& part, torch::optim::LRScheduler& scheduler,
                    const format::Archive& archive) {
  plan_any_scheduler(plan, part, scheduler, archive);
}

#if CKPT_HAS_PLATEAU_SCHEDULER
void plan_scheduler(RestorePlan& plan, const std::string& part, torch::optim::ReduceLROnPlateauScheduler& scheduler,
                    const format::Archive& archive) {
  plan_any_scheduler(plan, part, scheduler, archive);
}
#endif

void plan_sampler(RestorePlan& plan, const std::string& part, EpochSampler& sampler, const format::Archive& archive) {
  const Fields stored = description_of(plan, part, archive);
  const size_t before = plan.findings.count();
  if (const uint64_t size = stored.u64("size"); size != sampler.size()) {
    plan.findings.mismatch(part, std::to_string(sampler.size()) + " examples", std::to_string(size) + " examples");
  }
  if (const bool shuffle = stored.boolean("shuffle"); shuffle != sampler.shuffle()) {
    const auto text = [](bool on) { return on ? "shuffled" : "not shuffled"; };
    plan.findings.mismatch(part, text(sampler.shuffle()), text(shuffle));
  }
  const uint64_t seed = stored.u64("seed");
  const EpochPosition position = {.epoch = stored.u64("epoch"),
                                  .first = stored.u64("first"),
                                  .batches = stored.u64("batches"),
                                  .batch_size = stored.u64("batch_size")};
  if (plan.findings.count() != before) return;
  plan.report.loaded.push_back(part);
  plan.commits.push_back([&sampler, seed, position] { sampler.restore(seed, position); });
}

void plan_averager(RestorePlan& plan, const std::string& part, Averager& averager, const json& entry,
                   uint64_t iteration) {
  Averager::Shadows& shadows = averager.shadows();
  const Fields stored(entry, "part " + quote(part), plan.path);
  uint64_t calls = iteration, updates = std::max<uint64_t>(1, shadows.updates_in(iteration));
  if (stored.text("kind") == kind_of(&averager)) {
    if (const std::string method = stored.text("method"); method != shadows.method()) {
      return plan.findings.mismatch(part, std::string("an average by ") + shadows.method(), "one by " + quote(method));
    }
    calls = stored.u64("calls");
    updates = stored.u64("updates");
    if (updates > calls) {
      throw Error(
          ErrorCode::kCorrupt, plan.path,
          "part " + quote(part) + ": " + std::to_string(updates) + " updates in " + std::to_string(calls) + " calls");
    }
  } else {
    plan.report.notes.push_back(part + ": a plain module in the file, taken as the average of " +
                                std::to_string(updates) + " updates (iteration " + std::to_string(iteration) + ")");
  }
  plan.commits.push_back([&shadows, calls, updates] {
    shadows.calls = calls;
    shadows.updates = updates;
  });
}

void plan_scaler(RestorePlan& plan, const std::string& part, GradScalerState& scaler, const format::Archive& archive) {
  const Fields stored = description_of(plan, part, archive);
  const GradScalerState taken = {.scale = stored.number("scale"),
                                 .growth_factor = stored.number("growth_factor"),
                                 .backoff_factor = stored.number("backoff_factor"),
                                 .growth_interval = stored.i64("growth_interval"),
                                 .growth_tracker = stored.i64("growth_tracker")};
  plan.report.loaded.push_back(part);
  plan.commits.push_back([&scaler, taken] { scaler = taken; });
}

void plan_custom(RestorePlan& plan, const std::string& part, const std::shared_ptr<Stateful>& custom,
                 const format::Archive& archive) {
  const Fields stored = description_of(plan, part, archive);
  const std::string type = stored.text("type");
  if (type != custom->type()) {
    return plan.findings.mismatch(part, "type " + quote(custom->type()), "type " + quote(type));
  }
  const auto values = std::make_shared<StatefulValues>();
  values->values = stored.any("values");
  StatefulValues shapes{values->values, {}};
  std::vector<bridge::TensorRead> reads;
  if (const format::Archive* tensors = archive.nested("tensors")) {
    for (const format::NamedTensor& named : format::tensors_of(*tensors, /*escaped=*/true)) {
      const format::StoredTensor& tensor = named.stored;
      const auto dtype = bridge::scalar_type_of(tensor.dtype);
      if (!dtype) {
        throw Error(ErrorCode::kUnsupported, plan.path,
                    "part " + quote(part) + ": this LibTorch has no " + bridge::describe(tensor),
                    {.tensor = named.name});
      }
      shapes.tensors.emplace_back(named.name, at::empty(tensor.shape, at::TensorOptions(*dtype).device(at::kMeta)));
      values->tensors.emplace_back(named.name, at::Tensor());
      reads.push_back({tensor, {}});
    }
  }
  const std::vector<std::string> problems = custom->check(shapes, plan.names);
  for (const std::string& problem : problems) {
    plan.findings.mismatch(part, "a state that can be restored", problem);
  }
  if (!problems.empty()) return;
  for (size_t i = 0; i < reads.size(); ++i) {
    reads[i].live = at::empty(reads[i].stored.shape, shapes.tensors[i].second.options().device(at::kCPU));
    values->tensors[i].second = reads[i].live;
    plan.aside.push_back(reads[i]);
  }
  plan.report.loaded.push_back(part);
  plan.commits.push_back([&plan, custom, values] { custom->restore(std::move(*values), plan.names); });
}

}  // namespace ckpt::training
