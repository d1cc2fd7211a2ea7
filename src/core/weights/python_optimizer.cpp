#include "core/weights/python_optimizer.h"

#include <algorithm>
#include <array>
#include <set>

#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/weights/python_values.h"

namespace ckpt::weights {
namespace {

using format::PickleNode;
using format::TorchFile;
using format::TorchKind;
using nlohmann::json;

constexpr size_t kMaxGroups = 10'000;
constexpr size_t kMaxKeys = 100;  // of a group, or of a parameter's state
constexpr size_t kMaxHistory = 10'000;

// Options that change nothing here, and what schedulers keep in a group.
constexpr std::array<std::string_view, 7> kSilent{"params",     "param_names",    "foreach",   "fused",
                                                  "capturable", "differentiable", "initial_lr"};

std::string listed(const std::set<std::string>& names) {
  std::string list;
  size_t count = 0;
  for (const std::string& name : names) {
    if (++count > 20) return list + ", ...";
    list += (list.empty() ? "" : ", ") + quote(name, 60);
  }
  return list;
}

class Reader {
 public:
  Reader(const TorchFile& file, size_t max_parameters, std::vector<std::string>& warnings)
      : file_(file), max_parameters_(max_parameters), warnings_(warnings) {}

  PythonOptimizer read(PickleNode node) {
    const PickleNode groups = node == format::kNoNode ? node : member(node, "param_groups");
    const PickleNode states = node == format::kNoNode ? node : member(node, "state");
    if (groups == format::kNoNode || states == format::kNoNode || file_.kind(groups) != TorchKind::kList ||
        file_.kind(states) != TorchKind::kDict) {
      mismatch("expected an optimizer's state_dict, found no \"state\" and \"param_groups\"");
    }
    const auto list = file_.items(groups);
    if (list.empty() || list.size() > kMaxGroups) {
      mismatch("expected 1 to " + std::to_string(kMaxGroups) + " parameter groups, found " +
               std::to_string(list.size()));
    }
    for (size_t i = 0; i < list.size(); ++i) add_group(list[i], "group " + std::to_string(i));
    made_.type = made_.form->type;
    tell_adam();
    if (!left_out_.empty()) {
      warnings_.push_back(std::string("optim_state_dict: left out options that LibTorch's ") + made_.form->type +
                          " has not: " + listed(left_out_));
    }
    add_states(file_.items(states));
    return std::move(made_);
  }

 private:
  [[noreturn]] void fail(ErrorCode code, const std::string& text) const {
    throw Error(code, file_.path(), "optim_state_dict: " + text);
  }
  [[noreturn]] void mismatch(const std::string& text) const { fail(ErrorCode::kMismatch, text); }

  PickleNode member(PickleNode dict, std::string_view name) const {
    return file_.kind(dict) == TorchKind::kDict ? file_.find(dict, name) : format::kNoNode;
  }

  // Key and value of a dict of options or of a state.
  template <class Visit>
  void for_each(PickleNode dict, const std::string& where, Visit visit) const {
    if (file_.kind(dict) != TorchKind::kDict) mismatch(where + ": expected a dict");
    const auto items = file_.items(dict);
    if (items.size() / 2 > kMaxKeys) {
      mismatch(where + ": expected at most " + std::to_string(kMaxKeys) + " keys, found " +
               std::to_string(items.size() / 2));
    }
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (file_.kind(items[i]) != TorchKind::kText) mismatch(where + ": expected texts as keys");
      visit(std::string(file_.pickle().text(items[i]).substr(0, 200)), items[i + 1]);
    }
  }

  void add_group(PickleNode node, const std::string& where) {
    json found = json::object();
    for_each(node, where, [&](const std::string& name, PickleNode value) {
      if (std::find(kSilent.begin(), kSilent.end(), name) == kSilent.end()) found[name] = option(value);
    });
    PythonGroup& group = made_.groups.emplace_back();
    take_options(found, where, group);
    take_parameters(node, where, group);
  }

  /// Discarded where it is no number, text or pair of numbers.
  json option(PickleNode node) const {
    if (file_.kind(node) == TorchKind::kList) {
      json list = json::array();
      const auto items = file_.items(node);
      if (items.size() != 2) return json(json::value_t::discarded);
      for (const PickleNode item : items) list.push_back(python_scalar(file_, item).value_or(json()));
      return list;
    }
    return python_scalar(file_, node).value_or(json(json::value_t::discarded));
  }

