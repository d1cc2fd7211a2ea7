// Restores a TrainingState: a plan that checks everything, then the reading, then the swaps.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "ckpt/error.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/weights/names.h"
#include "libtorch/bridge/generators.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/bridge/version.h"
#include "libtorch/model/module_tensors.h"
#include "libtorch/training/restore_plan.h"
#include "libtorch/training/snapshot.h"

namespace ckpt::training {
namespace {

using nlohmann::json;

struct StoredPart {
  std::string stored_name;
  std::string name;  // the live one
  std::string kind;
  json entry;  // its description
  const format::Archive* archive;
  bool used = false;
};

using StoredWeights = std::unordered_map<std::string, format::StoredTensor>;  // by live name

bool is_weights(const std::string& kind) { return kind == "module" || kind == "tensors" || kind == "averager"; }

// The stored tensors of a part by live name.
void collect_weights(RestorePlan& plan, const std::string& part, const format::Archive& archive, bool escaped,
                     StoredWeights& weights) {
  std::vector<format::NamedTensor> tensors = format::tensors_of(archive, escaped);
  const size_t prefix = weights::wrapper_prefix(tensors, &format::NamedTensor::name).size();
  for (format::NamedTensor& tensor : tensors) {
    std::string name = plan.selection.live_name(part + "/" + tensor.name.substr(prefix));
    if (!weights.emplace(name, std::move(tensor.stored)).second) {
      throw Error(ErrorCode::kMismatch, plan.path, "two tensors would be loaded as " + quote(name), {.tensor = name});
    }
  }
}

std::string part_of(const std::string& name) { return name.substr(0, name.find('/')); }

std::set<std::string> live_weights(const TrainingState& state) {
  std::set<std::string> parts;
  for (const auto& [name, part] : state.parts().list) {
    if (holds_weights(part)) parts.insert(name);
  }
  return parts;
}

// Sources that no live tensor has the name of; a part that is not live as one.
void report_unexpected(RestorePlan& plan, const std::set<std::string>& parts, const model::Match& found) {
  std::map<std::string, std::string> lines;
  for (const auto& [name, source] : found.unexpected) {
    const std::string part = part_of(name);
    if (parts.count(part)) {
      lines[name] = ckpt::describe(source.dtype, source.shape);
    } else {
      lines[part] = "a part of tensors";
    }
  }
  for (const auto& [name, actual] : lines) plan.findings.unexpected(name, actual);
}

// Matches the live tensors of `parts` with stored ones by name.
void plan_weights(RestorePlan& plan, const std::set<std::string>& parts, const StoredWeights& stored) {
  std::vector<const format::StoredTensor*> tensors;
  model::Sources sources;
  std::set<std::string> stored_parts;
  for (const auto& [name, tensor] : stored) {
    sources.emplace(
        name,
        model::Source{
            .dtype = tensor.dtype, .shape = tensor.shape, .place = {0, tensor.file_offset}, .index = tensors.size()});
    tensors.push_back(&tensor);
    stored_parts.insert(part_of(name));
  }
  const model::MatchRules rules = {.wanted =
                                       [&](const std::string& name) {
                                         return plan.selection.wants_part(part_of(name)) &&
                                                !plan.selection.excludes(name);
                                       },
                                   .same_values =
                                       [&](const model::Source& a, const model::Source& b) {
                                         const io::File& file = plan.file.file();
                                         return bridge::same_values(*tensors[a.index], file, *tensors[b.index], file);
                                       }};
  const model::Match found = model::match(plan.names.all(), std::move(sources), rules, plan.findings);
  for (const auto& [index, live] : found.pairs) plan.weights.push_back({*tensors[index], live});
  std::set<std::string> absent_parts;
  for (const auto* item : found.missing) {
    const std::string part = part_of(item->first);
    if (parts.count(part) && !stored_parts.count(part)) absent_parts.insert(part);
  }
  for (const std::string& part : absent_parts) plan.findings.missing(part, "its tensors");
  for (const auto* item : found.missing) {
    if (stored_parts.count(part_of(item->first)) && parts.count(part_of(item->first))) {
      plan.findings.missing(item->first, bridge::describe(item->second));
    }
  }
  report_unexpected(plan, parts, found);
}

void plan_head(RestorePlan& plan, TrainingState& state, const Fields& head) {
  std::map<std::string, double> metrics;
  const Fields stored_metrics(head.object("metrics"), "metrics", plan.path);
  for (const auto& item : head.object("metrics").items()) metrics[item.key()] = stored_metrics.number(item.key());
  std::optional<double> best;
  if (!head.any("best_metric").is_null()) best = head.number("best_metric");
  const uint64_t epoch = head.u64("epoch");
  const uint64_t iteration = head.u64("iteration");
  plan.report.loaded.push_back(kHeadPart);
  plan.commits.push_back([&state, epoch, iteration, best, metrics, metadata = head.object("metadata")] {
    state.epoch = epoch;
    state.iteration = iteration;
    state.best_metric = best;
    state.metadata = metadata;
    TrainingState::Parts::set_metrics(state, metrics);
  });
}

std::optional<at::Device> generator_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  if (!name.starts_with("cuda") || name.size() < 5 || name.size() > 6) return std::nullopt;
  int index = 0;
  for (char digit : name.substr(4)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    index = index * 10 + (digit - '0');
  }
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

void plan_generators(RestorePlan& plan) {
  const format::Archive* archive = plan.file.root().nested(kRandomPart);
  if (!archive) {
    plan.report.notes.push_back("the file has no states of random number generators");
    return;
  }
  const size_t before = plan.findings.count();
  for (const format::NamedTensor& named : format::tensors_of(*archive, /*escaped=*/true)) {
    const format::StoredTensor& stored = named.stored;
    const auto device = generator_device(named.name);
    const std::string full = std::string(kRandomPart) + "/" + named.name;
    if (!device) {
      plan.findings.unexpected(full, "a generator of that name");
      continue;
    }
    if (!bridge::has_device(*device)) {
      plan.report.notes.push_back(full + ": this machine has no such device; its generator is left out");
      continue;
    }
    const at::Tensor live = bridge::generator_state(*device);
    if (!bridge::same_form(live, stored)) {
      plan.findings.mismatch(full, bridge::describe(live), bridge::describe(stored));
      continue;
    }
    plan.aside.push_back({stored, live});  // a copy of its own
    plan.checks.push_back([&plan, full, device = *device, live] {
      const std::string problem = bridge::check_generator_state(device, live);
      if (!problem.empty()) throw Error(ErrorCode::kCorrupt, plan.path, full + ": " + problem, {.tensor = full});
    });
    plan.commits.push_back([device = *device, live] { bridge::set_generator_state(device, live); });
  }
  if (plan.findings.count() == before) plan.report.loaded.push_back(kRandomPart);
}

struct PartPlanner {
  RestorePlan& plan;
  const std::string& part;
  const format::Archive& archive;
  const json& entry;
  uint64_t iteration;  // of the file

