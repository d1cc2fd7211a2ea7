// LibTorch's archive of an optimizer: `state/<address>/<field>`, `param_groups/param_groups/size`,
// `param_groups/param_groups/<i>/{params/size, params/<j>: address, options/<field>}`; sizes are tensors, addresses
// texts. that of a state.pt: state_layout.h.
#include <torch/nn/module.h>
#include <torch/optim.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "ckpt/error.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "libtorch/bridge/archive_tensors.h"
#include "libtorch/bridge/optimizers.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/training/import.h"

namespace ckpt::training {
namespace {

using nlohmann::json;

constexpr int64_t kMaxParameters = 10'000'000;

struct StoredState {
  std::vector<std::pair<std::string, json>> numbers;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
};

/// An optimizer of a file, its parameters by some key: an address, or a name.
struct StoredOptimizer {
  struct Group {
    json options = json::object();
    std::vector<std::string> keys;
  };
  std::vector<Group> groups;
  std::map<std::string, StoredState> states;
  std::string type;  ///< where the file says it

  std::vector<std::string> keys() const {
    std::vector<std::string> all;
    for (const Group& group : groups) all.insert(all.end(), group.keys.begin(), group.keys.end());
    return all;
  }
};

class Reader {
 public:
  explicit Reader(const format::ArchiveFile& file) : file_(file), tensors_(file) {}

  StoredOptimizer read() {
    if (!format::is_training_state(file_.root())) return read_libtorch(file_.root());
    const format::Archive* part = file_.root().nested("optimizer");
    if (!part) throw Error(ErrorCode::kNotFound, path(), "has no part \"optimizer\"");
    return read_own(*part);
  }

 private:
  const std::string& path() const { return file_.file().path(); }

  [[noreturn]] void corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, path(), "not as LibTorch stores an optimizer: " + what);
  }

  const format::Archive& level(const format::Archive& in, const std::string& name) const {
    const format::Archive* found = in.nested(name);
    if (!found) corrupt("expected " + quote(name));
    return *found;
  }

  int64_t size(const format::Archive& in, const std::string& name) {
    const auto* stored = in.get<format::StoredTensor>(name);
    if (!stored || stored->dtype != DType::kInt64 || stored->elements != 1)
      corrupt("expected a size as " + quote(name));
    const auto value = tensors_.read(*stored).item<int64_t>();
    if (value < 0 || value > kMaxParameters) corrupt(quote(name) + " is " + std::to_string(value));
    return value;
  }

  StoredOptimizer read_libtorch(const format::Archive& root) {
    if (!root.nested("param_groups") || !root.nested("state")) {
      throw Error(ErrorCode::kMismatch, path(), "expected an optimizer, found no \"param_groups\" and \"state\"");
    }
    StoredOptimizer stored;
    const format::Archive& groups = level(root, "param_groups");
    const int64_t group_count = size(groups, "param_groups/size");
    for (int64_t i = 0; i < group_count; ++i) {
      const format::Archive& group = level(groups, "param_groups/" + std::to_string(i));
      StoredOptimizer::Group& to = stored.groups.emplace_back();
      const int64_t parameters = size(group, "params/size");
      for (int64_t j = 0; j < parameters; ++j) {
        const auto* key = group.get<std::string>("params/" + std::to_string(j));
        if (!key) corrupt("expected a text as " + quote("params/" + std::to_string(j)));
        to.keys.push_back(*key);
      }
      for (const auto& [name, value] : level(group, "options").members) to.options[name] = number(name, value);
    }
    for (const auto& [key, value] : level(root, "state").members) {
      const auto* fields = std::get_if<std::shared_ptr<const format::Archive>>(&value);
      if (!fields) corrupt("expected fields as " + quote("state/" + key));
      StoredState& state = stored.states[key];
      for (const auto& [name, field] : (*fields)->members) add_field(name, field, state);
    }
    return stored;
  }

  json number(const std::string& name, const format::ArchiveValue& value) const {
    if (std::holds_alternative<std::monostate>(value)) return nullptr;
    if (const auto* flag = std::get_if<bool>(&value)) return *flag;
    if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
    if (const auto* real = std::get_if<double>(&value)) return json_number(*real);
    if (const auto* text = std::get_if<std::string>(&value)) return *text;
    if (const auto* reals = std::get_if<std::vector<double>>(&value)) {
      json list = json::array();
      for (const double one : *reals) list.push_back(json_number(one));
      return list;
    }
    corrupt("expected a number as " + quote(name));
  }