  void take_options(const json& found, const std::string& where, PythonGroup& group) {
    const OptimizerForm* form = form_of_options(found);
    if (!form) {
      std::set<std::string> names;
      for (const auto& [name, value] : found.items()) names.insert(name);
      fail(ErrorCode::kUnsupported,
           where + ": expected the options of SGD, Adam, AdamW, RMSprop, Adagrad or LBFGS, found " + listed(names));
    }
    if (made_.form && made_.form != form) mismatch(where + ": options of another optimizer than in group 0");
    made_.form = form;
    group.options = json::object();
    for (const OptimizerOption& known : form->options) {
      const auto given = found.find(known.name);
      if (given == found.end()) {
        group.options[known.name] = json::parse(known.fallback);
        continue;
      }
      auto value = given->is_discarded() ? std::nullopt : option_value(known.kind, *given);
      if (!value) {
        mismatch(where + ": option " + quote(known.name) + " is of a kind that " + form->type + " does not have");
      }
      group.options[known.name] = std::move(*value);
    }
    for (const auto& [name, value] : found.items()) take_other(name, value, where, group);
  }

  void take_other(const std::string& name, const json& value, const std::string& where, const PythonGroup& group) {
    if (group.options.contains(name)) return;
    if (name == "maximize") {
      if (value == true || whole_number(value) == 1) {
        fail(ErrorCode::kUnsupported, where + ": maximize is on, and LibTorch's optimizers only minimise");
      }
    } else if (name == "decoupled_weight_decay" && value.is_boolean()) {
      decoupled_.insert(value.get<bool>());
      ++told_;
    } else {
      left_out_.insert(name);
    }
  }

  // Where all groups say it. Older Python versions do not.
  void tell_adam() {
    if (std::string_view(made_.form->type) != "Adam") return;
    if (decoupled_.size() > 1) {
      fail(ErrorCode::kUnsupported, "weight decay is decoupled (AdamW) in some groups and not in others (Adam)");
    }
    if (told_ != made_.groups.size()) {
      made_.type = "unknown";
    } else if (decoupled_.contains(true)) {
      made_.form = optimizer_form("AdamW");
      made_.type = made_.form->type;
    }
  }

  void take_parameters(PickleNode node, const std::string& where, PythonGroup& group) {
    const PickleNode list = member(node, "params");
    if (list == format::kNoNode || file_.kind(list) != TorchKind::kList) mismatch(where + ": has no list \"params\"");
    for (const PickleNode item : file_.items(list)) {
      if (file_.kind(item) != TorchKind::kInt) mismatch(where + ": expected numbers as \"params\"");
      const int64_t index = file_.pickle().integer(item);
      if (!parameters_.insert(index).second) {
        mismatch(where + ": parameter " + std::to_string(index) + " is there twice");
      }
      if (parameters_.size() > max_parameters_) {
        mismatch("expected at most " + std::to_string(max_parameters_) + " parameters, as the model has, found more");
      }
      group.parameters.push_back(index);
    }
    const PickleNode names = member(node, "param_names");
    if (names == format::kNoNode || file_.kind(names) != TorchKind::kList) return;
    const auto items = file_.items(names);
    if (items.size() != group.parameters.size()) return;
    for (const PickleNode item : items) {
      if (file_.kind(item) != TorchKind::kText) {
        group.names.clear();
        return;
      }
      group.names.emplace_back(file_.pickle().text(item));
    }
  }

  void add_states(std::span<const PickleNode> items) {
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const bool is_index = file_.kind(items[i]) == TorchKind::kInt;
      const int64_t index = is_index ? file_.pickle().integer(items[i]) : -1;
      if (!is_index || !parameters_.contains(index)) mismatch("a state of no parameter of its groups");
      const std::string where = "state of parameter " + std::to_string(index);
      PythonState state;
      for_each(items[i + 1], where,
               [&](const std::string& name, PickleNode value) { add_field(state, name, value, where); });
      // SGD without momentum: fields that are None.
      if (state.tensors.empty() && state.numbers.empty()) continue;
      if (made_.form->is_flat) complete_flat(state, where);
      made_.states.insert_or_assign(index, std::move(state));
    }
    if (!made_.form->is_flat) {
      for (const PythonGroup& group : made_.groups) check_states(group);
    } else if (made_.groups.size() != 1 || made_.states.size() > 1) {
      mismatch("expected one group and at most one state, as LBFGS has, found " + std::to_string(made_.groups.size()) +
               " and " + std::to_string(made_.states.size()));
    }
  }

  void add_field(PythonState& state, const std::string& name, PickleNode value, const std::string& where) {
    if (file_.kind(value) == TorchKind::kNone) return;
    if (made_.form->is_flat) return add_flat_field(state, name, value, where);
    if (made_.form->has_step && name == "step") {
      const auto number = python_scalar(file_, value);
      const auto step = number ? whole_number(*number) : std::nullopt;
      if (!step || *step < 0) mismatch(where + ": expected a count as \"step\"");
      state.numbers["step"] = *step;
      return;
    }
    const auto known = std::any_of(made_.form->tensors.begin(), made_.form->tensors.end(),
                                   [&](const StateTensor& tensor) { return tensor.name == name; });
    if (!known) mismatch(where + ": " + made_.form->type + " has no " + quote(name, 60));
    if (file_.kind(value) != TorchKind::kTensor) mismatch(where + ": expected a tensor as " + quote(name));
    state.tensors.emplace_back(name, file_.tensor(value));
  }

