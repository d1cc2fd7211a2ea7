// A training state as the checkpoint that Python programs of this lineage write.
#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <memory>

#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/format/state_layout.h"
#include "core/weights/optimizer_forms.h"
#include "core/weights/python_checkpoint.h"
#include "core/weights/python_values.h"

namespace ckpt::weights {
namespace {

using format::ArchiveToWrite;
using format::PickleValue;
using format::TensorPlace;
using format::TensorToWrite;
using nlohmann::json;

using Dict = PickleValue::Dict;
using Level = std::shared_ptr<const ArchiveToWrite>;

template <class T>
const T* member(const ArchiveToWrite& level, std::string_view name) {
  for (const auto& [key, value] : level.members) {
    if (key == name) return std::get_if<T>(&value);
  }
  return nullptr;
}

void add(Dict& dict, std::string_view key, PickleValue value) {
  dict.items.emplace_back(PickleValue{std::string(key)}, std::move(value));
}

PickleValue none() { return {PickleValue::None()}; }

/// Goes through all that is below a level, names joined with dots.
struct Walk {
  std::function<void(const std::string& name, TensorPlace tensor)> visit;
  std::function<void(const std::string& path, const ArchiveToWrite& level)> enter = nullptr;
  std::string name = {};  ///< one for all levels

  void go(const ArchiveToWrite& level) {
    if (enter) enter(name, level);
    const size_t above = name.size();
    for (const auto& [escaped, value] : level.members) {
      if (above != 0) name += '.';
      name += format::unescape_name(escaped);
      if (const auto* tensor = std::get_if<TensorPlace>(&value)) {
        visit(name, *tensor);
      } else if (const auto* below = std::get_if<Level>(&value)) {
        go(**below);
      }
      name.resize(above);
    }
  }
};

class Exporter {
 public:
  Exporter(const ArchiveToWrite& state, const std::string& path, std::vector<TensorToWrite>& tensors,
           std::vector<std::string>& warnings)
      : state_(state), path_(path), tensors_(tensors), warnings_(warnings) {}

  PickleValue run() {
    const Level* head = member<Level>(state_, format::kHeadPart);
    if (!head) corrupt("it has no part \"ckpt\"");
    const json description = description_of(**head, format::kHeadPart);
    sort_parts(description);
    Dict top;
    add(top, "iterations", {count(description.at("iteration"))});
    add(top, "epoch", {count(description.at("epoch"))});
    add(top, "model_state_dict", state_dict(**part("model")));
    add(top, "optim_state_dict", optimizer_.empty() ? none() : optimizer(**part(optimizer_)));
    add(top, "best_metric", best_metric(description));
    add(top, "gradient_scaler_state_dict", scaler_.empty() ? PickleValue{Dict()} : scaler());
    if (part("ema")) add(top, "ema_state_dict", state_dict(**part("ema")));
    return {std::move(top)};
  }

 private:
  [[noreturn]] void corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, path_, "no training state: " + what);
  }

  const Level* part(const std::string& name) const { return member<Level>(state_, format::escape_name(name)); }

  json description_of(const ArchiveToWrite& level, const std::string& part) const {
    const auto* text = member<std::string>(level, "description");
    if (!text) corrupt("part " + quote(part) + " has no description");
    return parse_json(*text, path_);
  }

  /// What goes where. Nothing that a run needs is left out.
  void sort_parts(const json& description) {
    std::vector<std::string> no_place;
    for (const auto& [name, value] : description.at("parts").items()) {
      const auto kind = value.at("kind").get<std::string>();
      const bool is_weights = kind == "module" || kind == "tensors" || kind == "averager";
      if (!part(name)) corrupt("part " + quote(name) + " is in its description alone");
      if (is_weights && (name == "model" || name == "ema")) continue;
      std::string* place = kind == "optimizer" ? &optimizer_ : kind == "scaler" ? &scaler_ : nullptr;
      if (place && place->empty()) {
        *place = name;
      } else if (kind == "scheduler" || kind == "sampler") {
        warnings_.push_back("left out " + quote(name) + ": a Python checkpoint holds no " + kind);
      } else {
        no_place.push_back("part " + quote(name) + " of kind " + quote(kind));
      }
    }
    if (!no_place.empty()) {
      const std::string first = no_place.front();
      throw Error(ErrorCode::kUnsupported, path_, "a Python checkpoint has no place for " + first,
                  {.details = std::move(no_place)});
    }
    if (!part("model")) throw Error(ErrorCode::kMismatch, path_, "expected a module \"model\", found none");
    if (part(format::kRandomPart)) warnings_.push_back("left out the states of the random number generators");
    if (!description.at("metadata").empty()) warnings_.push_back("left out the metadata");
    for (const auto& [name, value] : description.at("metrics").items()) {
      if (name != "best_metric") warnings_.push_back("left out the metric " + quote(name));
    }
  }

