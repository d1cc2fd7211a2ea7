#include "core/format/archive_pickle.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "core/base/checked.h"
#include "core/base/quote.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

constexpr int kMaxDepth = 1000;
constexpr uint64_t kBytesOfOther = 128;  // a level or value without its name and content, with what points to it

bool is_class(std::string_view module) { return module == "__torch__" || module.starts_with("__torch__."); }

/// What torch itself puts into such a pickle, whether or not this reader can express it.
bool is_known_global(std::string_view module, std::string_view name) {
  if (is_class(module) || module == "torch.jit._pickle") return true;
  if (module == "collections") return name == "OrderedDict";
  if (module == "torch._utils") return name.starts_with("_rebuild_");
  return module == "torch" && (name.ends_with("Storage") || name == "device" || name == "Size");
}

/// What a subtree costs where it is expanded: once for each way that leads to it.
struct Extent {
  int height = 1;
  uint64_t tensors = 0;
  uint64_t name_bytes = 0;   ///< of all its tensors' joined names
  uint64_t others = 0;       ///< levels, texts, numbers, ...
  uint64_t other_bytes = 0;  ///< of its texts and lists
  uint64_t longest = 0;      ///< joined name
};

uint64_t content_bytes(const ArchiveValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return text->size();
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) return list->size() * sizeof(int64_t);
  if (const auto* list = std::get_if<std::vector<double>>(&value)) return list->size() * sizeof(double);
  return 0;
}

class Converter {
 public:
  Converter(const ZipReader& zip, const Pickle& pickle, uint64_t memory)
      : zip_(zip), pickle_(pickle), memory_(memory), types_(zip.records().size(), kNoType) {}

  std::shared_ptr<const Archive> root();

 private:
  struct Converted {
    std::shared_ptr<const Archive> archive;  ///< nullptr while it is under way: then it holds itself
    Extent extent;
  };
  static constexpr uint8_t kNoType = 0xff;

  /// An archive whose members are being made.
  struct Level {
    PickleNode node = kNoNode;
    std::span<const PickleNode> items;
    size_t next = 0;
    std::shared_ptr<Archive> made;
  };

  bool is_archive(PickleNode node) const;
  Level begin_archive(PickleNode node);
  void add_member(Level& level);
  void add_extent(Extent& to, const ArchiveValue& value, PickleNode node, size_t name_bytes);
  ArchiveValue value(PickleNode node);
  ArchiveValue object_value(PickleNode node);
  ArchiveValue list_value(const PickleObject& object);
  ArchiveValue plain_list(PickleNode node);
  template <class T>
  std::vector<T> list_of(std::span<const PickleNode> items);
  StoredTensor tensor(PickleNode node);
  const ZipRecord& storage(PickleNode node, StoredTensor& tensor, uint64_t& elements);
  std::vector<int64_t> integers(PickleNode node, const char* what);
  std::span<const PickleNode> tuple(PickleNode node, const char* what) const;

  [[noreturn]] void fail(ErrorCode code, const std::string& message) const;
  [[noreturn]] void corrupt(const std::string& message) const { fail(ErrorCode::kCorrupt, message); }
  void charge(uint64_t bytes);

  const ZipReader& zip_;
  const Pickle& pickle_;
  uint64_t memory_;
  std::vector<uint8_t> types_;  // of each record: the dtype it is used with
  std::unordered_map<PickleNode, Converted> archives_;
  std::vector<std::string_view> path_;
};

void Converter::fail(ErrorCode code, const std::string& message) const {
  std::string name;
  for (std::string_view part : path_) {
    if (!name.empty()) name += '.';
    name += part.substr(0, 200);
    if (name.size() > 400) break;  // quote() shortens it anyway
  }
  const std::string where = path_.empty() ? "archive: " : "archive member " + quote(name) + ": ";
  throw Error(code, zip_.file().path(), where + message, {.tensor = name});
}

void Converter::charge(uint64_t bytes) {
  if (bytes > memory_) corrupt("what it holds takes more memory than a file of this size may");
  memory_ -= bytes;
}