  void check_states(const PythonGroup& group) const {
    for (const int64_t index : group.parameters) {
      const std::string where = "state of parameter " + std::to_string(index) + ": ";
      const auto found = made_.states.find(index);
      if (found == made_.states.end()) {
        // LibTorch's Adagrad makes its states when it is made, and fails where one is not there.
        if (std::string_view(made_.form->type) == "Adagrad") mismatch(where + "expected one, as Adagrad always has");
        continue;
      }
      const PythonState& state = found->second;
      if (made_.form->has_step && !state.numbers.contains("step")) mismatch(where + "has no \"step\"");
      for (const StateTensor& tensor : made_.form->tensors) {
        if (!is_needed(tensor, group.options)) continue;
        const bool there = std::any_of(state.tensors.begin(), state.tensors.end(),
                                       [&](const auto& item) { return item.first == tensor.name; });
        if (!there) mismatch(where + "has no " + quote(tensor.name));
      }
    }
  }

  static bool is_needed(const StateTensor& tensor, const json& options) {
    if (tensor.needed_with == nullptr) return false;
    if (*tensor.needed_with == '\0') return true;
    const json& option = options.at(tensor.needed_with);
    return option.is_boolean() ? option.get<bool>() : number_from_json(option).value_or(0) > 0;
  }

  void add_flat_field(PythonState& state, const std::string& name, PickleNode value, const std::string& where) {
    if (name == "al") return;  // written anew before it is read, in each step
    const TorchKind kind = file_.kind(value);
    if (name == "d" || name == "prev_flat_grad" || (name == "H_diag" && kind == TorchKind::kTensor)) {
      if (kind != TorchKind::kTensor) mismatch(where + ": expected a tensor as " + quote(name));
      state.tensors.emplace_back(name, file_.tensor(value));
    } else if (name == "old_dirs" || name == "old_stps" || name == "ro") {
      if (kind != TorchKind::kList) mismatch(where + ": expected a list as " + quote(name));
      const auto items = file_.items(value);
      if (items.size() > kMaxHistory) mismatch(where + ": " + quote(name) + " is too long");
      state.numbers[name] = items.size();
      for (size_t i = 0; i < items.size(); ++i) {
        if (file_.kind(items[i]) != TorchKind::kTensor) mismatch(where + ": expected tensors in " + quote(name));
        state.tensors.emplace_back(name + "." + std::to_string(i), file_.tensor(items[i]));
      }
    } else if (name == "func_evals" || name == "n_iter" || name == "t" || name == "prev_loss" || name == "H_diag") {
      const auto number = python_scalar(file_, value);
      const bool count = name == "func_evals" || name == "n_iter";
      auto taken = number ? option_value(count ? OptionKind::kInteger : OptionKind::kNumber, *number) : std::nullopt;
      if (!taken || (count && *taken < 0)) mismatch(where + ": expected a number as " + quote(name));
      state.numbers[name] = std::move(*taken);
    } else {
      mismatch(where + ": LBFGS has no " + quote(name, 60));
    }
  }

  // A step that ended at once left only counts behind; LibTorch has its other fields empty then.
  void complete_flat(PythonState& state, const std::string& where) const {
    const auto has = [&](const char* name) {
      return state.numbers.contains(name) || std::any_of(state.tensors.begin(), state.tensors.end(),
                                                         [&](const auto& item) { return item.first == name; });
    };
    if (!has("func_evals") || !has("n_iter")) mismatch(where + ": has no \"func_evals\" and \"n_iter\"");
    const bool begun = state.numbers["n_iter"] != 0;
    for (const char* name : {"d", "t", "prev_flat_grad", "prev_loss", "H_diag", "old_dirs", "old_stps", "ro"}) {
      if (begun && !has(name)) mismatch(where + ": has no " + quote(name));
    }
    for (const char* name : {"t", "prev_loss", "old_dirs", "old_stps", "ro"}) {
      if (!state.numbers.contains(name)) state.numbers[name] = 0;
    }
    const json& count = state.numbers["ro"];
    if (state.numbers["old_dirs"] != count || state.numbers["old_stps"] != count) {
      mismatch(where + ": \"old_dirs\", \"old_stps\" and \"ro\" are of different lengths");
    }
  }

  const TorchFile& file_;
  size_t max_parameters_;
  std::vector<std::string>& warnings_;
  PythonOptimizer made_;
  std::set<int64_t> parameters_;
  std::set<std::string> left_out_;
  std::set<bool> decoupled_;
  size_t told_ = 0;
};

}  // namespace

PythonOptimizer read_python_optimizer(const TorchFile& file, PickleNode node, size_t max_parameters,
                                      std::vector<std::string>& warnings) {
  return Reader(file, max_parameters, warnings).read(node);
}

}  // namespace ckpt::weights
