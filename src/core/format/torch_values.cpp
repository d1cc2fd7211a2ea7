// What the objects of a pickle are: dicts, lists, modules, and what is foreign.
#include <unordered_set>

#include "core/base/quote.h"
#include "core/format/torch_file_impl.h"

namespace ckpt::format {
namespace {

std::span<const PickleNode> sequence(const Pickle& pickle, PickleNode node) {
  if (node == kNoNode) return {};
  const PickleKind kind = pickle.kind(node);
  const bool is_sequence = kind == PickleKind::kTuple || kind == PickleKind::kList;
  return is_sequence ? pickle.items(node) : std::span<const PickleNode>();
}

bool is_kind(const Pickle& pickle, PickleNode node, PickleKind kind) {
  return node != kNoNode && pickle.kind(node) == kind;
}

/// The last value of `key` in alternating keys and values, as in Python.
PickleNode find_text(const Pickle& pickle, std::span<const PickleNode> items, std::string_view key) {
  for (size_t i = items.size(); i >= 2; i -= 2) {
    if (pickle.kind(items[i - 2]) == PickleKind::kText && pickle.text(items[i - 2]) == key) return items[i - 1];
  }
  return kNoNode;
}

}  // namespace

TorchGlobal TorchFile::Impl::meaning(PickleNode global) const {
  const std::vector<PickleNode>& globals = pickle.globals();  // in the order of their numbers
  const auto at = std::lower_bound(globals.begin(), globals.end(), global);
  if (at == globals.end() || *at != global) return TorchGlobal::kUnknown;
  return meanings[static_cast<size_t>(at - globals.begin())];
}

PickleNode TorchFile::Impl::class_of(const PickleObject& object) const {
  const auto arguments = sequence(pickle, object.arguments);
  const bool is_new = meaning(object.callable) == TorchGlobal::kReconstructor && arguments.size() == 3;
  const PickleNode type = is_new ? arguments[0] : object.callable;
  if (!is_kind(pickle, type, PickleKind::kPersistent)) return type;
  // ("module", class, file of its source, source)
  const auto id = sequence(pickle, pickle.items(type)[0]);
  const bool is_class = id.size() == 4 && is_kind(pickle, id[0], PickleKind::kText) && pickle.text(id[0]) == "module";
  return is_class ? id[1] : type;
}

void TorchFile::Impl::index_objects() {
  for (PickleNode node = 0; node < pickle.size(); ++node) {
    if (pickle.kind(node) != PickleKind::kObject) continue;
    const PickleObject& object = pickle.object(node);
    const auto arguments = sequence(pickle, object.arguments);
    if (arguments.size() == 1 && meaning(object.callable) == TorchGlobal::kMapping) index_pairs(arguments[0]);
  }
  // An object comes before its state: only now all of a module's dicts can be read.
  for (PickleNode node = 0; node < pickle.size(); ++node) {
    if (pickle.kind(node) != PickleKind::kObject) continue;
    const PickleObject& object = pickle.object(node);
    if (is_kind(pickle, object.state, PickleKind::kDict) && meaning(class_of(object)) == TorchGlobal::kUnknown) {
      index_module(object.state);
    }
  }
}

TorchFile::Impl::Range TorchFile::Impl::begin_items(size_t size) {
  // A vector that grows holds its old and its new block at once.
  charge(3 * sizeof(PickleNode) * size + kKeyBytes);
  return {made_items.size(), 0};
}

// Python 2 writes OrderedDict([[key, value], ...]).
void TorchFile::Impl::index_pairs(PickleNode list) {
  const auto items = sequence(pickle, list);
  if (items.empty() || pairs.contains(list)) return;
  const auto is_pair = [&](PickleNode item) { return sequence(pickle, item).size() == 2; };
  Range range = begin_items(2 * items.size());
  if (!std::all_of(items.begin(), items.end(), is_pair)) return;
  for (PickleNode item : items) {
    const auto pair = sequence(pickle, item);
    made_items.insert(made_items.end(), pair.begin(), pair.end());
  }
  range.size = made_items.size() - range.first;
  pairs.emplace(list, range);
}

void TorchFile::Impl::index_module(PickleNode state) {
  // Looking at one takes as long as it is large, and any number of objects may share it.
  if (!states.insert(state).second) return;
  charge(kKeyBytes);
  const auto attributes = pickle.items(state);
  const auto dict = [&](std::string_view name) {
    const PickleNode node = find_text(pickle, attributes, name);
    return node == kNoNode ? std::nullopt : mapping(node);
  };
  const auto parameters = dict("_parameters"), buffers = dict("_buffers"), children = dict("_modules");
  if (!parameters || !buffers || !children) return;
  const PickleNode kept_out = find_text(pickle, attributes, "_non_persistent_buffers_set");
  const auto kept_out_names = kept_out == kNoNode ? std::span<const PickleNode>() : value(kept_out).items;

  // In the order of state_dict(). Hostile modules may share what they hold, so all work is paid for here.
  Range range = begin_items(parameters->size() + buffers->size() + children->size() + 16 * kept_out_names.size());
  std::unordered_set<std::string_view> not_persistent;
  for (PickleNode name : kept_out_names) {
    if (pickle.kind(name) == PickleKind::kText) not_persistent.insert(pickle.text(name));
  }
  const auto add = [&](std::span<const PickleNode> items, bool are_buffers) {
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (pickle.kind(items[i + 1]) == PickleKind::kNone) continue;
      const bool has_name = pickle.kind(items[i]) == PickleKind::kText;
      if (are_buffers && has_name && not_persistent.contains(pickle.text(items[i]))) continue;
      made_items.push_back(items[i]);
      made_items.push_back(items[i + 1]);
    }
  };
  add(*parameters, false);
  add(*buffers, true);
  add(*children, false);
  range.size = made_items.size() - range.first;
  modules.emplace(state, range);
}

