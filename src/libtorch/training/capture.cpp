// Captures the values of a TrainingState: first the tree of live tensors, then their copies.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "ckpt/epoch_sampler.h"
#include "ckpt/error.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "libtorch/bridge/generators.h"
#include "libtorch/bridge/optimizers.h"
#include "libtorch/bridge/schedulers.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/bridge/version.h"
#include "libtorch/training/parts.h"
#include "libtorch/training/shadows.h"
#include "libtorch/training/snapshot_impl.h"

namespace ckpt::training {
namespace {

using nlohmann::json;

[[noreturn]] void fail(ErrorCode code, const std::string& part, const std::string& text) {
  throw Error(code, "", "part " + quote(part) + ": " + text);
}

void describe(Node& node, json description) {
  node.texts.push_back({"description", [description = std::move(description)] { return dump_json(description); }});
}

// An optimizer's description: names and numbers are taken now, the JSON is made when it is written.
struct OptimizerDescription {
  struct State {
    std::string name;
    std::vector<std::pair<std::string, json>> numbers;
  };
  const char* type;
  std::vector<std::pair<json, std::vector<std::string>>> groups;
  std::vector<State> states;

  std::string text() const {
    json result = {{"type", type}, {"groups", json::array()}, {"state", json::object()}};
    for (const auto& [options, names] : groups)
      result["groups"].push_back({{"options", options}, {"parameters", names}});
    for (const State& state : states) {
      json& numbers = result["state"][state.name] = json::object();
      for (const auto& [field, value] : state.numbers) numbers[field] = value;
    }
    return dump_json(result);
  }
};

void capture_optimizer(Node& node, const std::string& part, torch::optim::Optimizer& optimizer,
                       const NameTable& names) {
  bridge::OptimizerState state = bridge::capture_optimizer(optimizer);
  OptimizerDescription description{state.type, {}, {}};
  for (size_t g = 0; g < state.groups.size(); ++g) {
    bridge::ParameterGroup& group = state.groups[g];
    std::vector<std::string> parameters;
    parameters.reserve(group.parameters.size());
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      parameters.push_back(parameter_name(names, group.parameters[i], part, g, i));
    }
    description.groups.emplace_back(std::move(group.options), std::move(parameters));
  }
  Node& tensors = node.child("state");
  std::unordered_map<std::string, std::vector<Node::Leaf>*> fields;
  for (bridge::ParameterState& one : state.parameters) {
    const std::string& name = *names.find(one.parameter);
    for (auto& [field, tensor] : one.tensors) {
      auto& leaves = fields[field];
      if (!leaves) leaves = &tensors.child(field).dotted;
      leaves->push_back({name, std::move(tensor), true});
    }
    description.states.push_back({name, std::move(one.numbers)});
  }
  node.texts.push_back({"description", [description = std::move(description)] { return description.text(); }});
}

template <class Scheduler>
void capture_scheduler(Node& node, Scheduler& scheduler) {
  bridge::SchedulerState state = bridge::capture_scheduler(scheduler);
  describe(node, {{"type", state.type},
                  {"hyperparameters", std::move(state.hyperparameters)},
                  {"counters", std::move(state.counters)}});
}

void capture_custom(Node& node, const std::string& part, const Stateful& custom, const NameTable& names) {
  StatefulValues values = custom.capture(names);
  std::unordered_set<std::string> seen;
  Node& tensors = node.child("tensors");
  for (auto& [name, tensor] : values.tensors) {
    const char* reason = bridge::unsupported_reason(tensor);
    if (name.empty() || !is_utf8(name)) reason = "its name is empty or not UTF-8";
    if (!seen.insert(name).second) reason = "two tensors have this name";
    if (reason) fail(ErrorCode::kInvalid, part, "tensor " + quote(name) + ": " + reason);
    tensors.dotted.push_back({name, tensor, true});
  }
  describe(node, {{"type", custom.type()}, {"values", std::move(values.values)}});
}

struct PartCaptor {
  Node& node;
  const std::string& part;
  const NameTable& names;

