// Plans for an optimizer: its parameters are found by name, whatever their order.
#include <ATen/ATen.h>

#include <unordered_map>
#include <unordered_set>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "libtorch/bridge/optimizers.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/training/restore_plan.h"

namespace ckpt::training {
namespace {

using nlohmann::json;
using StoredFields = std::vector<std::pair<std::string, format::StoredTensor>>;

class OptimizerPlan {
 public:
  OptimizerPlan(RestorePlan& plan, const std::string& part, torch::optim::Optimizer& optimizer,
                const format::Archive& archive)
      : plan_(plan),
        part_(part),
        archive_(archive),
        stored_(description_of(plan, part, archive)),
        live_(bridge::capture_optimizer(optimizer)),
        update_(std::make_shared<bridge::OptimizerUpdate>(optimizer)) {}

  void make() {
    if (!check_type() || !match_groups() || !take_options()) return;
    collect_tensors();
    const bool taken = bridge::is_flat(live_.type) ? take_flat_state() : take_states();
    if (!taken) return;
    plan_.aside.insert(plan_.aside.end(), reads_.begin(), reads_.end());
    plan_.checks.insert(plan_.checks.end(), finishers_.begin(), finishers_.end());
    plan_.report.loaded.push_back(part_);
    plan_.commits.push_back([update = update_] { update->commit(); });
  }

 private:
  bool mismatch(const std::string& expected, const std::string& actual) {
    plan_.findings.mismatch(part_, expected, actual);
    return false;
  }
  [[noreturn]] void corrupt(const std::string& text) const {
    throw Error(ErrorCode::kCorrupt, plan_.path, "part " + quote(part_) + ": " + text);
  }

  bool check_type() {
    const std::string type = stored_.text("type");
    if (type == live_.type) return true;
    if (type != "unknown") return mismatch(std::string("type ") + live_.type, "type " + quote(type));
    plan_.report.notes.push_back("part " + quote(part_) + ": the file does not say the optimizer's type; taken as " +
                                 live_.type);
    return true;
  }

  // The live tensor of a name in the file; undefined where there is none.
  at::Tensor live_tensor(const std::string& stored_name) const {
    return plan_.names.tensor_of(plan_.selection.live_name(stored_name));
  }
  bool excluded(const std::string& stored_name) const {
    return plan_.selection.excludes(plan_.selection.live_name(stored_name));
  }

  std::vector<std::string> stored_parameters(const json& group) const {
    const Fields fields(group, "part " + quote(part_) + ", a group", plan_.path);
    std::vector<std::string> names;
    for (const json& name : fields.array("parameters")) {
      if (!name.is_string()) corrupt("expected names of parameters, found " + quote(name.dump(), 60));
      names.push_back(name.get<std::string>());
    }
    return names;
  }

  bool match_groups() {
    const json& groups = stored_.array("groups");
    if (groups.size() != live_.groups.size()) {
      return mismatch(std::to_string(live_.groups.size()) + " parameter groups", std::to_string(groups.size()));
    }
    bool complete = true;
    for (size_t g = 0; g < groups.size(); ++g) complete &= match_group(g, stored_parameters(groups[g]));
    return complete || (!plan_.selection.strict() && !bridge::is_flat(live_.type));
  }

  bool match_group(size_t g, const std::vector<std::string>& stored) {
    const std::string group = "group " + std::to_string(g);
    const std::vector<at::Tensor>& parameters = live_.groups[g].parameters;
    std::unordered_map<const void*, std::string> open;  // live parameters that the file must have
    std::vector<const std::string*> order;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const std::string& name = parameter_name(plan_.names, parameters[i], part_, g, i);
      order.push_back(&name);
      if (!plan_.selection.excludes(name)) open.emplace(parameters[i].unsafeGetTensorImpl(), name);
    }
    bool fits = true;
    if (stored.size() != parameters.size() && plan_.selection.strict()) {
      fits =
          mismatch(group + " of " + std::to_string(parameters.size()) + " parameters", std::to_string(stored.size()));
    }
    for (const std::string& name : stored) {
      if (excluded(name)) continue;
      const at::Tensor tensor = live_tensor(name);
      if (tensor.defined() && open.erase(tensor.unsafeGetTensorImpl())) {
        taken_.insert(name);
        stored_order_.push_back(tensor);
      } else {
        fits = mismatch(group + " without " + quote(name), "the parameter in it");
      }
    }
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (open.count(parameters[i].unsafeGetTensorImpl())) {
        fits = mismatch(group + " with " + quote(*order[i]), "no such parameter in it");
      }
    }
    return fits;
  }

  bool take_options() {
    bool fits = true;
    const json& groups = stored_.array("groups");
    for (size_t g = 0; g < groups.size(); ++g) {
      const std::string group = "group " + std::to_string(g);
      const Fields fields(groups[g], "part " + quote(part_) + ", " + group, plan_.path);
      for (const std::string& problem : update_->set_options(g, fields.object("options"))) {
        fits = mismatch(group + " with the options of " + live_.type, problem);
      }
    }
    return fits;
  }

  // The archive `state` holds <field>/<name>; here by name.
  void collect_tensors() {
    const format::Archive* state = archive_.nested("state");
    if (!state) return;
    for (const auto& [escaped, value] : state->members) {
      const auto* field = std::get_if<std::shared_ptr<const format::Archive>>(&value);
      if (!field || !*field) continue;
      const std::string field_name = format::unescape_name(escaped);
      for (format::NamedTensor& named : format::tensors_of(**field, /*escaped=*/true)) {
        tensors_[named.name].emplace_back(field_name, std::move(named.stored));
      }
    }
  }

  // A new tensor that `stored` will be read into.
  at::Tensor read_into(const format::StoredTensor& stored, at::Tensor fresh) {
    reads_.push_back({stored, fresh});
    return fresh;
  }