  PickleValue best_metric(const json& description) const {
    json best = description.at("best_metric");
    const json& metrics = description.at("metrics");
    if (best.is_null() && metrics.contains("best_metric")) best = metrics.at("best_metric");
    if (best.is_null()) return none();
    return {number(best)};
  }

  double number(const json& value) const {
    const auto number = number_from_json(value);
    if (!number) corrupt("expected a number, found " + quote(dump_json(value), 60));
    return *number;
  }

  int64_t whole(const json& value) const {
    const auto number = whole_number(value);
    if (!number) corrupt("expected a whole number, found " + quote(dump_json(value), 60));
    return *number;
  }

  int64_t count(const json& value) const {
    const int64_t number = whole(value);
    if (number < 0) corrupt("expected a count, found " + std::to_string(number));
    return number;
  }

  // ---- weights

  /// `_metadata` holds the version of each module: 1, but for normalisation layers that count their batches.
  PickleValue state_dict(const ArchiveToWrite& module) const {
    Dict weights, metadata;
    weights.ordered = metadata.ordered = true;
    Walk{.visit = [&](const std::string& name,
                      TensorPlace tensor) { add(weights, name, {PickleValue::Tensor{tensor.index}}); },
         .enter =
             [&](const std::string& path, const ArchiveToWrite& level) {
               const bool counts = member<TensorPlace>(level, "num_batches_tracked") != nullptr;
               Dict version;
               add(version, "version", {int64_t{counts ? 2 : 1}});
               add(metadata, path, {std::move(version)});
             }}
        .go(module);
    weights.metadata.push_back({std::move(metadata)});
    return {std::move(weights)};
  }

  // ---- optimizer

  struct State {
    json numbers = json::object();
    std::map<std::string, size_t> tensors;  // by field: its place in tensors_
  };

  PickleValue optimizer(const ArchiveToWrite& part) {
    const json description = description_of(part, optimizer_);
    const auto type = description.at("type").get<std::string>();
    const json& groups = description.at("groups");
    const OptimizerForm* form = optimizer_form(type);
    if (!form && !groups.empty()) form = form_of_options(groups.at(0).at("options"));
    if (!form) corrupt("an optimizer of type " + quote(type));

    std::map<std::string, State> states;
    for (const auto& [name, numbers] : description.at("state").items()) states[name].numbers = numbers;
    const Level* fields = member<Level>(part, "state");
    if (!fields) corrupt("an optimizer without \"state\"");
    for (const auto& [escaped, value] : (*fields)->members) {
      const auto* below = std::get_if<Level>(&value);
      if (!below) continue;
      const std::string field = format::unescape_name(escaped);
      Walk{.visit = [&](const std::string& name, TensorPlace tensor) {
        states[name].tensors[field] = tensor.index;
      }}.go(**below);
    }

    Dict state;
    PickleValue::List list;
    int64_t index = 0;
    for (const json& group : groups) {
      PickleValue::List indices;
      for (const json& name : group.at("parameters")) {
        const auto found = states.find(name.get<std::string>());
        if (found != states.end()) {
          state.items.emplace_back(PickleValue{index},
                                   form->is_flat ? flat_state(found->second) : one_state(*form, found->second));
        }
        indices.items.push_back({index++});
      }
      list.items.push_back(options(*form, type, group.at("options"), std::move(indices)));
    }
    Dict made;
    add(made, "state", {std::move(state)});
    add(made, "param_groups", {std::move(list)});
    return {std::move(made)};
  }

  PickleValue option(OptionKind kind, const json& value) const {
    if (value.is_null()) return none();
    if (kind == OptionKind::kNumber) return {number(value)};
    if (kind == OptionKind::kTwoNumbers) {
      return {PickleValue::Tuple{{{number(value.at(0))}, {number(value.at(1))}}}};
    }
    if (value.is_boolean()) return {value.get<bool>()};
    if (value.is_string()) return {value.get<std::string>()};
    return {whole(value)};
  }

