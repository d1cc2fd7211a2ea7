// The extension point of TrainingState: anything with a state that ckpt does not know by itself, such as an optimizer
// or a learning rate scheduler of your own. Derive from Stateful and register it with TrainingState::add_custom().
//
// Parameters change their addresses and their order from run to run, so an optimizer keeps what belongs to a parameter
// under the parameter's name: ParameterNames translates both ways.
//
// Thread rule: all calls come from the thread that saves or loads.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ckpt {

/// The names of all tensors of the registered modules, "model/conv1.weight".
class ParameterNames {
 public:
  virtual ~ParameterNames() = default;
  /// The first qualified name of a tensor; std::nullopt where no registered module holds it.
  virtual std::optional<std::string> name_of(const at::Tensor& tensor) const = 0;
  /// The live tensor of a name (of any of its names, where it has several); undefined where there is none.
  virtual at::Tensor tensor_of(const std::string& name) const = 0;
};

/// What a Stateful hands over and gets back.
struct StatefulValues {
  nlohmann::json values = nlohmann::json::object();
  /// Defined, dense; names are unique and not empty.
  std::vector<std::pair<std::string, at::Tensor>> tensors;
};

class Stateful {
 public:
  virtual ~Stateful() = default;

  /// Stored with the state; a file that holds another type is refused.
  virtual std::string type() const = 0;

  /// Called at each save, on its caller's thread. The tensors are copied after it returns (asynchronous saves) or
  /// referred to until the save is done (synchronous ones).
  virtual StatefulValues capture(const ParameterNames& names) const = 0;

  /// Whether `stored` can be restored: one line for each problem, with what was expected and what is there; empty: it
  /// can. Must change nothing. The tensors are on the device "meta": shape and dtype without data.
  virtual std::vector<std::string> check(const StatefulValues& stored, const ParameterNames& names) const = 0;

  /// Takes the state over; called only after check() found nothing wrong here and in all other parts. The tensors are
  /// on the CPU and belong to the callee. Must not fail.
  virtual void restore(StatefulValues stored, const ParameterNames& names) = 0;
};

}  // namespace ckpt
