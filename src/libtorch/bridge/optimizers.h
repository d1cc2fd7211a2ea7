// The state of LibTorch's six optimizers, field by field: LibTorch's own serialization stores parameters by address and
// position, no type, and in 1.13 loses learning rate and momentum.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace torch::optim {
class Optimizer;
}

namespace ckpt::bridge {

/// Per-parameter state. `numbers` is a flat list; lists of tensors (LBFGS) are "old_dirs.0", "old_dirs.1", ..., with
/// their length among the numbers. Undefined tensors are left out.
struct ParameterState {
  at::Tensor parameter;
  std::vector<std::pair<std::string, nlohmann::json>> numbers;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
};

struct ParameterGroup {
  nlohmann::json options;  ///< a flat object; floating numbers as json_number() writes them, betas a list
  std::vector<at::Tensor> parameters;
};

struct OptimizerState {
  const char* type;
  std::vector<ParameterGroup> groups;
  std::vector<ParameterState> parameters;  ///< those that have a state, in the order of the groups
};

/// "SGD", "Adam", ...; Error(kUnsupported) where the optimizer is not exactly one of the six.
const char* optimizer_type(const torch::optim::Optimizer& optimizer);

/// The tensors are the live ones. kInvalid where options or state are not of the optimizer's type.
OptimizerState capture_optimizer(torch::optim::Optimizer& optimizer);

/// LBFGS keeps one state, under its first parameter, of flat vectors over all parameters.
bool is_flat(const char* optimizer_type);
/// Whether a tensor of such a state is as long as all parameters together (the others are scalars).
bool is_flat_field(const std::string& field);

/// New options and state, made aside and swapped in at once.
class OptimizerUpdate {
 public:
  explicit OptimizerUpdate(torch::optim::Optimizer& optimizer);
  ~OptimizerUpdate();
  OptimizerUpdate(OptimizerUpdate&&) noexcept;

  /// Options of a group; returns what does not fit, one line each.
  std::vector<std::string> set_options(size_t group, const nlohmann::json& options);
  /// A parameter's new state; returns what does not fit, one line each.
  std::vector<std::string> set_state(const ParameterState& state);
  /// Leaves a parameter's state as it is (without it, a parameter that set_state() was not called for has none).
  void keep_state(const at::Tensor& parameter);
  /// Swaps all in. Throws nothing but std::bad_alloc.
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ckpt::bridge