  bridge::ParameterState numbers_of(const json& numbers, const at::Tensor& parameter) const {
    bridge::ParameterState state{parameter, {}, {}};
    if (!numbers.is_object()) corrupt("state: expected an object, found " + quote(numbers.dump(), 60));
    for (const auto& [field, value] : numbers.items()) state.numbers.emplace_back(field, value);
    return state;
  }

  bool take_states() {
    bool fits = true;
    std::unordered_set<const void*> restored;
    const json& states = stored_.object("state");
    for (const auto& [name, tensors] : tensors_) {
      if (!states.contains(name)) corrupt("tensors of " + quote(name) + ", which has no state");
    }
    for (const auto& [name, numbers] : states.items()) {
      if (!taken_.count(name)) continue;  // excluded, or reported with its group
      const at::Tensor parameter = live_tensor(name);
      bridge::ParameterState state = numbers_of(numbers, parameter);
      for (const auto& [field, stored] : tensors_[name]) {
        if (!bridge::same_form(parameter, stored)) {
          fits = mismatch(quote(field) + " of " + quote(name) + " as " + bridge::describe(parameter),
                          bridge::describe(stored));
          continue;
        }
        state.tensors.emplace_back(
            field, read_into(stored, at::empty_like(parameter.detach(), {}, at::MemoryFormat::Preserve)));
      }
      for (const std::string& problem : update_->set_state(state)) {
        fits = mismatch("a state of " + quote(name) + " as " + live_.type + " has it", problem);
      }
      restored.insert(parameter.unsafeGetTensorImpl());
    }
    keep_others(restored);
    return fits;
  }

  // What is excluded or, where not strict, not in the file, stays as it is. A parameter that the file knows without a
  // state has none afterwards either.
  void keep_others(const std::unordered_set<const void*>& restored) {
    std::unordered_set<const void*> known = restored;
    for (const at::Tensor& tensor : stored_order_) known.insert(tensor.unsafeGetTensorImpl());
    for (const bridge::ParameterGroup& group : live_.groups) {
      for (const at::Tensor& parameter : group.parameters) {
        if (!known.count(parameter.unsafeGetTensorImpl())) update_->keep_state(parameter);
      }
    }
  }

  // LBFGS: one state, whose vectors are all parameters in a row.
  bool take_flat_state() {
    const json& states = stored_.object("state");
    if (states.empty()) return true;
    if (states.size() != 1) corrupt("expected one state, found " + std::to_string(states.size()));
    const std::vector<at::Tensor>& order = live_.groups.at(0).parameters;
    if (stored_order_.size() != order.size()) return mismatch("all parameters", "some are excluded");
    int64_t total = 0;
    bool reordered = false;
    for (size_t i = 0; i < order.size(); ++i) {
      total += order[i].numel();
      reordered |= !order[i].is_same(stored_order_[i]);
    }
    const std::string name = states.begin().key();
    bridge::ParameterState state = numbers_of(states.begin().value(), order.at(0));
    bool fits = true;
    for (const auto& [field, stored] : tensors_[name]) {
      const bool flat = bridge::is_flat_field(field);
      at::Tensor like = at::empty({0}, order[0].options().requires_grad(false));
      // LibTorch's LBFGS begins with an integer here.
      if (field == "H_diag" && stored.dtype == DType::kInt64) like = like.to(at::kLong);
      if (bridge::dtype_of(like.scalar_type()) != stored.dtype ||
          (flat ? stored.shape != std::vector{total} : stored.elements != 1)) {
        const std::vector<int64_t> shape = flat ? std::vector{total} : std::vector<int64_t>{};
        fits = mismatch(quote(field) + " as " + ckpt::describe(*bridge::dtype_of(like.scalar_type()), shape),
                        bridge::describe(stored));
        continue;
      }
      const at::Tensor fresh = read_into(stored, at::empty(stored.shape, like.options()));
      state.tensors.emplace_back(field, fresh);
      if (flat && reordered)
        finishers_.push_back(
            [this_order = stored_order_, order, fresh] { fresh.copy_(reorder(fresh, this_order, order)); });
    }
    for (const std::string& problem : update_->set_state(state)) {
      fits = mismatch(std::string("a state as ") + live_.type + " has it", problem);
    }
    return fits;
  }

  static at::Tensor reorder(const at::Tensor& flat, const std::vector<at::Tensor>& from,
                            const std::vector<at::Tensor>& to) {
    std::unordered_map<const void*, int64_t> begins;
    int64_t begin = 0;
    for (const at::Tensor& parameter : from) {
      begins[parameter.unsafeGetTensorImpl()] = begin;
      begin += parameter.numel();
    }
    std::vector<at::Tensor> segments;
    for (const at::Tensor& parameter : to) {
      segments.push_back(flat.narrow(0, begins.at(parameter.unsafeGetTensorImpl()), parameter.numel()));
    }
    return at::cat(segments);
  }

  RestorePlan& plan_;
  const std::string& part_;
  const format::Archive& archive_;
  Fields stored_;
  bridge::OptimizerState live_;
  std::shared_ptr<bridge::OptimizerUpdate> update_;
  std::unordered_set<std::string> taken_;  // names in the file that have a live parameter in the same group
  std::vector<at::Tensor> stored_order_;   // those parameters, in the file's order
  std::unordered_map<std::string, StoredFields> tensors_;
  std::vector<bridge::TensorRead> reads_;
  std::vector<std::function<void()>> finishers_;
};

}  // namespace

void plan_optimizer(RestorePlan& plan, const std::string& part, torch::optim::Optimizer& optimizer,
                    const format::Archive& archive) {
  OptimizerPlan(plan, part, optimizer, archive).make();
}

}  // namespace ckpt::training
