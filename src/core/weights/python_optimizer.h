// What optimizer.state_dict() of Python holds, {"state": {index: {field: value}}, "param_groups": [{option: value,
// "params": [index]}]}, with options and numbers as state.pt has them. Parameters are still counted, not named.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/format/torch_file.h"
#include "core/weights/optimizer_forms.h"

namespace ckpt::weights {

struct PythonState {
  nlohmann::json numbers = nlohmann::json::object();
  std::vector<std::pair<std::string, format::StoredTensor>> tensors;  ///< of lists: "old_dirs.0", ...
};

struct PythonGroup {
  nlohmann::json options;  ///< all that the form has
  std::vector<int64_t> parameters;
  /// `param_names`, where the group has them: as many as parameters; views of the file's pickle.
  std::vector<std::string_view> names;
};

struct PythonOptimizer {
  const OptimizerForm* form = nullptr;
  std::string type;  ///< the form's, or "unknown": Adam or AdamW
  std::vector<PythonGroup> groups;
  std::map<int64_t, PythonState> states;  ///< each of a parameter of a group
};

/// `node`: the state_dict. At most `max_parameters` parameters are read: more is kMismatch. kMismatch: no such dict, or
/// states that are not as the optimizer has them; kUnsupported: an optimizer that LibTorch has not, or options that it
/// cannot follow; kCorrupt: tensors that are. `warnings`: options that were left out.
PythonOptimizer read_python_optimizer(const format::TorchFile& file, format::PickleNode node, size_t max_parameters,
                                      std::vector<std::string>& warnings);

/// The name in `model` of each parameter, by group: `param_names` where all groups have them and all are in the model;
/// std::nullopt otherwise.
std::optional<std::vector<std::vector<std::string>>> stored_names(const PythonOptimizer& optimizer,
                                                                  const std::vector<format::NamedTensor>& model);

/// The same from order and shapes, as each group counts parameters in the model's order. kMismatch where they do not
/// fit, or in more than one way.
std::vector<std::vector<std::string>> deduced_names(const PythonOptimizer& optimizer,
                                                    const std::vector<format::NamedTensor>& model,
                                                    const std::string& path);

/// Whether a tensor of a state_dict is a parameter by what can be seen: floating, and no running average of a
/// normalisation layer.
bool may_be_parameter(const format::NamedTensor& tensor);

}  // namespace ckpt::weights
