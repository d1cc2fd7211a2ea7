// Which parameter of the model is which number of Python's optimizer.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <unordered_map>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/weights/python_optimizer.h"

namespace ckpt::weights {
namespace {

using format::NamedTensor;
using Shape = std::vector<int64_t>;
using Names = std::vector<std::vector<std::string>>;

/// What nn.Module.parameters() gives, as far as a state_dict shows it: each tensor once.
std::vector<const NamedTensor*> parameters_of(const std::vector<NamedTensor>& model) {
  std::set<std::pair<uint64_t, Shape>> seen;
  std::vector<const NamedTensor*> parameters;
  for (const NamedTensor& named : model) {
    if (!may_be_parameter(named)) continue;
    if (named.stored.elements != 0 && !seen.emplace(named.stored.file_offset, named.stored.shape).second) continue;
    parameters.push_back(&named);
  }
  return parameters;
}

class Deduction {
 public:
  Deduction(const PythonOptimizer& optimizer, const std::vector<NamedTensor>& model, const std::string& path)
      : optimizer_(optimizer), parameters_(parameters_of(model)), path_(path) {
    for (const PythonGroup& group : optimizer.groups) {
      for (const int64_t index : group.parameters) counted_.push_back({index, shape_of(index)});
    }
  }

  Names run() {
    if (counted_.size() > parameters_.size()) {
      fail("expected at most " + std::to_string(parameters_.size()) + " parameters as the model has, found " +
           std::to_string(counted_.size()));
    }
    if (optimizer_.form->is_flat) return flat();
    if (optimizer_.groups.size() == 1 ? in_order() : by_shape()) return names();
    fail_unclear();
  }

 private:
  struct Counted {
    int64_t index;
    const Shape* shape;  ///< nullptr: it has no state that shows it
  };

  const Shape* shape_of(int64_t index) const {
    const auto found = optimizer_.states.find(index);
    if (found == optimizer_.states.end() || found->second.tensors.empty()) return nullptr;
    return &found->second.tensors.front().second.shape;
  }

  bool fits(size_t counted, size_t parameter) const {
    return !counted_[counted].shape || *counted_[counted].shape == parameters_[parameter]->stored.shape;
  }

  // One after the other in the model's order, some of the model's left out; the earliest way and the latest way are
  // one.
  bool in_order() {
    std::vector<size_t> latest(counted_.size());
    chosen_.clear();
    for (size_t parameter = 0; parameter < parameters_.size() && chosen_.size() < counted_.size(); ++parameter) {
      if (fits(chosen_.size(), parameter)) chosen_.push_back(parameter);
    }
    if (chosen_.size() < counted_.size()) return false;
    size_t left = counted_.size();
    for (size_t parameter = parameters_.size(); parameter-- > 0 && left > 0;) {
      if (fits(left - 1, parameter)) latest[--left] = parameter;
    }
    return chosen_ == latest;
  }

  // Groups take what they like from the model, each in its order. Where each shape is in one group alone (weights with
  // decay, biases without it) there is one way.
  bool by_shape() {
    struct Places {
      size_t group = 0;
      std::vector<size_t> counted, parameters;
    };
    std::map<Shape, Places> shapes;
    size_t next = 0;
    for (size_t g = 0; g < optimizer_.groups.size(); ++g) {
      for (size_t i = 0; i < optimizer_.groups[g].parameters.size(); ++i, ++next) {
        if (!counted_[next].shape) return false;
        Places& places = shapes[*counted_[next].shape];
        if (!places.counted.empty() && places.group != g) return false;
        places.group = g;
        places.counted.push_back(next);
      }
    }
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const auto found = shapes.find(parameters_[i]->stored.shape);
      if (found != shapes.end()) found->second.parameters.push_back(i);
    }
    chosen_.assign(counted_.size(), 0);
    for (const auto& [shape, places] : shapes) {
      if (places.counted.size() != places.parameters.size()) return false;
      for (size_t i = 0; i < places.counted.size(); ++i) chosen_[places.counted[i]] = places.parameters[i];
    }
    return true;
  }

