// The tensors of a tree, under their dotted names.
//
// A file chooses how deep its values nest, and how often each is used: ten lists that hold the next one ten times are
// ten thousand million ways. So the first pass visits each value once, and keeps of each container only what has
// tensors below it; the second takes every way, and each of its steps leads to a tensor.
#include <deque>
#include <unordered_map>

#include "core/base/checked.h"
#include "core/base/quote.h"
#include "core/format/archive.h"
#include "core/format/tensor_check.h"
#include "core/format/torch_file.h"

namespace ckpt::format {
namespace {

constexpr size_t kMaxDepth = 1000;
constexpr uint64_t kMapEntryBytes = 64;

bool is_container(TorchKind kind) {
  return kind == TorchKind::kDict || kind == TorchKind::kList || kind == TorchKind::kModule;
}

class Collector {
 public:
  explicit Collector(const TorchFile& file) : file_(file), memory_(file.memory_left()) {}

  TensorsBelow collect(PickleNode node);

 private:
  /// Something in a container that is a tensor, foreign, or a container with such below it.
  struct Entry {
    PickleNode key = kNoNode;  ///< kNoNode: in a list
    uint32_t place = 0;
    PickleNode value = kNoNode;
    TorchKind kind = TorchKind::kTensor;
  };
  struct Level {
    size_t first = 0;  ///< in entries_
    size_t size = 0;
    bool is_done = false;
    // What all ways to below it lead to.
    uint64_t tensors = 0;
    uint64_t foreign = 0;
  };
  struct Visit {
    PickleNode node = kNoNode;
    std::span<const PickleNode> items;
    size_t step = 1;
    size_t next = 0;
    size_t pending = 0;  ///< its entries in pending_ begin here
  };
  struct Way {
    const Level* level = nullptr;
    size_t next = 0;
    size_t name_bytes = 0;  ///< of what stands before the names of its entries
  };

  void prepare(PickleNode node);
  void begin(std::vector<Visit>& visits, PickleNode node, TorchKind kind);
  void add_next(std::vector<Visit>& visits);
  void finish(const Visit& visit);
  void emit(PickleNode node);
  bool append_key(const Entry& entry);
  void add_tensor(PickleNode node);
  void add_foreign();
  [[noreturn]] void corrupt(const std::string& message) const {
    throw Error(ErrorCode::kCorrupt, file_.path(), message);
  }
  void charge(uint64_t bytes);

