#include "core/weights/python_checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <unordered_map>

#include "ckpt/grad_scaler_state.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/format/state_layout.h"
#include "core/weights/names.h"
#include "core/weights/python_optimizer.h"
#include "core/weights/python_values.h"
#include "core/weights/state_tree.h"

namespace ckpt::weights {
namespace {

using format::Archive;
using format::ArchiveValue;
using format::kNoNode;
using format::NamedTensor;
using format::PickleNode;
using format::TorchFile;
using format::TorchKind;
using nlohmann::json;

constexpr uint64_t kBytesOfLevel = 512;  // about what one costs, with its entry in the one above
constexpr uint64_t kNameCopies = 8;      // of a parameter's name: weights, fields of the optimizer, description

class Builder {
 public:
  Builder(const TorchFile& file, PythonOptions options, std::vector<std::string>& warnings)
      : file_(file),
        options_(std::move(options)),
        warnings_(warnings),
        tree_(file.path(), file.memory_left() / kBytesOfLevel),
        names_left_(file.memory_left() / kNameCopies) {}

  format::ArchiveFile build() {
    if (!is_python_checkpoint(file_)) {
      fail(ErrorCode::kMismatch, "expected a training checkpoint of Python, found no model_state_dict beside numbers");
    }
    std::vector<NamedTensor> model = add_module("model", "model_state_dict");
    if (present("ema_state_dict")) add_module("ema", "ema_state_dict");
    if (options_.optimizer && present("optim_state_dict")) add_optimizer(find("optim_state_dict"), model);
    if (present("gradient_scaler_state_dict")) add_scaler();
    for (const std::string& key : other_keys()) warnings_.push_back("left out " + quote(key, 60));
    return finish({{"epoch", count_of("epoch")},
                   {"iteration", count_of("iterations")},
                   {"best_metric", best_metric()},
                   {"metrics", json::object()}});
  }

  format::ArchiveFile build_optimizer(const std::vector<NamedTensor>& model) {
    add_optimizer(is_python_checkpoint(file_) ? find("optim_state_dict") : file_.root(), model);
    return finish({{"epoch", 0}, {"iteration", 0}, {"best_metric", json()}, {"metrics", json::object()}});
  }

 private:
  [[noreturn]] void fail(ErrorCode code, const std::string& text) const { throw Error(code, file_.path(), text); }

  PickleNode find(std::string_view key) const { return file_.find(file_.root(), key); }
  /// None and an empty dict (a disabled scaler) are as good as not there.
  bool present(std::string_view key) const {
    const PickleNode node = find(key);
    if (node == kNoNode || file_.kind(node) == TorchKind::kNone) return false;
    return file_.kind(node) != TorchKind::kDict || !file_.items(node).empty();
  }

  void add_part(const std::string& name, const char* kind, std::shared_ptr<Archive> archive) {
    parts_[name] = {{"kind", kind}};
    root_->members.emplace_back(name, std::shared_ptr<const Archive>(std::move(archive)));
  }

  // ---- weights

  std::vector<NamedTensor> add_module(const std::string& part, const char* key) {
    const PickleNode node = find(key);
    if (file_.kind(node) != TorchKind::kDict) {
      fail(ErrorCode::kMismatch, std::string(key) + ": expected a state_dict, found another value");
    }
    format::TensorsBelow below = format::tensors_below(file_, node);
    for (const std::string& name : below.foreign) {
      warnings_.push_back(std::string(key) + ": left out " + quote(name) + ", which a foreign object made");
    }
    drop_average_count(below.tensors, key);
    const std::string prefix = wrapper_prefix(below.tensors, &NamedTensor::name);
    for (NamedTensor& tensor : below.tensors) tensor.name.erase(0, prefix.size());
    std::vector<std::pair<std::string, ArchiveValue>> values;
    for (NamedTensor& named : below.tensors) {
      if (named.name.size() > names_left_) {
        fail(ErrorCode::kCorrupt, std::string(key) + ": names that take more memory than a file of this size may");
      }
      names_left_ -= named.name.size();
      named.stored.is_parameter = may_be_parameter(named);
      if (named.stored.layout != format::TensorLayout::kStrided) {
        throw Error(ErrorCode::kUnsupported, file_.path(),
                    "tensor " + quote(named.name) + " is sparse or quantized, which a training state does not hold",
                    {.tensor = named.name});
      }
      values.emplace_back(named.name, named.stored);
    }
    if (values.empty()) fail(ErrorCode::kMismatch, std::string(key) + ": holds no tensors");
    add_part(part, "module", tree_.make(std::move(values), module_paths(node, prefix)));
    return std::move(below.tensors);
  }