  void operator()(torch::nn::Module*) const {}  // captured before: all names must be known first
  void operator()(const TensorList&) const {}
  void operator()(Averager*) const {}
  void operator()(torch::optim::Optimizer* optimizer) const { capture_optimizer(node, part, *optimizer, names); }
  void operator()(torch::optim::LRScheduler* scheduler) const { capture_scheduler(node, *scheduler); }
  void operator()(torch::optim::ReduceLROnPlateauScheduler* scheduler) const {
#if CKPT_HAS_PLATEAU_SCHEDULER
    capture_scheduler(node, *scheduler);
#else
    static_cast<void>(scheduler);  // there is no such object
#endif
  }
  void operator()(EpochSampler* sampler) const {
    const EpochPosition position = sampler->position();
    describe(node, {{"size", sampler->size()},
                    {"seed", sampler->seed()},
                    {"shuffle", sampler->shuffle()},
                    {"epoch", position.epoch},
                    {"first", position.first},
                    {"batches", position.batches},
                    {"batch_size", position.batch_size}});
  }
  void operator()(GradScalerState* scaler) const {
    describe(node, {{"scale", json_number(scaler->scale)},
                    {"growth_factor", json_number(scaler->growth_factor)},
                    {"backoff_factor", json_number(scaler->backoff_factor)},
                    {"growth_interval", scaler->growth_interval},
                    {"growth_tracker", scaler->growth_tracker}});
  }
  void operator()(const std::shared_ptr<Stateful>& custom) const { capture_custom(node, part, *custom, names); }
};

json part_entry(const Part& part) {
  json entry = {{"kind", kind_of(part)}};
  if (Averager* const* averager = std::get_if<Averager*>(&part)) {
    const Averager::Shadows& shadows = (*averager)->shadows();
    entry["method"] = shadows.method();
    entry["calls"] = shadows.calls;
    entry["updates"] = shadows.updates;
  }
  return entry;
}

run::CheckpointHead capture_head(Node& node, const TrainingState& state) {
  run::CheckpointHead head;
  head.iteration = state.iteration;
  head.epoch = state.epoch;
  head.metrics = state.metrics();
  head.metadata = state.metadata;
  if (!state.metadata.is_object()) {
    throw Error(ErrorCode::kInvalid, "",
                std::string("metadata: expected a JSON object, found ") + state.metadata.type_name());
  }
  json parts = json::object();
  for (const auto& [name, part] : state.parts().list) parts[name] = part_entry(part);
  json metrics = json::object();
  for (const auto& [name, value] : head.metrics) metrics[name] = json_number(value);
  node.numbers.emplace_back("version", kStateVersion);
  describe(node, {{"parts", std::move(parts)},
                  {"epoch", head.epoch},
                  {"iteration", head.iteration},
                  {"metrics", std::move(metrics)},
                  {"best_metric", state.best_metric ? json_number(*state.best_metric) : json()},
                  {"metadata", head.metadata}});
  return head;
}

void capture_generators(Node& node, const std::set<at::DeviceIndex>& cuda_devices) {
  node.tensors.push_back({"cpu", bridge::generator_state(at::kCPU), true, true});
  for (at::DeviceIndex index : cuda_devices) {
    node.tensors.push_back(
        {"cuda" + std::to_string(index), bridge::generator_state(at::Device(at::kCUDA, index)), true, true});
  }
}

// Copies of the live tensors, each piece of memory once.
class Stager {
 public:
  explicit Stager(StagingBuffer* staging) : staging_(staging) {}

  void add(const std::string& name, Node::Leaf& leaf) {
    if (leaf.owned) return;
    if (const char* reason = bridge::unsupported_reason(leaf.tensor)) {
      throw Error(ErrorCode::kUnsupported, "", "tensor " + quote(name) + ": cannot store " + reason, {.tensor = name});
    }
    Source source{leaf.tensor.detach(), bridge::is_plain(leaf.tensor), 0, {}};
    const void* memory = leaf.tensor.nbytes() == 0 ? nullptr : leaf.tensor.data_ptr();
    size_t index = sources_.size();
    if (memory) {
      std::vector<size_t>& same_place = by_memory_[memory];
      for (size_t other : same_place) {
        if (tied(sources_[other], source)) index = other;
      }
      if (index == sources_.size()) same_place.push_back(index);
    }
    if (index == sources_.size()) {
      if (staging_ && memory) {
        source.offset = bytes_;
        bytes_ += (source.live.nbytes() + kAlignment - 1) / kAlignment * kAlignment;
      }
      sources_.push_back(std::move(source));
    }
    uses_.emplace_back(&leaf, index);
  }