  PickleValue options(const OptimizerForm& form, const std::string& type, const json& values,
                      PickleValue::List indices) const {
    Dict group;
    for (const OptimizerOption& known : form.options) add(group, known.name, option(known.kind, values.at(known.name)));
    for (const PythonOnlyOption& other : form.python_only) {
      add(group, other.name, option(OptionKind::kFlag, json::parse(other.value)));
    }
    // Left out where it is not known: Python's AdamW sets it, and its Adam takes false.
    if (type == "Adam" || type == "AdamW") add(group, "decoupled_weight_decay", {type == "AdamW"});
    add(group, "params", {std::move(indices)});
    return {std::move(group)};
  }

  PickleValue one_state(const OptimizerForm& form, const State& state) {
    Dict fields;
    if (form.has_step) add(fields, "step", {PickleValue::Tensor{step_tensor(state.numbers.at("step"))}});
    for (const StateTensor& tensor : form.tensors) {
      const auto found = state.tensors.find(tensor.name);
      if (found != state.tensors.end()) add(fields, tensor.name, {PickleValue::Tensor{found->second}});
    }
    return {std::move(fields)};
  }

  /// A float32 tensor of no dimensions, as Python has had it since 1.12.
  size_t step_tensor(const json& step) {
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(number(step)));
    TensorToWrite tensor{"step", DType::kFloat32, {}, {}, false, -1};
    tensor.data = format::BytesToWrite(sizeof bits, [bits](const format::ByteSink& sink) {
      std::array<std::byte, sizeof bits> bytes;
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(bits >> (8 * i));
      sink(bytes);
    });
    tensors_.push_back(std::move(tensor));
    return tensors_.size() - 1;
  }

  PickleValue flat_state(const State& state) const {
    Dict fields;
    const auto tensor = [&](const std::string& name) {
      const auto found = state.tensors.find(name);
      return found == state.tensors.end() ? none() : PickleValue{PickleValue::Tensor{found->second}};
    };
    add(fields, "func_evals", {count(state.numbers.at("func_evals"))});
    add(fields, "n_iter", {count(state.numbers.at("n_iter"))});
    if (!state.tensors.contains("d")) return {std::move(fields)};  // its only step ended at once
    add(fields, "d", tensor("d"));
    add(fields, "t", {number(state.numbers.at("t"))});
    for (const char* name : {"old_dirs", "old_stps", "ro"}) {
      PickleValue::List list;
      const auto length = static_cast<uint64_t>(count(state.numbers.at(name)));
      if (length > state.tensors.size()) corrupt("an optimizer's list of " + std::to_string(length) + " tensors");
      for (uint64_t i = 0; i < length; ++i) {
        list.items.push_back(tensor(std::string(name) + "." + std::to_string(i)));
      }
      add(fields, name, {std::move(list)});
    }
    const bool plain = state.numbers.contains("H_diag");
    add(fields, "H_diag", plain ? PickleValue{number(state.numbers.at("H_diag"))} : tensor("H_diag"));
    add(fields, "prev_flat_grad", tensor("prev_flat_grad"));
    add(fields, "prev_loss", {number(state.numbers.at("prev_loss"))});
    return {std::move(fields)};
  }

  PickleValue scaler() const {
    const json stored = description_of(**part(scaler_), scaler_);
    Dict made;
    for (const char* name : {"scale", "growth_factor", "backoff_factor"}) add(made, name, {number(stored.at(name))});
    add(made, "growth_interval", {count(stored.at("growth_interval"))});
    add(made, "_growth_tracker", {count(stored.at("growth_tracker"))});
    return {std::move(made)};
  }

  const ArchiveToWrite& state_;
  const std::string& path_;
  std::vector<TensorToWrite>& tensors_;
  std::vector<std::string>& warnings_;
  std::string optimizer_, scaler_;  // names of the parts
};

}  // namespace

PickleValue python_checkpoint_of(const ArchiveToWrite& state, const std::string& path,
                                 std::vector<TensorToWrite>& tensors, std::vector<std::string>& warnings) {
  try {
    return Exporter(state, path, tensors, warnings).run();
  } catch (const json::exception&) {
    throw Error(ErrorCode::kCorrupt, path, "no training state: a description lacks a field, or it is of another kind");
  }
}

}  // namespace ckpt::weights