  // torch.optim.swa_utils.AveragedModel keeps a count beside the module that it wraps.
  void drop_average_count(std::vector<NamedTensor>& tensors, const char* key) {
    const auto count = std::find_if(tensors.begin(), tensors.end(),
                                    [](const NamedTensor& tensor) { return tensor.name == "n_averaged"; });
    if (count == tensors.end()) return;
    const bool wrapped = std::all_of(tensors.begin(), tensors.end(), [](const NamedTensor& tensor) {
      return tensor.name == "n_averaged" || tensor.name.starts_with("module.");
    });
    if (!wrapped) return;
    tensors.erase(count);
    warnings_.push_back(std::string(key) + ": left out \"n_averaged\", the count of an averaged model");
  }

  /// Modules without tensors, which LibTorch's own loading looks for: a state_dict's `_metadata` names them.
  std::vector<std::string> module_paths(PickleNode state_dict, const std::string& prefix) const {
    std::vector<std::string> paths;
    const PickleNode metadata = file_.state_dict_metadata(state_dict);
    if (metadata == kNoNode || file_.kind(metadata) != TorchKind::kDict) return paths;
    const auto items = file_.items(metadata);
    uint64_t bytes = names_left_;
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (file_.kind(items[i]) != TorchKind::kText) continue;
      const std::string_view path = file_.pickle().text(items[i]);
      if (path.size() <= prefix.size() || !path.starts_with(prefix) || path.size() > bytes) continue;
      bytes -= path.size();
      paths.emplace_back(path.substr(prefix.size()));
    }
    return paths;
  }

  // ---- optimizer

  void add_optimizer(PickleNode node, const std::vector<NamedTensor>& model) {
    size_t most = model.size();
    if (options_.parameter_names) {
      for (const auto& group : *options_.parameter_names) most += group.size();
    }
    const PythonOptimizer optimizer = read_python_optimizer(file_, node, most, warnings_);
    const auto names = names_of(optimizer, model);
    if (!optimizer.form->is_flat) check_shapes(optimizer, names, model);
    json groups = json::array(), states = json::object();
    std::map<std::string, std::vector<std::pair<std::string, ArchiveValue>>> fields;
    for (size_t g = 0; g < optimizer.groups.size(); ++g) {
      groups.push_back({{"options", optimizer.groups[g].options}, {"parameters", names[g]}});
      for (size_t i = 0; i < names[g].size(); ++i) {
        const auto found = optimizer.states.find(optimizer.groups[g].parameters[i]);
        if (found == optimizer.states.end()) continue;
        states[names[g][i]] = found->second.numbers;
        for (const auto& [field, tensor] : found->second.tensors) fields[field].emplace_back(names[g][i], tensor);
      }
    }
    auto state = std::make_shared<Archive>();
    for (auto& [field, values] : fields) {
      state->members.emplace_back(format::escape_name(field),
                                  std::shared_ptr<const Archive>(tree_.make(std::move(values))));
    }
    state->index();
    auto part = std::make_shared<Archive>();
    part->members.emplace_back(
        "description",
        dump_json({{"type", optimizer.type}, {"groups", std::move(groups)}, {"state", std::move(states)}}));
    part->members.emplace_back("state", std::shared_ptr<const Archive>(std::move(state)));
    part->index();
    add_part("optimizer", "optimizer", std::move(part));
  }

  std::vector<std::vector<std::string>> names_of(const PythonOptimizer& optimizer,
                                                 const std::vector<NamedTensor>& model) const {
    auto names = stored_names(optimizer, model);
    if (!names && options_.parameter_names) {
      check_counts(optimizer);
      return *options_.parameter_names;
    }
    if (!names) names = deduced_names(optimizer, model, file_.path());
    for (auto& group : *names) {
      for (std::string& name : group) name.insert(0, "model/");
    }
    return std::move(*names);
  }