  void copy() {
    std::byte* base = staging_ && bytes_ > 0 ? staging_->reserve(bytes_) : nullptr;
    std::vector<CopyJob> jobs;
    for (Source& source : sources_) {
      const at::Tensor& live = source.live;
      const auto options = live.options().device(at::kCPU);
      if (live.nbytes() == 0) {
        source.copy = at::empty(live.sizes(), options);
      } else if (base) {
        source.copy = at::from_blob(base + source.offset, live.sizes(), options);
        if (source.plain) {
          jobs.push_back({live.data_ptr(), base + source.offset, live.nbytes()});
        } else {
          source.copy.copy_(live);
        }
      } else if (source.plain) {
        // Over the tensor's own bytes: the archive would hold the whole storage of a slice.
        source.copy = at::from_blob(
            live.data_ptr(), live.sizes(), [live](void*) {}, options);
      } else {
        source.copy = at::empty(live.sizes(), options).copy_(live);
      }
    }
    copy_parallel(jobs, default_threads());
    for (auto& [leaf, index] : uses_) {
      // As plain LibTorch stores them: a parameter asks for gradients if the live one does.
      const bool requires_grad = leaf->tensor.requires_grad();
      leaf->tensor = sources_[index].copy.view(leaf->tensor.sizes()).detach();
      if (requires_grad) leaf->tensor.requires_grad_(true);
    }
  }

 private:
  static constexpr uint64_t kAlignment = 64;
  struct Source {
    at::Tensor live;
    bool plain;
    uint64_t offset;
    at::Tensor copy;
  };

  static bool tied(const Source& a, const Source& b) {
    if (a.live.scalar_type() != b.live.scalar_type() || a.live.nbytes() != b.live.nbytes()) return false;
    if (a.plain && b.plain) return true;
    return a.plain == b.plain && a.live.sizes() == b.live.sizes() && a.live.strides() == b.live.strides() &&
           a.live.is_conj() == b.live.is_conj() && a.live.is_neg() == b.live.is_neg();
  }

  StagingBuffer* staging_;
  uint64_t bytes_ = 0;
  std::vector<Source> sources_;
  std::unordered_map<const void*, std::vector<size_t>> by_memory_;
  std::vector<std::pair<Node::Leaf*, size_t>> uses_;
};

}  // namespace

Snapshot capture(const TrainingState& state, StagingBuffer* staging, const CaptureOptions& options) {
  return bridge::wrap_errors("", "capturing the training state", [&] {
    const at::NoGradGuard no_grad;
    auto snapshot = std::make_unique<Snapshot::Impl>();
    snapshot->head = capture_head(snapshot->root.child(kHeadPart), state);
    Node* generators = options.generators ? &snapshot->root.child(kRandomPart) : nullptr;
    const auto& list = state.parts().list;
    std::vector<Node*> nodes;
    NameTable names;
    std::set<at::DeviceIndex> cuda_devices;
    for (const auto& [name, part] : list) {
      Node& node = snapshot->root.child(name);
      nodes.push_back(&node);
      if (!holds_weights(part)) continue;
      node = weights_tree(name, part);
      snapshot->weights.emplace_back(name, &node);
      for_each_tensor(node, name + "/", [&](std::string tensor_name, Node::Leaf& leaf) {
        if (leaf.tensor.is_cuda()) cuda_devices.insert(leaf.tensor.device().index());
        names.add(std::move(tensor_name), leaf.tensor);
      });
    }
    for (size_t i = 0; i < list.size(); ++i) {
      std::visit(PartCaptor{*nodes[i], list[i].first, names}, list[i].second);
    }
    if (generators) capture_generators(*generators, cuda_devices);
    Stager stager(staging);
    for_each_tensor(snapshot->root, "", [&](const std::string& name, Node::Leaf& leaf) { stager.add(name, leaf); });
    stager.copy();
    for_each_tensor(snapshot->root, "", [&](const std::string&, Node::Leaf& leaf) {
      ++snapshot->tensors;
      snapshot->tensor_bytes += leaf.tensor.nbytes();
    });
    return Snapshot(std::move(snapshot));
  });
}

}  // namespace ckpt::training