  const TorchFile& file_;
  uint64_t memory_;
  // Deques never copy what they hold to grow.
  std::deque<Entry> pending_;  // of the containers on the way, the innermost last
  std::deque<Entry> entries_;
  std::unordered_map<PickleNode, Level> levels_;
  std::string name_;
  TensorsBelow result_;
};

void Collector::charge(uint64_t bytes) {
  if (bytes > memory_)
    corrupt("the tensors in it, under all their names, take more memory than a file of this size may");
  memory_ -= bytes;
}

TensorsBelow Collector::collect(PickleNode node) {
  const TorchKind kind = file_.kind(node);
  if (is_container(kind)) {
    prepare(node);
    emit(node);
  } else {
    name_ = "tensor";
    if (kind == TorchKind::kTensor) add_tensor(node);
    if (kind == TorchKind::kForeign) add_foreign();
  }
  return std::move(result_);
}

void Collector::begin(std::vector<Visit>& visits, PickleNode node, TorchKind kind) {
  if (visits.size() >= kMaxDepth) corrupt("more than 1,000 values inside each other");
  charge(sizeof(Level) + kMapEntryBytes);
  levels_.emplace(node, Level());
  const size_t step = kind == TorchKind::kList ? 1 : 2;
  visits.push_back({.node = node, .items = file_.items(node), .step = step, .pending = pending_.size()});
}

void Collector::prepare(PickleNode node) {
  // A stack of our own: a thread's may be too small for a depth that the file chooses.
  std::vector<Visit> visits;
  begin(visits, node, file_.kind(node));
  while (!visits.empty()) {
    if (visits.back().items.size() - visits.back().next >= visits.back().step) {
      add_next(visits);
    } else {
      finish(visits.back());
      visits.pop_back();
    }
  }
}

void Collector::add_next(std::vector<Visit>& visits) {
  Visit& visit = visits.back();
  const bool is_list = visit.step == 1;
  const PickleNode value = visit.items[visit.next + visit.step - 1];
  const TorchKind kind = file_.kind(value);
  if (is_container(kind)) {
    const auto known = levels_.find(value);
    if (known == levels_.end()) return begin(visits, value, kind);  // and then this item again
    if (!known->second.is_done) corrupt("a value that holds itself");
    if (known->second.size == 0) return void(visit.next += visit.step);
  }
  if (is_container(kind) || kind == TorchKind::kTensor || kind == TorchKind::kForeign) {
    charge(2 * sizeof(Entry));  // there, and among the entries
    const PickleNode key = is_list ? kNoNode : visit.items[visit.next];
    pending_.push_back({key, static_cast<uint32_t>(visit.next), value, kind});
  }
  visit.next += visit.step;
}

void Collector::finish(const Visit& visit) {
  Level& level = levels_.at(visit.node);
  level.first = entries_.size();
  level.size = pending_.size() - visit.pending;
  level.is_done = true;
  entries_.insert(entries_.end(), pending_.begin() + static_cast<ptrdiff_t>(visit.pending), pending_.end());
  pending_.resize(visit.pending);
  for (size_t i = 0; i < level.size; ++i) {
    const Entry& entry = entries_[level.first + i];
    uint64_t tensors = entry.kind == TorchKind::kTensor, foreign = entry.kind == TorchKind::kForeign;
    if (is_container(entry.kind)) {
      tensors = levels_.at(entry.value).tensors;
      foreign = levels_.at(entry.value).foreign;
    }
    level.tensors = checked_add(level.tensors, tensors).value_or(UINT64_MAX);
    level.foreign = checked_add(level.foreign, foreign).value_or(UINT64_MAX);
  }
}

void Collector::emit(PickleNode node) {
  const Level& root = levels_.at(node);
  charge(checked_mul(root.tensors, sizeof(NamedTensor)).value_or(UINT64_MAX));
  charge(checked_mul(root.foreign, sizeof(std::string)).value_or(UINT64_MAX));
  result_.tensors.reserve(static_cast<size_t>(root.tensors));
  result_.foreign.reserve(static_cast<size_t>(root.foreign));
  std::vector<Way> ways{{.level = &root}};
  while (!ways.empty()) {
    Way& way = ways.back();
    if (way.next == way.level->size) {
      ways.pop_back();
      continue;
    }
    const Entry& entry = entries_[way.level->first + way.next++];
    name_.resize(way.name_bytes);
    if (!append_key(entry)) {
      name_ += '?';
      add_foreign();
    } else if (entry.kind == TorchKind::kTensor) {
      add_tensor(entry.value);
    } else if (entry.kind == TorchKind::kForeign) {
      add_foreign();
    } else {
      if (ways.size() >= kMaxDepth) corrupt("more than 1,000 values inside each other");
      name_ += '.';
      ways.push_back({.level = &levels_.at(entry.value), .name_bytes = name_.size()});
    }
  }
}

/// False where no name can be made of it.
bool Collector::append_key(const Entry& entry) {
  if (entry.key == kNoNode) {
    name_ += std::to_string(entry.place);
    return true;
  }
  const std::optional<std::string> key = file_.key_text(entry.key);
  if (!key) return false;
  name_ += file_.is_training_state() ? unescape_name(*key) : *key;
  if (name_.size() > kMaxNameBytes) corrupt("a name of " + std::to_string(name_.size()) + " bytes");
  if (!is_utf8(*key)) corrupt("the name " + quote(name_) + " is not UTF-8");
  return true;
}

void Collector::add_tensor(PickleNode node) {
  try {
    result_.tensors.push_back({name_, file_.tensor(node)});
  } catch (const Error& error) {
    throw Error(error.code(), error.path(), "tensor " + quote(name_) + ": " + error.message(), {.tensor = name_});
  }
  const StoredTensor& tensor = result_.tensors.back().stored;
  const uint64_t numbers = 8 * (tensor.shape.size() + tensor.strides.size());
  charge(name_.size() + 16 + numbers + 32 + (tensor.record.size() > 15 ? tensor.record.size() + 16 : 0));
}

void Collector::add_foreign() {
  charge(name_.size() + 16);
  result_.foreign.push_back(name_);
}

}  // namespace

TensorsBelow tensors_below(const TorchFile& file, PickleNode node) { return Collector(file).collect(node); }

}  // namespace ckpt::format