  void check_counts(const PythonOptimizer& optimizer) const {
    const auto& live = *options_.parameter_names;
    std::vector<std::string> details;
    if (live.size() != optimizer.groups.size()) {
      details.push_back("expected " + std::to_string(live.size()) + " parameter groups, found " +
                        std::to_string(optimizer.groups.size()));
    }
    for (size_t g = 0; g < std::min(live.size(), optimizer.groups.size()); ++g) {
      if (live[g].size() == optimizer.groups[g].parameters.size()) continue;
      details.push_back("group " + std::to_string(g) + ": expected " + std::to_string(live[g].size()) +
                        " parameters, found " + std::to_string(optimizer.groups[g].parameters.size()));
    }
    if (details.empty()) return;
    const std::string first = details.front();
    throw Error(ErrorCode::kMismatch, file_.path(), "optim_state_dict: " + first, {.details = std::move(details)});
  }

  /// Of the states of parameters that are in the model.
  void check_shapes(const PythonOptimizer& optimizer, const std::vector<std::vector<std::string>>& names,
                    const std::vector<NamedTensor>& model) const {
    std::unordered_map<std::string_view, const std::vector<int64_t>*> shapes;
    for (const NamedTensor& named : model) shapes.emplace(named.name, &named.stored.shape);
    for (size_t g = 0; g < names.size(); ++g) {
      for (size_t i = 0; i < names[g].size(); ++i) {
        const int64_t index = optimizer.groups[g].parameters[i];
        const auto state = optimizer.states.find(index);
        const std::string_view name = names[g][i];
        const auto shape = name.starts_with("model/") ? shapes.find(name.substr(6)) : shapes.end();
        if (state == optimizer.states.end() || shape == shapes.end()) continue;
        for (const auto& [field, tensor] : state->second.tensors) {
          if (tensor.shape == *shape->second) continue;
          fail(ErrorCode::kMismatch, "optim_state_dict: state of parameter " + std::to_string(index) + ": expected " +
                                         quote(field) + " of shape " + describe(*shape->second) + " as " +
                                         quote(name.substr(6)) + ", found " + describe(tensor.shape));
        }
      }
    }
  }

  // ---- numbers

  void add_scaler() {
    const PickleNode node = find("gradient_scaler_state_dict");
    const GradScalerState fallback;
    const auto number = [&](const char* name, double otherwise) {
      const PickleNode value = file_.find(node, name);
      if (value == kNoNode) return json_number(otherwise);
      const auto scalar = python_scalar(file_, value);
      const auto taken = scalar ? option_value(OptionKind::kNumber, *scalar) : std::nullopt;
      if (!taken) fail(ErrorCode::kMismatch, "gradient_scaler_state_dict: expected a number as " + quote(name));
      return *taken;
    };
    const auto count = [&](const char* name, int64_t otherwise) {
      const auto whole = whole_number(number(name, static_cast<double>(otherwise)));
      if (!whole) fail(ErrorCode::kMismatch, "gradient_scaler_state_dict: expected a whole number as " + quote(name));
      return *whole;
    };
    if (file_.kind(node) != TorchKind::kDict || file_.find(node, "scale") == kNoNode) {
      fail(ErrorCode::kMismatch, "gradient_scaler_state_dict: expected a GradScaler's state_dict, found no \"scale\"");
    }
    auto part = std::make_shared<Archive>();
    part->members.emplace_back("description",
                               dump_json({{"scale", number("scale", fallback.scale)},
                                          {"growth_factor", number("growth_factor", fallback.growth_factor)},
                                          {"backoff_factor", number("backoff_factor", fallback.backoff_factor)},
                                          {"growth_interval", count("growth_interval", fallback.growth_interval)},
                                          {"growth_tracker", count("_growth_tracker", fallback.growth_tracker)}}));
    part->index();
    add_part("scaler", "scaler", std::move(part));
  }

  uint64_t count_of(const char* key) {
    const PickleNode node = find(key);
    if (node == kNoNode || file_.kind(node) == TorchKind::kNone) {
      warnings_.push_back("has no " + quote(key) + ", taken as 0");
      return 0;
    }
    const auto scalar = python_scalar(file_, node);
    const auto count = scalar ? whole_number(*scalar) : std::nullopt;
    if (!count || *count < 0) fail(ErrorCode::kMismatch, std::string(key) + ": expected a count");
    return static_cast<uint64_t>(*count);
  }