std::shared_ptr<const Archive> Converter::root() {
  for (PickleNode global : pickle_.globals()) {
    const std::string_view module = pickle_.module(global), name = pickle_.text(global);
    if (!is_known_global(module, name)) {
      fail(ErrorCode::kUnsafe, "it names the global " + quote(std::string(module) + "." + std::string(name)) +
                                   ", which no archive of torch::serialize holds");
    }
  }
  const PickleNode node = pickle_.root();
  if (!is_archive(node)) {
    fail(ErrorCode::kUnsupported, "expected what torch::serialize writes (a module), found another pickled value");
  }
  // A stack of our own: a thread's may be too small for a depth that the file chooses.
  std::vector<Level> levels;
  levels.push_back(begin_archive(node));
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.next == level.items.size()) {
      if (const std::string* twice = level.made->index()) corrupt("two members " + quote(*twice));
      archives_[level.node].archive = std::move(level.made);
      levels.pop_back();
      if (!path_.empty()) path_.pop_back();
      continue;
    }
    const PickleNode name = level.items[level.next], value = level.items[level.next + 1];
    if (pickle_.kind(name) != PickleKind::kText) corrupt("an attribute whose name is no text");
    path_.push_back(pickle_.text(name));
    if (path_.back().size() > kMaxNameBytes) corrupt("a name of " + std::to_string(path_.back().size()) + " bytes");
    if (is_archive(value) && !archives_.contains(value)) {
      levels.push_back(begin_archive(value));  // and then this member again
      continue;
    }
    add_member(level);
    path_.pop_back();
  }
  const Converted& converted = archives_.at(node);
  const uint64_t each = sizeof(NamedTensor) + 64;
  const auto tensors = checked_mul(converted.extent.tensors, each);
  charge(tensors.value_or(UINT64_MAX));
  charge(converted.extent.name_bytes);
  charge(checked_mul(converted.extent.others, kBytesOfOther).value_or(UINT64_MAX));
  charge(converted.extent.other_bytes);
  return converted.archive;
}

bool Converter::is_archive(PickleNode node) const {
  if (pickle_.kind(node) != PickleKind::kObject || !pickle_.object(node).is_new) return false;
  const PickleNode callable = pickle_.object(node).callable;
  return pickle_.kind(callable) == PickleKind::kGlobal && is_class(pickle_.module(callable));
}

Converter::Level Converter::begin_archive(PickleNode node) {
  if (path_.size() >= kMaxDepth) corrupt("more than 1,000 archives inside each other");
  archives_[node];
  const PickleObject& object = pickle_.object(node);
  if (!tuple(object.arguments, "arguments of a class").empty() || object.keywords != kNoNode ||
      object.list != kNoNode || object.dict != kNoNode || object.state == kNoNode) {
    corrupt("expected an object with attributes alone");
  }
  if (pickle_.kind(object.state) != PickleKind::kDict) {
    fail(ErrorCode::kUnsupported, "an object with a state of its own");
  }
  Level level{.node = node, .items = pickle_.items(object.state), .next = 0, .made = std::make_shared<Archive>()};
  const size_t members = level.items.size() / 2;
  charge(sizeof(Converted) + sizeof(Archive) + 64 + members * (sizeof(level.made->members[0]) + sizeof(uint32_t)));
  level.made->members.reserve(members);
  return level;
}

void Converter::add_member(Level& level) {
  const PickleNode node = level.items[level.next + 1];
  charge(path_.back().size());
  level.made->members.emplace_back(path_.back(), value(node));
  add_extent(archives_.at(level.node).extent, level.made->members.back().second, node, path_.back().size());
  level.next += 2;
}

void Converter::add_extent(Extent& to, const ArchiveValue& value, PickleNode node, size_t name_bytes) {
  Extent more{.height = 0, .longest = name_bytes};
  if (std::holds_alternative<StoredTensor>(value)) {
    more.tensors = 1;
    more.name_bytes = name_bytes;
  } else if (const auto* list = std::get_if<std::vector<StoredTensor>>(&value)) {
    more.tensors = list->size();
    more.name_bytes = list->size() * (name_bytes + 21);
  } else if (std::holds_alternative<std::shared_ptr<const Archive>>(value)) {
    more = archives_.at(node).extent;
    const auto prefixes = checked_mul(more.tensors, name_bytes + 1);
    const auto names = prefixes ? checked_add(more.name_bytes, *prefixes) : std::nullopt;
    more.name_bytes = names.value_or(UINT64_MAX);
    more.others = checked_add(more.others, 1).value_or(UINT64_MAX);
    more.longest += name_bytes + 1;
  } else {
    more.others = 1;
    more.other_bytes = content_bytes(value);
  }
  to.height = std::max(to.height, more.height + 1);
  to.longest = std::max(to.longest, more.longest);
  for (const auto part : {&Extent::tensors, &Extent::name_bytes, &Extent::others, &Extent::other_bytes}) {
    to.*part = checked_add(to.*part, more.*part).value_or(UINT64_MAX);
    if (to.*part > memory_) charge(UINT64_MAX);
  }
  if (to.height + static_cast<int>(path_.size()) > kMaxDepth + 1) corrupt("more than 1,000 archives inside each other");
  if (to.longest > kMaxNameBytes) corrupt("a name of " + std::to_string(to.longest) + " bytes");
}