  // LBFGS: vectors over all parameters show no shapes, only their length.
  Names flat() {
    uint64_t elements = 0;
    chosen_.clear();
    for (size_t i = 0; i < parameters_.size(); ++i) {
      elements += parameters_[i]->stored.elements;
      chosen_.push_back(i);
    }
    if (counted_.size() != parameters_.size()) fail_unclear();
    for (const auto& [index, state] : optimizer_.states) {
      for (const auto& [field, tensor] : state.tensors) {
        if (field == "d" && tensor.elements != elements) {
          fail("expected vectors of " + std::to_string(elements) + " elements as the model has, found " +
               std::to_string(tensor.elements));
        }
      }
    }
    return names();
  }

  Names names() const {
    Names names;
    size_t next = 0;
    for (const PythonGroup& group : optimizer_.groups) {
      std::vector<std::string>& made = names.emplace_back();
      for (size_t i = 0; i < group.parameters.size(); ++i) made.push_back(parameters_[chosen_[next++]]->name);
    }
    return names;
  }

  [[noreturn]] void fail(const std::string& text) const {
    throw Error(ErrorCode::kMismatch, path_, "optim_state_dict: " + text);
  }

  [[noreturn]] void fail_unclear() const {
    if (counted_.size() == parameters_.size() && optimizer_.groups.size() == 1) {
      for (size_t i = 0; i < counted_.size(); ++i) {
        if (fits(i, i)) continue;
        fail("expected parameter " + std::to_string(counted_[i].index) + " to be " + quote(parameters_[i]->name) +
             " of shape " + describe(parameters_[i]->stored.shape) + ", found a state of shape " +
             describe(*counted_[i].shape));
      }
    }
    fail("found " + std::to_string(counted_.size()) + " parameters in " + std::to_string(optimizer_.groups.size()) +
         " groups, and neither names nor shapes tell which of the model's " + std::to_string(parameters_.size()) +
         " they are; a live optimizer does");
  }

  const PythonOptimizer& optimizer_;
  std::vector<const NamedTensor*> parameters_;
  const std::string& path_;
  std::vector<Counted> counted_;  // in the order of the groups
  std::vector<size_t> chosen_;    // for each: its place in parameters_
};

}  // namespace

bool may_be_parameter(const NamedTensor& tensor) {
  static constexpr std::array<std::string_view, 3> kBuffers{"running_mean", "running_var", "num_batches_tracked"};
  const std::string_view name = std::string_view(tensor.name).substr(tensor.name.rfind('.') + 1);
  return (is_floating(tensor.stored.dtype) || is_complex(tensor.stored.dtype)) &&
         std::find(kBuffers.begin(), kBuffers.end(), name) == kBuffers.end();
}

std::optional<Names> stored_names(const PythonOptimizer& optimizer, const std::vector<NamedTensor>& model) {
  std::unordered_map<std::string_view, size_t> places;
  for (size_t i = 0; i < model.size(); ++i) places.emplace(model[i].name, i);
  std::set<size_t> taken;
  Names names;
  for (const PythonGroup& group : optimizer.groups) {
    if (group.names.size() != group.parameters.size()) return std::nullopt;
    std::vector<std::string>& made = names.emplace_back();
    for (std::string_view name : group.names) {
      auto found = places.find(name);
      for (const std::string_view wrapper : {"module.", "_orig_mod.", "module."}) {
        if (found != places.end() || !name.starts_with(wrapper)) continue;
        name.remove_prefix(wrapper.size());
        found = places.find(name);
      }
      if (found == places.end() || !taken.insert(found->second).second) return std::nullopt;
      made.push_back(model[found->second].name);
    }
  }
  return names;
}

std::vector<std::vector<std::string>> deduced_names(const PythonOptimizer& optimizer,
                                                    const std::vector<NamedTensor>& model, const std::string& path) {
  return Deduction(optimizer, model, path).run();
}

}  // namespace ckpt::weights