  /// null where there is none.
  json best_metric() {
    if (!present("best_metric")) return {};
    const auto scalar = python_scalar(file_, find("best_metric"));
    const auto number = scalar ? option_value(OptionKind::kNumber, *scalar) : std::nullopt;
    if (!number) warnings_.push_back("best_metric: left out, expected a number, found another value");
    return number.value_or(json());
  }

  format::ArchiveFile finish(json description) {
    if (!description["best_metric"].is_null()) description["metrics"]["best_metric"] = description["best_metric"];
    description["parts"] = std::move(parts_);
    description["metadata"] = json::object();
    auto head = std::make_shared<Archive>();
    head->members.emplace_back("version", format::kStateVersion);
    head->members.emplace_back("description", dump_json(description));
    head->index();
    root_->members.emplace(root_->members.begin(), format::kHeadPart, std::shared_ptr<const Archive>(std::move(head)));
    root_->index();
    return {file_.shared_file(), root_};
  }

  /// What else the file holds: a scheduler, arguments.
  std::set<std::string> other_keys() const {
    static constexpr std::array<std::string_view, 7> kKnown{
        "iterations",  "epoch",          "model_state_dict",          "optim_state_dict",
        "best_metric", "ema_state_dict", "gradient_scaler_state_dict"};
    std::set<std::string> others;
    const auto items = file_.items(file_.root());
    for (size_t i = 0; i + 1 < items.size() && others.size() < 100; i += 2) {
      const auto key = file_.key_text(items[i]);
      if (!key || std::find(kKnown.begin(), kKnown.end(), *key) == kKnown.end()) {
        others.insert(key ? key->substr(0, 200) : "a value whose key is no text");
      }
    }
    return others;
  }

  const TorchFile& file_;
  PythonOptions options_;
  std::vector<std::string>& warnings_;
  StateTree tree_;
  uint64_t names_left_;
  json parts_ = json::object();
  std::shared_ptr<Archive> root_ = std::make_shared<Archive>();
};

}  // namespace

bool is_python_checkpoint(const TorchFile& file) {
  const PickleNode root = file.root();
  if (file.kind(root) != TorchKind::kDict || file.find(root, "model_state_dict") == kNoNode) return false;
  return file.find(root, "iterations") != kNoNode || file.find(root, "epoch") != kNoNode ||
         file.find(root, "optim_state_dict") != kNoNode;
}

format::ArchiveFile training_state_of(const TorchFile& file, const PythonOptions& options,
                                      std::vector<std::string>& warnings) {
  return Builder(file, options, warnings).build();
}

format::ArchiveFile optimizer_state_of(const TorchFile& file, const std::vector<NamedTensor>& model,
                                       std::vector<std::string>& warnings) {
  return Builder(file, {}, warnings).build_optimizer(model);
}

run::CheckpointHead head_of(const format::ArchiveFile& state) {
  const std::string& path = state.file().path();
  const auto corrupt = [&](const std::string& what) {
    return Error(ErrorCode::kCorrupt, path, "no training state: " + what);
  };
  const Archive* part = state.root().nested(format::kHeadPart);
  const auto* text = part ? part->get<std::string>("description") : nullptr;
  if (!text) throw corrupt("it has no part \"ckpt\" with a description");
  const json description = parse_json(*text, path);
  run::CheckpointHead head;
  try {
    const auto count = [&](const char* name) {
      const auto number = whole_number(description.at(name));
      if (!number || *number < 0) throw corrupt("expected a count as " + quote(name));
      return static_cast<uint64_t>(*number);
    };
    head.iteration = count("iteration");
    head.epoch = count("epoch");
    head.metadata = description.at("metadata");
    for (const auto& [name, value] : description.at("metrics").items()) {
      const auto number = number_from_json(value);
      if (!number) throw corrupt("metric " + quote(name) + " is no number");
      head.metrics[name] = *number;
    }
  } catch (const json::exception&) {
    throw corrupt("its description lacks iteration, epoch, metadata or metrics");
  }
  return head;
}

}  // namespace ckpt::weights
