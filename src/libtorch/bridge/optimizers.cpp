#include "libtorch/bridge/optimizers.h"

#include <deque>
#include <tuple>
#include <typeinfo>

#include "ckpt/error.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "libtorch/bridge/optimizer_fields.h"
#include "libtorch/bridge/version.h"

namespace ckpt::bridge {
namespace {

using nlohmann::json;
template <class T>
using Optional = torch::optional<T>;

// A scalar field as JSON, and back; from_json gives false where the JSON is of another kind.
json to_json(double value) { return json_number(value); }
json to_json(bool value) { return value; }
json to_json(int64_t value) { return value; }
json to_json(const std::tuple<double, double>& value) {
  return json::array({json_number(std::get<0>(value)), json_number(std::get<1>(value))});
}
json to_json(const Optional<int64_t>& value) { return value ? json(*value) : json(); }
json to_json(const Optional<std::string>& value) { return value ? json(*value) : json(); }

bool from_json(const json& from, double& value) {
  const auto number = number_from_json(from);
  if (number) value = *number;
  return number.has_value();
}
bool from_json(const json& from, bool& value) {
  if (!from.is_boolean()) return false;
  value = from.get<bool>();
  return true;
}
bool from_json(const json& from, int64_t& value) {
  if (!from.is_number_integer()) return false;
  if (from.is_number_unsigned() && from.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
  value = from.get<int64_t>();
  return true;
}
bool from_json(const json& from, std::tuple<double, double>& value) {
  return from.is_array() && from.size() == 2 && from_json(from[0], std::get<0>(value)) &&
         from_json(from[1], std::get<1>(value));
}
bool from_json(const json& from, Optional<int64_t>& value) {
  int64_t number = 0;
  if (!from.is_null() && !from_json(from, number)) return false;
  value = from.is_null() ? Optional<int64_t>() : Optional<int64_t>(number);
  return true;
}
bool from_json(const json& from, Optional<std::string>& value) {
  if (!from.is_null() && !from.is_string()) return false;
  value = from.is_null() ? Optional<std::string>() : Optional<std::string>(from.get<std::string>());
  return true;
}

const char* kind_of(double) { return "a number"; }
const char* kind_of(bool) { return "true or false"; }
const char* kind_of(int64_t) { return "an integer"; }
const char* kind_of(const std::tuple<double, double>&) { return "two numbers"; }
const char* kind_of(const Optional<int64_t>&) { return "an integer or null"; }
const char* kind_of(const Optional<std::string>&) { return "a text or null"; }

std::string wrong_kind(const char* field, const char* expected, const json& actual) {
  return std::string(field) + ": expected " + expected + ", found " + quote(dump_json(actual), 60);
}

// Takes fields out of a captured state.
struct Captor {
  ParameterState& state;

  void operator()(const char* field, at::Tensor& tensor) {
    if (tensor.defined()) state.tensors.emplace_back(field, tensor);
  }
  template <class List>
  void list(const char* field, const List& tensors) {
    state.numbers.emplace_back(field, tensors.size());
    size_t i = 0;
    for (const at::Tensor& tensor : tensors) {
      if (tensor.defined()) state.tensors.emplace_back(field + ("." + std::to_string(i)), tensor);
      ++i;
    }
  }
  void operator()(const char* field, std::deque<at::Tensor>& tensors) { list(field, tensors); }
  void operator()(const char* field, Optional<std::vector<at::Tensor>>& tensors) {
    if (tensors) list(field, *tensors);
  }
  template <class Number>
  void operator()(const char* field, Number& number) {
    state.numbers.emplace_back(field, to_json(number));
  }
};

// Puts fields into a new state.
class Restorer {
 public:
  explicit Restorer(const ParameterState& state) : parameter_(state.parameter) {
    for (const auto& [field, value] : state.numbers) numbers_.emplace(field, &value);
    for (const auto& [field, tensor] : state.tensors) tensors_.emplace(field, tensor);
  }

  void operator()(const char* field, at::Tensor& tensor) {
    if (auto found = tensors_.extract(field)) {
      tensor = std::move(found.mapped());
    } else if (std::string_view(field) == "H_diag" && numbers_.count(field)) {
      double number = 0;  // Python's LBFGS begins with a plain 1
      (*this)(field, number);
      tensor = at::scalar_tensor(number, parameter_.options().requires_grad(false));
    }
  }
  void operator()(const char* field, std::deque<at::Tensor>& tensors) { list(field, tensors); }
  void operator()(const char* field, Optional<std::vector<at::Tensor>>& tensors) {
    if (!numbers_.count(field)) return;
    tensors = std::vector<at::Tensor>();
    list(field, *tensors);
  }
  template <class Number>
  void operator()(const char* field, Number& number) {
    auto found = numbers_.extract(field);
    if (!found) {
      problems_.push_back(std::string(field) + ": expected " + kind_of(number) + ", not in the file");
    } else if (!from_json(*found.mapped(), number)) {
      problems_.push_back(wrong_kind(field, kind_of(number), *found.mapped()));
    }
  }

  // What was not taken is a problem too.
  std::vector<std::string> finish() {
    for (const auto& [field, value] : numbers_) problems_.push_back(quote(field) + ": not expected");
    for (const auto& [field, tensor] : tensors_) problems_.push_back(quote(field) + ": not expected");
    return std::move(problems_);
  }

 private:
  template <class List>
  void list(const char* field, List& tensors) {
    int64_t count = 0;
    (*this)(field, count);
    if (count < 0 || count > kMaxList) {
      problems_.push_back(std::string(field) + ": expected 0 to " + std::to_string(kMaxList) + " tensors, found " +
                          std::to_string(count));
      return;
    }
    tensors.resize(static_cast<size_t>(count));
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (auto found = tensors_.extract(field + ("." + std::to_string(i)))) tensors[i] = std::move(found.mapped());
    }
  }

  static constexpr int64_t kMaxList = 1000000;
  at::Tensor parameter_;
  std::map<std::string, const json*> numbers_;
  std::map<std::string, at::Tensor> tensors_;
  std::vector<std::string> problems_;
};

template <class Options>
Options& options_of(torch::optim::OptimizerParamGroup& group, const char* type) {
  auto* options = group.has_options() ? dynamic_cast<Options*>(&group.options()) : nullptr;
  if (!options) throw Error(ErrorCode::kInvalid, "", std::string(type) + ": a group has options of another type");
  return *options;
}

template <class Options, class State>
OptimizerState capture_as(torch::optim::Optimizer& optimizer, const char* type) {
  OptimizerState result{type, {}, {}};
  for (torch::optim::OptimizerParamGroup& group : optimizer.param_groups()) {
    json options = json::object();
    visit(options_of<Options>(group, type), [&](const char* field, auto& value) { options[field] = to_json(value); });
    for (const at::Tensor& parameter : group.params()) {
      const auto found = optimizer.state().find(state_key(parameter));
      if (found == optimizer.state().end() || !found->second) continue;
      auto* state = dynamic_cast<State*>(found->second.get());
      if (!state) throw Error(ErrorCode::kInvalid, "", std::string(type) + ": a parameter has a state of another type");
      result.parameters.push_back({parameter, {}, {}});
      visit(*state, Captor{result.parameters.back()});
    }
    result.groups.push_back({std::move(options), group.params()});
  }
  return result;
}

}  // namespace

const char* optimizer_type(const torch::optim::Optimizer& optimizer) {
  const char* type = nullptr;
  if (!with_type(optimizer, [&]<class Options, class State>(const char* name) { type = name; })) {
    throw Error(ErrorCode::kUnsupported, "",
                std::string("an optimizer of unknown type ") + typeid(optimizer).name() +
                    ": expected SGD, Adam, AdamW, RMSprop, Adagrad or LBFGS; add any other with a ckpt::Stateful");
  }
  return type;
}

OptimizerState capture_optimizer(torch::optim::Optimizer& optimizer) {
  OptimizerState result{optimizer_type(optimizer), {}, {}};
  with_type(optimizer, [&]<class Options, class State>(const char* name) {
    result = capture_as<Options, State>(optimizer, name);
  });
  return result;
}

bool is_flat(const char* optimizer_type) { return std::string_view(optimizer_type) == "LBFGS"; }

bool is_flat_field(const std::string& field) {
  return field == "d" || field == "prev_flat_grad" || field.starts_with("old_dirs.") || field.starts_with("old_stps.");
}

struct OptimizerUpdate::Impl {
  torch::optim::Optimizer& optimizer;
  std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> options;  // of each group; null: left as they are
  StateMap state;
  std::vector<at::Tensor> kept;
};

OptimizerUpdate::OptimizerUpdate(torch::optim::Optimizer& optimizer)
    : impl_(new Impl{optimizer,
                     std::vector<std::unique_ptr<torch::optim::OptimizerOptions>>(optimizer.param_groups().size()),
                     {},
                     {}}) {}
OptimizerUpdate::~OptimizerUpdate() = default;
OptimizerUpdate::OptimizerUpdate(OptimizerUpdate&&) noexcept = default;

std::vector<std::string> OptimizerUpdate::set_options(size_t group, const json& options) {
  std::vector<std::string> problems;
  with_type(impl_->optimizer, [&]<class Options, class State>(const char* type) {
    auto fresh = std::make_unique<Options>(options_of<Options>(impl_->optimizer.param_groups().at(group), type));
    size_t taken = 0;
    visit(*fresh, [&](const char* field, auto& value) {
      const auto found = options.find(field);
      if (found == options.end()) {
        problems.push_back(std::string(field) + ": expected " + kind_of(value) + ", not in the file");
      } else if (++taken; !from_json(*found, value)) {
        problems.push_back(wrong_kind(field, kind_of(value), *found));
      }
    });
    if (taken != options.size()) {
      json rest = options;
      visit(*fresh, [&](const char* field, auto&) { rest.erase(field); });
      for (const auto& [field, value] : rest.items()) problems.push_back(quote(field) + ": not expected");
    }
    impl_->options[group] = std::move(fresh);
  });
  return problems;
}

std::vector<std::string> OptimizerUpdate::set_state(const ParameterState& state) {
  std::vector<std::string> problems;
  with_type(impl_->optimizer, [&]<class Options, class State>(const char*) {
    auto fresh = std::make_unique<State>();
    Restorer restorer(state);
    visit(*fresh, restorer);
    problems = restorer.finish();
    impl_->state[state_key(state.parameter)] = std::move(fresh);
  });
  return problems;
}

void OptimizerUpdate::keep_state(const at::Tensor& parameter) { impl_->kept.push_back(parameter); }

void OptimizerUpdate::commit() {
  StateMap& live = impl_->optimizer.state();
  for (const at::Tensor& parameter : impl_->kept) {
    const auto found = live.find(state_key(parameter));
    if (found != live.end()) impl_->state[found->first] = std::move(found->second);
  }
  std::swap(live, impl_->state);
  auto& groups = impl_->optimizer.param_groups();
  for (size_t i = 0; i < groups.size(); ++i) {
    if (impl_->options[i]) groups[i].set_options(std::move(impl_->options[i]));
  }
}

}  // namespace ckpt::bridge