  void add_field(const std::string& name, const format::ArchiveValue& value, StoredState& state) {
    if (std::holds_alternative<std::monostate>(value)) return;  // LBFGS's `al` before its first use
    if (const auto* tensor = std::get_if<format::StoredTensor>(&value)) {
      state.tensors.emplace_back(name, tensors_.read(*tensor));
    } else if (const auto* list = std::get_if<std::vector<format::StoredTensor>>(&value)) {
      state.numbers.emplace_back(name, list->size());
      for (size_t i = 0; i < list->size(); ++i) {
        state.tensors.emplace_back(name + "." + std::to_string(i), tensors_.read((*list)[i]));
      }
    } else if (std::holds_alternative<std::vector<int64_t>>(value)) {
      state.numbers.emplace_back(name, 0);  // an empty list does not tell of what
    } else {
      state.numbers.emplace_back(name, number(name, value));
    }
  }

  StoredOptimizer read_own(const format::Archive& part) {
    const auto* text = part.get<std::string>("description");
    if (!text) corrupt("expected \"description\"");
    StoredOptimizer stored;
    try {
      const json description = parse_json(*text, path());
      stored.type = description.at("type").get<std::string>();
      for (const json& group : description.at("groups")) {
        stored.groups.push_back({group.at("options"), group.at("parameters").get<std::vector<std::string>>()});
      }
      for (const auto& [name, numbers] : description.at("state").items()) {
        for (const auto& [field, value] : numbers.items()) stored.states[name].numbers.emplace_back(field, value);
      }
    } catch (const json::exception& error) {
      corrupt(std::string("\"description\": ") + error.what());
    }
    for (const auto& [field, value] : level(part, "state").members) {
      const auto* below = std::get_if<std::shared_ptr<const format::Archive>>(&value);
      if (!below) corrupt("expected tensors as " + quote(field));
      for (const format::NamedTensor& named : format::tensors_of(**below, /*escaped=*/true)) {
        stored.states[named.name].tensors.emplace_back(format::unescape_name(field), tensors_.read(named.stored));
      }
    }
    return stored;
  }

  const format::ArchiveFile& file_;
  bridge::ArchiveTensors tensors_;
};

/// "sgd", ... from the names of the options; Adam and AdamW have the same ones: "adam".
std::string type_of_fields(const json& options, const std::string& path) {
  static const std::map<std::string, std::set<std::string>> kFields{
      {"sgd", {"lr", "momentum", "dampening", "weight_decay", "nesterov"}},
      {"adam", {"lr", "betas", "eps", "weight_decay", "amsgrad"}},
      {"rmsprop", {"lr", "alpha", "eps", "weight_decay", "momentum", "centered"}},
      {"adagrad", {"lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"}},
      {"lbfgs",
       {"lr", "max_iter", "max_eval", "tolerance_grad", "tolerance_change", "history_size", "line_search_fn"}}};
  std::set<std::string> names;
  for (const auto& [name, value] : options.items()) names.insert(name);
  for (const auto& [type, fields] : kFields) {
    if (names == fields) return type;
  }
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + quote(name);
  throw Error(ErrorCode::kUnsupported, path,
              "expected the options of SGD, Adam, AdamW, RMSprop, Adagrad or LBFGS, found " + list);
}

template <class Optimizer, class Options>
std::unique_ptr<torch::optim::Optimizer> make(const std::vector<std::vector<at::Tensor>>& groups, Options options) {
  std::vector<torch::optim::OptimizerParamGroup> made;
  for (const auto& parameters : groups) made.emplace_back(parameters, std::make_unique<Options>(options));
  return std::make_unique<Optimizer>(std::move(made), options);
}

std::unique_ptr<torch::optim::Optimizer> make_optimizer(const std::string& type,
                                                        const std::vector<std::vector<at::Tensor>>& groups) {
  using namespace torch::optim;  // NOLINT: eleven names of it
  if (type == "sgd") return make<SGD>(groups, SGDOptions(0.1));
  if (type == "adam") return make<Adam>(groups, AdamOptions());
  if (type == "adamw") return make<AdamW>(groups, AdamWOptions());
  if (type == "rmsprop") return make<RMSprop>(groups, RMSpropOptions());
  if (type == "adagrad") return make<Adagrad>(groups, AdagradOptions());
  return make<LBFGS>(groups, LBFGSOptions());
}

