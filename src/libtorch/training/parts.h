// What a TrainingState refers to, and the names of its tensors.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "ckpt/averager.h"
#include "ckpt/stateful.h"
#include "ckpt/training_state.h"
#include "libtorch/training/layout.h"

namespace ckpt {

struct TensorList {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
};

using Part =
    std::variant<torch::nn::Module*, TensorList, Averager*, torch::optim::Optimizer*, torch::optim::LRScheduler*,
                 torch::optim::ReduceLROnPlateauScheduler*, EpochSampler*, GradScalerState*, std::shared_ptr<Stateful>>;

struct TrainingState::Parts {
  std::vector<std::pair<std::string, Part>> list;  // in the order of registration

  void add(const std::string& name, Part part);
  static void set_metrics(TrainingState& state, std::map<std::string, double> metrics);
};

namespace training {

/// "module", "tensors", "optimizer", ...: the kind in state.pt.
const char* kind_of(const Part& part);
bool holds_weights(const Part& part);

/// The tensors of a module, a list or an averager as they are stored, without the prefix of a wrapper. kInvalid while
/// averages are swapped in.
Node weights_tree(const std::string& name, const Part& part);

/// All tensors of the modules, lists and averagers, `<part>/<qualified name>`, in their order.
class NameTable : public ParameterNames {
 public:
  void add(std::string name, const at::Tensor& tensor);
  const std::vector<std::pair<std::string, at::Tensor>>& all() const { return all_; }

  /// nullptr where no registered module holds it.
  const std::string* find(const at::Tensor& tensor) const;
  std::optional<std::string> name_of(const at::Tensor& tensor) const override;
  at::Tensor tensor_of(const std::string& name) const override;

 private:
  std::vector<std::pair<std::string, at::Tensor>> all_;
  std::unordered_map<const void*, size_t> by_tensor_;
  mutable std::unordered_map<std::string, size_t> by_name_;  // filled when first asked for
};

/// Of all modules, lists and averagers of `state`.
NameTable names_of(const TrainingState& state);

/// The first name of a group's parameter; Error(kInvalid) where no registered module holds it.
const std::string& parameter_name(const NameTable& names, const at::Tensor& parameter, const std::string& optimizer,
                                  size_t group, size_t index);

}  // namespace training
}  // namespace ckpt