ArchiveValue Converter::value(PickleNode node) {
  switch (pickle_.kind(node)) {
    case PickleKind::kNone:
      return std::monostate();
    case PickleKind::kBool:
      return pickle_.boolean(node);
    case PickleKind::kInt:
      return pickle_.integer(node);
    case PickleKind::kFloat:
      return pickle_.number(node);
    case PickleKind::kText:
      charge(pickle_.text(node).size());
      return std::string(pickle_.text(node));
    case PickleKind::kObject:
      return object_value(node);
    case PickleKind::kTuple:
    case PickleKind::kList:
      return plain_list(node);
    default:
      fail(ErrorCode::kUnsupported, "a value that is no number, text, tensor, archive or typed list");
  }
}

// Adam's betas are a tuple of two floats.
ArchiveValue Converter::plain_list(PickleNode node) {
  const auto items = pickle_.items(node);
  const auto all = [&](PickleKind kind) {
    return std::all_of(items.begin(), items.end(), [&](PickleNode item) { return pickle_.kind(item) == kind; });
  };
  if (all(PickleKind::kInt)) return list_of<int64_t>(items);
  if (all(PickleKind::kFloat)) return list_of<double>(items);
  fail(ErrorCode::kUnsupported, "a list or tuple of other things than integers alone or floats alone");
}

template <class T>
std::vector<T> Converter::list_of(std::span<const PickleNode> items) {
  constexpr PickleKind kKind = std::is_same_v<T, int64_t>  ? PickleKind::kInt
                               : std::is_same_v<T, double> ? PickleKind::kFloat
                                                           : PickleKind::kObject;
  charge(items.size() * sizeof(T));
  std::vector<T> list;
  list.reserve(items.size());
  for (PickleNode item : items) {
    if (pickle_.kind(item) != kKind) corrupt("an item of another type than its list");
    if constexpr (kKind == PickleKind::kInt)
      list.push_back(pickle_.integer(item));
    else if constexpr (kKind == PickleKind::kFloat)
      list.push_back(pickle_.number(item));
    else
      list.push_back(tensor(item));
  }
  return list;
}

ArchiveValue Converter::object_value(PickleNode node) {
  const PickleObject& object = pickle_.object(node);
  if (pickle_.kind(object.callable) != PickleKind::kGlobal) corrupt("it calls something that is no global");
  const std::string_view module = pickle_.module(object.callable), name = pickle_.text(object.callable);
  if (is_archive(node)) {
    const std::shared_ptr<const Archive>& made = archives_.at(node).archive;
    if (!made) corrupt("it holds itself");
    return made;
  }
  if (!object.is_new && module == "torch.jit._pickle") return list_value(object);
  if (!object.is_new && module == "torch._utils" && name == "_rebuild_tensor_v2") return tensor(node);
  fail(ErrorCode::kUnsupported, "a value made by " + quote(std::string(module) + "." + std::string(name)));
}

ArchiveValue Converter::list_value(const PickleObject& object) {
  const std::string_view name = pickle_.text(object.callable);
  const auto arguments = tuple(object.arguments, "arguments of a list");
  if (arguments.size() != 1 || pickle_.kind(arguments[0]) != PickleKind::kList) {
    fail(ErrorCode::kUnsupported, "a value made by " + quote("torch.jit._pickle." + std::string(name)));
  }
  const auto items = pickle_.items(arguments[0]);
  if (name == "build_intlist") return list_of<int64_t>(items);
  if (name == "build_doublelist") return list_of<double>(items);
  if (name == "build_tensorlist") return list_of<StoredTensor>(items);
  fail(ErrorCode::kUnsupported, "a value made by " + quote("torch.jit._pickle." + std::string(name)));
}

std::span<const PickleNode> Converter::tuple(PickleNode node, const char* what) const {
  if (pickle_.kind(node) != PickleKind::kTuple) corrupt(std::string("expected a tuple as ") + what);
  return pickle_.items(node);
}

std::vector<int64_t> Converter::integers(PickleNode node, const char* what) {
  const auto items = tuple(node, what);
  if (items.size() > kMaxRank) corrupt("expected at most 64 dimensions, found " + std::to_string(items.size()));
  charge(items.size() * sizeof(int64_t) + 16);
  std::vector<int64_t> values;
  values.reserve(items.size());
  for (PickleNode item : items) {
    if (pickle_.kind(item) != PickleKind::kInt) corrupt(std::string("expected integers as ") + what);
    values.push_back(pickle_.integer(item));
  }
  return values;
}