/// The model's tensor for each key: by name for those of a state.pt, else by position.
std::map<std::string, at::Tensor> match(const StoredOptimizer& stored, const torch::nn::Module& model, bool by_name,
                                        const std::string& path) {
  const std::vector<std::string> keys = stored.keys();
  const auto named = model.named_parameters();
  if (keys.size() != named.size()) {
    throw Error(ErrorCode::kMismatch, path,
                "expected an optimizer of " + std::to_string(named.size()) + " parameters as the model has, found " +
                    std::to_string(keys.size()));
  }
  std::map<std::string, at::Tensor> matched;
  std::vector<std::string> missing;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!by_name) {
      matched.emplace(keys[i], named[i].value());
    } else if (const at::Tensor* tensor = named.find(keys[i].substr(keys[i].find('/') + 1))) {
      matched.emplace(keys[i], *tensor);
    } else {
      missing.push_back(quote(keys[i]) + ": not in the model");
    }
  }
  if (!missing.empty()) {
    throw Error(ErrorCode::kMismatch, path, "the optimizer does not fit the model", {.details = missing});
  }
  return matched;
}

/// What does not fit between a state's tensors and its parameter.
void check_shapes(const std::string& type, const bridge::ParameterState& state, std::vector<std::string>& problems) {
  if (type == "lbfgs") return;  // flat vectors over all parameters
  for (const auto& [field, tensor] : state.tensors) {
    if (tensor.sizes() == state.parameter.sizes() || tensor.dim() == 0) continue;
    problems.push_back(field + ": expected shape " + c10::str(state.parameter.sizes()) + ", found " +
                       c10::str(tensor.sizes()));
  }
}

void fill(torch::optim::Optimizer& optimizer, const std::string& type, const StoredOptimizer& stored,
          const std::map<std::string, at::Tensor>& tensors, const std::string& path) {
  bridge::OptimizerUpdate update(optimizer);
  std::vector<std::string> problems;
  const auto add = [&](const std::string& where, const std::vector<std::string>& more) {
    for (const std::string& problem : more) problems.push_back(where + ": " + problem);
  };
  for (size_t i = 0; i < stored.groups.size(); ++i) {
    add("group " + std::to_string(i), update.set_options(i, stored.groups[i].options));
  }
  for (const auto& [key, state] : stored.states) {
    const auto found = tensors.find(key);
    if (found == tensors.end()) {
      problems.push_back("state " + quote(key) + ": of no parameter");
      continue;
    }
    const bridge::ParameterState fitted{found->second, state.numbers, state.tensors};
    std::vector<std::string> wrong = update.set_state(fitted);
    check_shapes(type, fitted, wrong);
    add("state " + quote(key), wrong);
  }
  if (!problems.empty()) {
    throw Error(ErrorCode::kMismatch, path, "the state does not fit the optimizer " + type, {.details = problems});
  }
  update.commit();
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return text;
}

}  // namespace

ImportedOptimizer import_optimizer(const format::ArchiveFile& file, const std::string& type,
                                   const torch::nn::Module& model) {
  const std::string& path = file.file().path();
  return bridge::wrap_errors(path, "reading the optimizer", [&] {
    const StoredOptimizer stored = Reader(file).read();
    if (stored.groups.empty()) throw Error(ErrorCode::kMismatch, path, "expected an optimizer, found no group in it");
    const bool own = format::is_training_state(file.root());
    const std::string told = type_of_fields(stored.groups.front().options, path);
    std::string used = !type.empty() ? type : own ? lower(stored.type) : told;
    ImportedOptimizer imported;
    if (used == "unknown" || (used == "adam" && type.empty() && !own)) {
      imported.type_known = false;
      used = told;
    }
    if (used != told && !(used == "adamw" && told == "adam")) {
      throw Error(ErrorCode::kMismatch, path, "expected the fields of " + used + ", found those of " + told);
    }
    const auto tensors = match(stored, model, own, path);
    std::vector<std::vector<at::Tensor>> groups;
    for (const auto& group : stored.groups) {
      auto& parameters = groups.emplace_back();
      for (const std::string& key : group.keys) parameters.push_back(tensors.at(key));
    }
    if (used == "lbfgs" && groups.size() > 1) {
      throw Error(ErrorCode::kMismatch, path,
                  "expected one group of parameters of LBFGS, found " + std::to_string(groups.size()));
    }
    imported.optimizer = make_optimizer(used, groups);
    fill(*imported.optimizer, used, stored, tensors, path);
    return imported;
  });
}

}  // namespace ckpt::training