std::optional<std::span<const PickleNode>> TorchFile::Impl::mapping(PickleNode node) const {
  if (pickle.kind(node) == PickleKind::kDict) return pickle.items(node);
  if (pickle.kind(node) != PickleKind::kObject) return std::nullopt;
  const PickleObject& object = pickle.object(node);
  const TorchGlobal made_by = meaning(object.callable);
  if (made_by != TorchGlobal::kMapping && made_by != TorchGlobal::kDefaultDict) return std::nullopt;
  const auto arguments = sequence(pickle, object.arguments);
  const auto set = object.dict == kNoNode ? std::span<const PickleNode>() : pickle.items(object.dict);
  if (object.list != kNoNode || object.keywords != kNoNode || arguments.size() > 1) return std::nullopt;
  if (arguments.empty() || made_by == TorchGlobal::kDefaultDict)
    return set;  // a default dict's argument is its factory
  if (!set.empty()) return std::nullopt;
  if (pickle.kind(arguments[0]) == PickleKind::kDict) return pickle.items(arguments[0]);
  if (const auto at = pairs.find(arguments[0]); at != pairs.end()) return items_at(at->second);
  const bool is_empty = is_kind(pickle, arguments[0], PickleKind::kList) && pickle.items(arguments[0]).empty();
  return is_empty ? std::optional(set) : std::nullopt;
}

TorchValue TorchFile::Impl::value(PickleNode node) const {
  switch (pickle.kind(node)) {
    case PickleKind::kNone:
      return {TorchKind::kNone};
    case PickleKind::kBool:
      return {TorchKind::kBool};
    case PickleKind::kInt:
      return {TorchKind::kInt};
    case PickleKind::kFloat:
      return {TorchKind::kFloat};
    case PickleKind::kText:
      return {TorchKind::kText};
    case PickleKind::kBytes:
      return {TorchKind::kBytes};
    case PickleKind::kTuple:
    case PickleKind::kList:
    case PickleKind::kSet:
    case PickleKind::kFrozenSet:
      return {TorchKind::kList, pickle.items(node)};
    case PickleKind::kDict:
      return {TorchKind::kDict, pickle.items(node)};
    case PickleKind::kGlobal: {
      const TorchGlobal global = meaning(node);
      return {global == TorchGlobal::kDType     ? TorchKind::kDType
              : global == TorchGlobal::kUnknown ? TorchKind::kForeign
                                                : TorchKind::kOther};
    }
    case PickleKind::kObject:
      return object_value(node);
    case PickleKind::kBigInt:
    case PickleKind::kPersistent:
      break;
  }
  return {TorchKind::kOther};
}