StoredTensor Converter::tensor(PickleNode node) {
  const PickleObject& object = pickle_.object(node);
  if (!pickle_.is_global(object.callable, "torch._utils", "_rebuild_tensor_v2") || object.is_new) {
    fail(ErrorCode::kUnsupported, "a tensor not made by _rebuild_tensor_v2 (quantized, sparse or undefined)");
  }
  // storage, offset, sizes, strides, requires_grad, hooks [, metadata]
  const auto arguments = tuple(object.arguments, "arguments of a tensor");
  if (arguments.size() != 6 && arguments.size() != 7) {
    corrupt("expected 6 or 7 arguments of a tensor, found " + std::to_string(arguments.size()));
  }
  if (arguments.size() == 7 && pickle_.kind(arguments[6]) != PickleKind::kNone &&
      (pickle_.kind(arguments[6]) != PickleKind::kDict || !pickle_.items(arguments[6]).empty())) {
    fail(ErrorCode::kUnsupported, "a tensor with math bits (conjugated or negated)");
  }
  if (pickle_.kind(arguments[1]) != PickleKind::kInt || pickle_.kind(arguments[4]) != PickleKind::kBool) {
    corrupt("arguments of a tensor have the wrong types");
  }
  StoredTensor tensor;
  uint64_t storage_elements = 0;
  const ZipRecord& record = storage(arguments[0], tensor, storage_elements);
  tensor.shape = integers(arguments[2], "sizes");
  tensor.strides = integers(arguments[3], "strides");
  tensor.is_parameter = pickle_.boolean(arguments[4]);
  const uint64_t file_bytes = zip_.directory_offset();
  const std::string wrong =
      place_in_storage(tensor, pickle_.integer(arguments[1]), storage_elements, file_bytes + (64 << 20));
  if (!wrong.empty()) corrupt("tensor in zip record " + quote(record.name) + ": " + wrong);
  return tensor;
}

const ZipRecord& Converter::storage(PickleNode node, StoredTensor& tensor, uint64_t& elements) {
  if (pickle_.kind(node) != PickleKind::kPersistent) corrupt("a tensor whose storage is no persistent id");
  // "storage", class, key, location, elements
  const auto id = tuple(pickle_.items(node)[0], "the persistent id of a storage");
  const auto is_text = [&](size_t i) { return pickle_.kind(id[i]) == PickleKind::kText; };
  if (id.size() != 5 || !is_text(0) || pickle_.text(id[0]) != "storage" || pickle_.kind(id[1]) != PickleKind::kGlobal ||
      !is_text(2) || !is_text(3) || pickle_.kind(id[4]) != PickleKind::kInt || pickle_.integer(id[4]) < 0) {
    corrupt("a persistent id that is not (\"storage\", class, key, location, elements)");
  }
  const auto dtype = pickle_.module(id[1]) == "torch" ? dtype_from_storage_class(pickle_.text(id[1])) : std::nullopt;
  if (!dtype) fail(ErrorCode::kUnsupported, "a storage of class " + quote(pickle_.text(id[1])));
  const std::string name = "data/" + std::string(pickle_.text(id[2]).substr(0, kMaxNameBytes));
  const ZipRecord* record = zip_.find(name);
  if (!record) corrupt("its zip record " + quote(name) + " is not there");
  if (record->deflated) fail(ErrorCode::kUnsupported, "zip record " + quote(name) + " is deflated");
  uint8_t& type = types_[static_cast<size_t>(record - zip_.records().data())];
  if (type != kNoType && type != static_cast<uint8_t>(*dtype)) {
    corrupt("zip record " + quote(name) + " is used with two dtypes");
  }
  type = static_cast<uint8_t>(*dtype);
  elements = static_cast<uint64_t>(pickle_.integer(id[4]));
  if (record->bytes / width(*dtype) != elements) {
    corrupt("expected " + std::to_string(elements) + " elements of " + std::string(ckpt::name(*dtype)) +
            " in zip record " + quote(name) + ", found " + std::to_string(record->bytes) + " bytes");
  }
  charge(record->name.size());
  tensor.dtype = *dtype;
  tensor.record = record->name;
  tensor.storage_offset = record->data_offset;
  tensor.storage_bytes = record->bytes;
  return *record;
}

}  // namespace

std::shared_ptr<const Archive> archive_from_pickle(const ZipReader& zip, const Pickle& pickle, uint64_t memory) {
  return Converter(zip, pickle, memory).root();
}

}  // namespace ckpt::format
