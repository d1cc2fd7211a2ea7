// The six optimizers that LibTorch has, as Python stores them and as state.pt does: names, kinds, defaults.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>

namespace ckpt::weights {

enum class OptionKind : uint8_t { kNumber, kFlag, kTwoNumbers, kInteger, kIntegerOrNone, kTextOrNone };

/// An option of a parameter group that both sides have, under one name.
struct OptimizerOption {
  const char* name;
  OptionKind kind;
  const char* fallback;  ///< JSON: LibTorch's default
  bool telling = false;  ///< a group of this optimizer has it; together these tell the optimizer
};

/// An option that Python alone has, with the value that makes it do what LibTorch does.
struct PythonOnlyOption {
  const char* name;
  const char* value;  ///< JSON
};

/// A tensor of a parameter's state, of the parameter's shape.
struct StateTensor {
  const char* name;
  /// The option that must be on, or positive, for the optimizer to need it; "": always; nullptr: it does without.
  const char* needed_with;
};

struct OptimizerForm {
  const char* type;  ///< as state.pt has it
  std::span<const OptimizerOption> options;
  std::span<const PythonOnlyOption> python_only;
  std::span<const StateTensor> tensors;  ///< LBFGS: none, its state is of another kind
  bool has_step = false;
  bool is_flat = false;  ///< LBFGS: one state over all parameters
};

/// SGD, Adam, AdamW, RMSprop, Adagrad, LBFGS; nullptr where there is none of that name.
const OptimizerForm* optimizer_form(std::string_view type);
/// The form whose telling options are all there; Adam for AdamW too, whose options are the same. nullptr: none.
const OptimizerForm* form_of_options(const nlohmann::json& options);

/// `value` as an option of this kind is in state.pt; std::nullopt where it is none.
std::optional<nlohmann::json> option_value(OptionKind kind, const nlohmann::json& value);

}  // namespace ckpt::weights
