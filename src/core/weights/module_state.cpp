#include "core/weights/module_state.h"

#include <algorithm>
#include <utility>

#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/weights/convert.h"
#include "core/weights/module_metadata.h"
#include "core/weights/openers.h"
#include "core/weights/state_tree.h"

namespace ckpt::weights {
namespace {

using format::Archive;

constexpr uint64_t kMaxLevels = 1'000'000;

bool is_differentiable(DType dtype) { return is_floating(dtype) || is_complex(dtype); }

/// What the levels of an archive hold, under dotted names.
class ArchivedModule {
 public:
  explicit ArchivedModule(bool escaped) : escaped_(escaped) {}

  void add(const Archive& root) { add_level(unwrapped(root)); }

  std::vector<Tensor> tensors;
  std::vector<std::string> levels;
  std::vector<std::string> left_out;

 private:
  /// Without levels that hold nothing but one more, called as wrappers call it.
  static const Archive& unwrapped(const Archive& root) {
    const Archive* level = &root;
    while (level->members.size() == 1) {
      const Archive* inner = level->nested("module");
      if (!inner) inner = level->nested("_orig_mod");
      if (!inner) break;
      level = inner;
    }
    return *level;
  }

  void add_level(const Archive& level) {
    const size_t above = name_.size();
    for (const auto& [stored, value] : level.members) {
      name_ += escaped_ ? format::unescape_name(stored) : stored;
      if (const auto* tensor = std::get_if<format::StoredTensor>(&value)) {
        tensors.push_back({name_, *tensor});
      } else if (const auto* nested = std::get_if<std::shared_ptr<const Archive>>(&value)) {
        levels.push_back(name_);
        name_ += '.';
        add_level(**nested);
      } else {
        left_out.push_back(name_);
      }
      name_.resize(above);
    }
  }

  bool escaped_;
  std::string name_;  // of the member at hand, with the levels above
};

/// Where `tree`'s tensors lie in a list, by the names that they have there.
void list_parameters(const format::ArchiveToWrite& tree, const std::vector<format::TensorToWrite>& tensors,
                     std::vector<std::pair<std::string, size_t>>& parameters) {
  for (const auto& [name, value] : tree.members) {
    const auto* place = std::get_if<format::TensorPlace>(&value);
    if (place && tensors[place->index].is_parameter) parameters.emplace_back(tensors[place->index].name, place->index);
  }
  for (const auto& [name, value] : tree.members) {
    const auto* nested = std::get_if<std::shared_ptr<const format::ArchiveToWrite>>(&value);
    if (nested) list_parameters(**nested, tensors, parameters);
  }
}

}  // namespace

ModuleState::ModuleState(Weights weights) : weights_(std::move(weights)), warnings_(weights_.warnings()) {
  std::vector<std::string_view> names;
  for (const Tensor& tensor : weights_.tensors()) names.push_back(tensor.name);
  levels_ = empty_levels(weights_.module_metadata(), std::move(names));
}

ModuleState ModuleState::open(const std::string& path, const std::string& part) {
  Contents contents = open_file(io::File::open(path), {.whole = true});
  if (contents.format != Format::kArchive) return ModuleState(Weights::open(path));
  const format::ArchiveFile file = format::ArchiveFile::open(contents.files.front());
  const bool own = format::is_training_state(file.root());
  const Archive* root = own ? file.root().nested(part) : &file.root();
  if (!root) throw Error(ErrorCode::kNotFound, path, "has no part " + quote(part));
  if (!own && root->find("param_groups") && root->find("pytorch_version")) {
    throw Error(ErrorCode::kMismatch, path, "expected the weights of a module, found an optimizer");
  }
  ArchivedModule module(own);
  module.add(*root);
  contents.tensors = std::move(module.tensors);
  ModuleState state(Weights(std::move(contents), /*strip_wrappers=*/false));
  state.levels_ = std::move(module.levels);
  if (!module.left_out.empty()) {
    state.warnings_.push_back("left out " + std::to_string(module.left_out.size()) + " values that are no tensors, " +
                              quote(module.left_out.front()) + " among them");
  }
  return state;
}

ModuleToWrite ModuleState::to_write(const std::set<std::string>& parameters,
                                    std::vector<format::TensorToWrite>& tensors) const {
  Converted report;  // what is in it is in the warnings
  std::vector<format::TensorToWrite> made = select(weights_, {.to = Format::kArchive}, report);
  const size_t first = tensors.size();
  std::vector<std::pair<std::string, size_t>> places;
  places.reserve(made.size());
  for (size_t i = 0; i < made.size(); ++i) {
    const Tensor& tensor = weights_.tensors()[i];
    bool is_parameter = made[i].is_parameter;
    if (weights_.format() == Format::kArchive) {
      is_parameter = tensor.stored.is_parameter;
    } else if (!parameters.empty()) {
      is_parameter = parameters.contains(tensor.name);
    }
    made[i].is_parameter = is_parameter && is_differentiable(tensor.stored.dtype);
    places.emplace_back(made[i].name, first + i);
  }
  for (const format::TensorToWrite& tensor : made) {
    if (tensor.tied_to >= 0 && tensor.is_parameter) made[static_cast<size_t>(tensor.tied_to)].is_parameter = true;
  }
  for (format::TensorToWrite& tensor : made) {
    if (tensor.tied_to < 0) continue;
    tensor.is_parameter = made[static_cast<size_t>(tensor.tied_to)].is_parameter;
    tensor.tied_to += static_cast<int64_t>(first);
  }
  std::move(made.begin(), made.end(), std::back_inserter(tensors));
  ModuleToWrite module;
  module.tree = StateTree(weights_.path(), kMaxLevels).make_places(std::move(places), levels_);
  list_parameters(module.tree, tensors, module.parameters);
  return module;
}

std::set<std::string> parameters_of(const format::ArchiveFile& optimizer_state) {
  std::set<std::string> names;
  const format::Archive* part = optimizer_state.root().nested("optimizer");
  const std::string* text = part ? part->get<std::string>("description") : nullptr;
  if (!text) return names;
  const std::string& path = optimizer_state.file().path();
  const nlohmann::json description = parse_json(*text, path);
  try {
    for (const auto& group : description.at("groups")) {
      for (const auto& name : group.at("parameters")) {
        const auto& full = name.get_ref<const std::string&>();
        names.insert(full.substr(full.find('/') + 1));
      }
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kCorrupt, path, std::string("part \"optimizer\": \"description\": ") + error.what());
  }
  return names;
}

}  // namespace ckpt::weights