TorchValue TorchFile::Impl::object_value(PickleNode node) const {
  const PickleObject& object = pickle.object(node);
  const auto arguments = sequence(pickle, object.arguments);
  const PickleNode first = arguments.empty() ? kNoNode : arguments[0];
  const TorchGlobal made_by = meaning(class_of(object));
  if (rebuilds_tensor(made_by)) return {tensor_call(node) ? TorchKind::kTensor : TorchKind::kForeign};
  switch (made_by) {
    case TorchGlobal::kMapping:
    case TorchGlobal::kDefaultDict:
      if (const auto items = mapping(node)) return {TorchKind::kDict, *items};
      return {TorchKind::kForeign};
    case TorchGlobal::kSequence:
    case TorchGlobal::kScriptList:
      if (arguments.size() > 1) return {TorchKind::kForeign};
      if (is_kind(pickle, first, PickleKind::kSet)) return {TorchKind::kList, pickle.items(first)};
      return {TorchKind::kList, sequence(pickle, first)};
    case TorchGlobal::kTypeTag: {
      // The same value with its type beside it; torch never tags what is tagged.
      const bool tagged_twice = is_kind(pickle, first, PickleKind::kObject) &&
                                meaning(pickle.object(first).callable) == TorchGlobal::kTypeTag;
      if (arguments.size() != 2 || tagged_twice) return {TorchKind::kForeign};
      return value(first);
    }
    case TorchGlobal::kScriptClass:
      if (arguments.empty() && is_kind(pickle, object.state, PickleKind::kDict)) {
        return {TorchKind::kModule, pickle.items(object.state)};
      }
      return {TorchKind::kForeign};
    case TorchGlobal::kReconstructor:
      return {TorchKind::kForeign};
    case TorchGlobal::kUnknown: {
      const auto at = modules.find(object.state);
      if (at == modules.end()) return {TorchKind::kForeign};
      return {TorchKind::kModule, items_at(at->second)};
    }
    default:
      return {TorchKind::kOther};
  }
}

// --- The public questions -------------------------------------------------------------------------------------------

TorchKind TorchFile::kind(PickleNode node) const { return impl_->value(node).kind; }

std::span<const PickleNode> TorchFile::items(PickleNode node) const { return impl_->value(node).items; }

PickleNode TorchFile::find(PickleNode dict, std::string_view key) const {
  const TorchValue value = impl_->value(dict);
  if (value.kind != TorchKind::kDict && value.kind != TorchKind::kModule) return kNoNode;
  return find_text(impl_->pickle, value.items, key);
}

std::optional<std::string> TorchFile::key_text(PickleNode key) const {
  const Pickle& pickle = impl_->pickle;
  if (pickle.kind(key) == PickleKind::kText) return std::string(pickle.text(key));
  if (pickle.kind(key) == PickleKind::kInt) return std::to_string(pickle.integer(key));
  return std::nullopt;
}

PickleNode TorchFile::state_dict_metadata(PickleNode dict) const {
  const Pickle& pickle = impl_->pickle;
  if (kind(dict) != TorchKind::kDict || pickle.kind(dict) != PickleKind::kObject) return kNoNode;
  const PickleNode state = pickle.object(dict).state;
  if (!is_kind(pickle, state, PickleKind::kDict)) return kNoNode;
  const PickleNode metadata = find_text(pickle, pickle.items(state), "_metadata");
  return metadata != kNoNode && kind(metadata) == TorchKind::kDict ? metadata : kNoNode;
}

std::vector<TorchFile::Global> TorchFile::globals() const {
  const Pickle& pickle = impl_->pickle;
  const auto parts = [&](PickleNode node) { return std::pair(pickle.module(node), pickle.text(node)); };
  std::vector<PickleNode> nodes = pickle.globals();
  std::sort(nodes.begin(), nodes.end(), [&](PickleNode a, PickleNode b) { return parts(a) < parts(b); });
  nodes.erase(std::unique(nodes.begin(), nodes.end(), [&](PickleNode a, PickleNode b) { return parts(a) == parts(b); }),
              nodes.end());
  uint64_t bytes = 0;
  for (PickleNode node : nodes) bytes += sizeof(Global) + 32 + pickle.module(node).size() + pickle.text(node).size();
  if (bytes > impl_->memory) impl_->corrupt("the globals that it names take more memory than a file of this size may");
  std::vector<Global> globals;
  globals.reserve(nodes.size());
  for (PickleNode node : nodes) {
    const auto [module, name] = parts(node);
    globals.push_back({std::string(module) + "." + std::string(name), impl_->meaning(node) != TorchGlobal::kUnknown});
  }
  return globals;
}

}  // namespace ckpt::format
