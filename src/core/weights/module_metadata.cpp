#include "core/weights/module_metadata.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "core/base/quote.h"
#include "core/format/archive.h"

namespace ckpt::weights {
namespace {

using format::kNoNode;
using format::PickleNode;
using format::TorchFile;
using format::TorchKind;
using nlohmann::ordered_json;

constexpr uint64_t kEntryBytes = 320;
constexpr size_t kMaxDepth = 500;           // an archive has 1,000, and may nest this one
constexpr size_t kMaxPathBytes = 16 << 10;  // a name has 64 KiB, and may be escaped
constexpr size_t kMaxEmptyLevels = 50'000;  // of about a kilobyte each
constexpr size_t kMaxModules = 200'000;     // of a file that shares them, they are more than it has values
constexpr std::string_view kBatches = "num_batches_tracked";

/// A JSON object under way. Its own lookup goes through all members.
class ObjectBuilder {
 public:
  void set(const std::string& key, ordered_json value) {
    const auto [known, is_new] = places_.try_emplace(key, members_.size());
    if (is_new) {
      members_.emplace_back(key, std::move(value));
    } else {
      members_.begin()[static_cast<std::ptrdiff_t>(known->second)].second = std::move(value);
    }
  }
  ordered_json finish() {
    ordered_json result = ordered_json::object();
    result.get_ref<ordered_json::object_t&>() = std::move(members_);
    return result;
  }

 private:
  ordered_json::object_t members_;
  std::unordered_map<std::string, size_t> places_;
};

/// A number, text, bool or None; anything else is null too.
ordered_json scalar(const TorchFile& file, PickleNode node) {
  switch (file.kind(node)) {
    case TorchKind::kBool:
      return file.pickle().boolean(node);
    case TorchKind::kInt:
      return file.pickle().integer(node);
    case TorchKind::kFloat:
      return file.pickle().number(node);
    case TorchKind::kText:
      return is_utf8(file.pickle().text(node)) ? ordered_json(std::string(file.pickle().text(node))) : nullptr;
    default:
      return nullptr;
  }
}

/// Visits the items of a dict whose keys can be names.
template <class Visit>
void for_each_named(const TorchFile& file, PickleNode dict, Budget& budget, Visit visit) {
  const auto items = file.items(dict);
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const std::optional<std::string> name = file.key_text(items[i]);
    if (!name || !is_utf8(*name)) continue;
    budget.charge(kEntryBytes + 2 * name->size());
    visit(*name, items[i + 1]);
  }
}

ordered_json metadata_of_dict(const TorchFile& file, PickleNode dict, Budget& budget) {
  const PickleNode metadata = file.state_dict_metadata(dict);
  if (metadata == kNoNode) return nullptr;
  ObjectBuilder modules;
  for_each_named(file, metadata, budget, [&](const std::string& path, PickleNode values) {
    if (file.kind(values) != TorchKind::kDict) return;
    ObjectBuilder scalars;
    for_each_named(file, values, budget,
                   [&](const std::string& name, PickleNode value) { scalars.set(name, scalar(file, value)); });
    modules.set(path, scalars.finish());
  });
  return modules.finish();
}

/// Walks the levels of a module, of which tensors_below() knows that none is inside itself or too deep.
class Levels {
 public:
  Levels(const TorchFile& file, uint64_t bytes) : file_(file), bytes_left_(bytes) {}

  /// null where they take more than may be taken: nothing that depends on them is worth an error.
  ordered_json metadata(PickleNode module) { return visit(module, 0) ? modules_.finish() : ordered_json(); }

 private:
  bool visit(PickleNode module, size_t depth) {
    const uint64_t bytes = kEntryBytes + 2 * path_.size();
    if (modules_left_ == 0 || bytes > bytes_left_) return false;
    --modules_left_;
    bytes_left_ -= bytes;
    const auto items = file_.items(module);
    bool counts = false;
    for (size_t i = 0; i + 1 < items.size() && !counts; i += 2) {
      counts = file_.key_text(items[i]) == kBatches && file_.kind(items[i + 1]) == TorchKind::kTensor;
    }
    modules_.set(path_, module_version(counts));
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (file_.kind(items[i + 1]) != TorchKind::kModule) continue;
      const std::optional<std::string> name = file_.key_text(items[i]);
      if (!name || !is_utf8(*name)) continue;
      const size_t length = path_.size();
      if (depth != 0) path_ += '.';
      path_ += file_.is_training_state() ? format::unescape_name(*name) : *name;
      if (!visit(items[i + 1], depth + 1)) return false;
      path_.resize(length);
    }
    return true;
  }

  const TorchFile& file_;
  uint64_t bytes_left_;
  size_t modules_left_ = kMaxModules;
  std::string path_;
  ObjectBuilder modules_;
};

}  // namespace

ordered_json module_version(bool counts_batches) {
  ordered_json version = ordered_json::object();
  version["version"] = counts_batches ? 2 : 1;
  return version;
}

ordered_json read_module_metadata(const TorchFile& file, PickleNode node, Budget& budget) {
  if (file.kind(node) == TorchKind::kModule) return Levels(file, budget.left()).metadata(node);
  return metadata_of_dict(file, node, budget);
}

void strip_module_paths(ordered_json& metadata, std::string_view prefix) {
  if (!metadata.is_object() || prefix.empty()) return;
  ObjectBuilder stripped;
  for (auto& [path, value] : metadata.get_ref<ordered_json::object_t&>()) {
    if (path == prefix.substr(0, prefix.size() - 1)) {
      stripped.set("", std::move(value));
    } else if (path.starts_with(prefix)) {
      stripped.set(path.substr(prefix.size()), std::move(value));
    }
  }
  metadata = stripped.finish();
}

bool can_be_level(std::string_view path) {
  return !path.empty() && path.size() <= kMaxPathBytes &&
         static_cast<size_t>(std::count(path.begin(), path.end(), '.')) < kMaxDepth;
}

std::vector<std::string> empty_levels(const ordered_json& metadata, std::vector<std::string_view> names) {
  std::vector<std::string> levels;
  if (!metadata.is_object()) return levels;
  std::sort(names.begin(), names.end());
  const auto is_tensor = [&](std::string_view path) { return std::binary_search(names.begin(), names.end(), path); };
  const auto holds_tensors = [&](std::string_view path) {
    const std::string below = std::string(path) + ".";
    const auto first = std::lower_bound(names.begin(), names.end(), below);
    return first != names.end() && first->starts_with(below);
  };
  std::unordered_set<std::string_view> made;  // beginnings of paths
  for (const auto& [path, value] : metadata.get_ref<const ordered_json::object_t&>()) {
    if (!can_be_level(path)) continue;
    // From the path upwards to a level that is there already.
    std::vector<std::string_view> fresh;
    std::string_view one = path;
    while (!made.contains(one) && !holds_tensors(one) && !is_tensor(one)) {
      fresh.push_back(one);
      const size_t dot = one.rfind('.');
      if (dot == std::string_view::npos) break;
      one = one.substr(0, dot);
    }
    if (fresh.empty() || is_tensor(one)) continue;
    if (made.size() + fresh.size() > kMaxEmptyLevels) break;
    made.insert(fresh.begin(), fresh.end());
    levels.push_back(path);
  }
  return levels;
}

}  // namespace ckpt::weights