  void operator()(torch::nn::Module*) const {}  // by name, with all weights
  void operator()(const TensorList&) const {}
  void operator()(Averager* averager) const { plan_averager(plan, part, *averager, entry, iteration); }
  void operator()(torch::optim::Optimizer* optimizer) const { plan_optimizer(plan, part, *optimizer, archive); }
  void operator()(torch::optim::LRScheduler* scheduler) const { plan_scheduler(plan, part, *scheduler, archive); }
  void operator()(torch::optim::ReduceLROnPlateauScheduler* scheduler) const {
#if CKPT_HAS_PLATEAU_SCHEDULER
    plan_scheduler(plan, part, *scheduler, archive);
#else
    static_cast<void>(scheduler);  // there is no such object
#endif
  }
  void operator()(EpochSampler* sampler) const { plan_sampler(plan, part, *sampler, archive); }
  void operator()(GradScalerState* scaler) const { plan_scaler(plan, part, *scaler, archive); }
  void operator()(const std::shared_ptr<Stateful>& custom) const { plan_custom(plan, part, custom, archive); }
};

std::vector<StoredPart> stored_parts(const RestorePlan& plan, const Fields& head) {
  std::vector<StoredPart> parts;
  for (const auto& item : head.object("parts").items()) {
    const std::string where = "part " + quote(item.key());
    const std::string kind = Fields(item.value(), where, plan.path).text("kind");
    const format::Archive* archive = plan.file.root().nested(format::escape_name(item.key()));
    if (!archive) throw Error(ErrorCode::kCorrupt, plan.path, where + ": is in the description and not in the archive");
    parts.push_back({item.key(), plan.selection.live_part(item.key()), kind, item.value(), archive});
  }
  return parts;
}

void plan_part(RestorePlan& plan, const std::string& name, const Part& part, std::vector<StoredPart>& stored,
               uint64_t iteration) {
  const auto found =
      std::find_if(stored.begin(), stored.end(), [&](const StoredPart& one) { return one.name == name; });
  if (found != stored.end()) found->used = true;
  if (!plan.selection.wants_part(name) || plan.selection.excludes(name)) return;
  if (found == stored.end()) {
    if (!holds_weights(part)) plan.findings.missing(name, std::string("a part of kind ") + kind_of(part));
  } else if (holds_weights(part) ? !is_weights(found->kind) : found->kind != kind_of(part)) {
    plan.findings.mismatch(name, std::string("a part of kind ") + kind_of(part), "one of kind " + quote(found->kind));
  } else {
    std::visit(PartPlanner{plan, name, *found->archive, found->entry, iteration}, part);
  }
}

void plan_training_state(RestorePlan& plan, TrainingState& state) {
  const format::Archive* head_archive = plan.file.root().nested(kHeadPart);
  if (!head_archive) throw Error(ErrorCode::kCorrupt, plan.path, "part \"ckpt\" is no archive");
  const auto* version = head_archive->get<int64_t>("version");
  if (!version) throw Error(ErrorCode::kCorrupt, plan.path, "part \"ckpt\": has no version");
  if (*version != kStateVersion) {
    throw Error(ErrorCode::kUnsupported, plan.path,
                "state of version " + std::to_string(*version) + ", expected " + std::to_string(kStateVersion));
  }
  const Fields head = description_of(plan, kHeadPart, *head_archive);
  std::vector<StoredPart> stored = stored_parts(plan, head);

  StoredWeights weights;
  for (const StoredPart& part : stored) {
    if (is_weights(part.kind)) collect_weights(plan, part.stored_name, *part.archive, /*escaped=*/true, weights);
  }
  for (const auto& [name, part] : state.parts().list) plan_part(plan, name, part, stored, head.u64("iteration"));
  for (const StoredPart& part : stored) {
    if (part.used || is_weights(part.kind) || plan.selection.excludes(part.name)) continue;
    if (plan.selection.wants_part(part.name)) plan.findings.unexpected(part.name, "a part of kind " + quote(part.kind));
  }
  plan_weights(plan, live_weights(state), weights);
  if (plan.selection.wants_part(kHeadPart)) plan_head(plan, state, head);
  if (plan.selection.wants_part(kRandomPart)) plan_generators(plan);
}

// What torch::save(model, path) wrote is one module.
void plan_plain_module(RestorePlan& plan, const TrainingState& state) {
  std::vector<std::string> candidates;
  for (const auto& [name, part] : state.parts().list) {
    if (holds_weights(part) && !std::holds_alternative<Averager*>(part)) candidates.push_back(name);
  }
  const bool has_model = std::find(candidates.begin(), candidates.end(), "model") != candidates.end();
  if (!has_model && candidates.size() != 1) {
    throw Error(ErrorCode::kMismatch, plan.path,
                "holds one model, expected a part \"model\" or a single module to load it into, found " +
                    std::to_string(candidates.size()) + " modules");
  }
  const std::string part = has_model ? "model" : candidates.front();
  StoredWeights weights;
  collect_weights(plan, part, plan.file.root(), /*escaped=*/false, weights);
  plan_weights(plan, {part}, weights);
}

void check_parts(const TrainingState& state, const LoadOptions& options) {
  const auto& list = state.parts().list;
  for (const std::string& wanted : options.parts) {
    const bool known = wanted == kHeadPart || wanted == kRandomPart ||
                       std::any_of(list.begin(), list.end(), [&](const auto& item) { return item.first == wanted; });
    if (!known) throw Error(ErrorCode::kInvalid, "", "no part is called " + quote(wanted));
  }
}

}  // namespace

LoadReport restore(TrainingState& state, const format::ArchiveFile& file, const LoadOptions& options,
                   unsigned threads) {
  return bridge::wrap_errors(file.file().path(), "restoring the training state", [&] {
    const at::NoGradGuard no_grad;
    RestorePlan plan(file, options);
    check_parts(state, options);
    plan.names = names_of(state);
    if (format::is_training_state(file.root())) {
      plan_training_state(plan, state);
    } else {
      plan_plain_module(plan, state);
    }
    if (plan.selection.strict()) plan.findings.throw_all(plan.path);
    bridge::read_tensors(file.file(), plan.aside, threads);
    for (const auto& check : plan.checks) check();
    bridge::read_tensors(file.file(), plan.weights, threads);
    for (const auto& commit : plan.commits) commit();
    return std::move(plan.report);
  });
}

}  // namespace ckpt::training
