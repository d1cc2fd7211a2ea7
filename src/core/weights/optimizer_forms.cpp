#include "core/weights/optimizer_forms.h"

#include <algorithm>
#include <array>

#include "core/base/json.h"
#include "core/weights/python_values.h"

namespace ckpt::weights {
namespace {

using Option = OptimizerOption;
using enum OptionKind;
using nlohmann::json;

constexpr std::array<Option, 5> kSgd{{{"lr", kNumber, "0.001", true},
                                      {"momentum", kNumber, "0", true},
                                      {"dampening", kNumber, "0", true},
                                      {"weight_decay", kNumber, "0"},
                                      {"nesterov", kFlag, "false", true}}};
constexpr std::array<Option, 5> kAdam{{{"lr", kNumber, "0.001", true},
                                       {"betas", kTwoNumbers, "[0.9, 0.999]", true},
                                       {"eps", kNumber, "1e-8"},
                                       {"weight_decay", kNumber, "0"},
                                       {"amsgrad", kFlag, "false", true}}};
constexpr std::array<Option, 6> kRmsprop{{{"lr", kNumber, "0.01", true},
                                          {"alpha", kNumber, "0.99", true},
                                          {"eps", kNumber, "1e-8"},
                                          {"weight_decay", kNumber, "0"},
                                          {"momentum", kNumber, "0"},
                                          {"centered", kFlag, "false", true}}};
constexpr std::array<Option, 5> kAdagrad{{{"lr", kNumber, "0.01", true},
                                          {"lr_decay", kNumber, "0", true},
                                          {"weight_decay", kNumber, "0"},
                                          {"initial_accumulator_value", kNumber, "0", true},
                                          {"eps", kNumber, "1e-10"}}};
constexpr std::array<Option, 7> kLbfgs{{{"lr", kNumber, "1", true},
                                        {"max_iter", kInteger, "20", true},
                                        {"max_eval", kIntegerOrNone, "null"},
                                        {"tolerance_grad", kNumber, "1e-7"},
                                        {"tolerance_change", kNumber, "1e-9"},
                                        {"history_size", kInteger, "100", true},
                                        {"line_search_fn", kTextOrNone, "null"}}};

constexpr std::array<PythonOnlyOption, 4> kSgdExtra{
    {{"maximize", "false"}, {"foreach", "null"}, {"differentiable", "false"}, {"fused", "null"}}};
constexpr std::array<PythonOnlyOption, 5> kAdamExtra{{{"maximize", "false"},
                                                      {"foreach", "null"},
                                                      {"capturable", "false"},
                                                      {"differentiable", "false"},
                                                      {"fused", "null"}}};
constexpr std::array<PythonOnlyOption, 4> kRmspropExtra{
    {{"capturable", "false"}, {"foreach", "null"}, {"maximize", "false"}, {"differentiable", "false"}}};
constexpr std::array<PythonOnlyOption, 4> kAdagradExtra{
    {{"foreach", "null"}, {"maximize", "false"}, {"differentiable", "false"}, {"fused", "null"}}};

constexpr std::array<StateTensor, 1> kSgdState{{{"momentum_buffer", nullptr}}};
constexpr std::array<StateTensor, 3> kAdamState{{{"exp_avg", ""}, {"exp_avg_sq", ""}, {"max_exp_avg_sq", "amsgrad"}}};
constexpr std::array<StateTensor, 3> kRmspropState{
    {{"square_avg", ""}, {"momentum_buffer", "momentum"}, {"grad_avg", "centered"}}};
constexpr std::array<StateTensor, 1> kAdagradState{{{"sum", ""}}};

constexpr std::array<OptimizerForm, 6> kForms{{{"SGD", kSgd, kSgdExtra, kSgdState},
                                               {"Adam", kAdam, kAdamExtra, kAdamState, true},
                                               {"AdamW", kAdam, kAdamExtra, kAdamState, true},
                                               {"RMSprop", kRmsprop, kRmspropExtra, kRmspropState, true},
                                               {"Adagrad", kAdagrad, kAdagradExtra, kAdagradState, true},
                                               {"LBFGS", kLbfgs, {}, {}, false, true}}};

}  // namespace

const OptimizerForm* optimizer_form(std::string_view type) {
  const auto* found = std::find_if(kForms.begin(), kForms.end(), [&](const auto& form) { return form.type == type; });
  return found == kForms.end() ? nullptr : found;
}

const OptimizerForm* form_of_options(const json& options) {
  const auto* found = std::find_if(kForms.begin(), kForms.end(), [&](const OptimizerForm& form) {
    return std::all_of(form.options.begin(), form.options.end(),
                       [&](const Option& option) { return !option.telling || options.contains(option.name); });
  });
  return found == kForms.end() ? nullptr : found;
}

std::optional<json> option_value(OptionKind kind, const json& value) {
  switch (kind) {
    case kNumber: {
      if (value.is_boolean()) return std::nullopt;
      const auto number = number_from_json(value);
      return number ? std::optional<json>(json_number(*number)) : std::nullopt;
    }
    case kFlag: {
      if (value.is_boolean()) return value;
      const auto number = whole_number(value);
      return number == 0 || number == 1 ? std::optional<json>(*number == 1) : std::nullopt;
    }
    case kTwoNumbers: {
      if (!value.is_array() || value.size() != 2) return std::nullopt;
      const auto first = option_value(kNumber, value[0]), second = option_value(kNumber, value[1]);
      return first && second ? std::optional<json>(json::array({*first, *second})) : std::nullopt;
    }
    case kIntegerOrNone:
      if (value.is_null()) return value;
      [[fallthrough]];
    case kInteger: {
      const auto number = whole_number(value);
      return number ? std::optional<json>(*number) : std::nullopt;
    }
    case kTextOrNone:
      return value.is_null() || value.is_string() ? std::optional<json>(value) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace ckpt::weights
