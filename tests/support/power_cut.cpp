#include "support/power_cut.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <stdexcept>

#include "support/temp_dir.h"

namespace ckpt::test {
namespace fs = std::filesystem;
using io::Op;

// The tree in memory, twice: as the running system sees it and as the disk has it.
class PowerCutRecorder::Disk {
 public:
  Disk() { nodes_.push_back({'d', "", {}, {}, {}, {}}); }

  void put_original(const Original& original) {
    const int node = make(original.type, original.content);
    const auto [directory, name] = split(original.path);
    nodes_[directory].live[name] = nodes_[directory].durable[name] = node;
  }

  void apply(const Record& record) {
    switch (record.op) {
      case Op::kCreate:
        return change({{parent(record.path), base(record.path), make('f', "")}});
      case Op::kMkdir:
        return change({{parent(record.path), base(record.path), make('d', "")}});
      case Op::kLink:
        return change({{parent(record.path), base(record.path), make('l', record.target)}});
      case Op::kUnlink:
      case Op::kRmdir:
        return change({{parent(record.path), base(record.path), kNone}});
      case Op::kRename:
      case Op::kExchange:
        return move(record);
      case Op::kWrite:
      case Op::kTruncate:
      case Op::kAllocate:
        if (const int node = find(record.path); node != kNone) nodes_[node].unsynced.push_back(&record);
        return;
      case Op::kSync:
        if (const int node = find(record.path); node != kNone) sync(node);
        return;
      default:
        return;
    }
  }

  size_t unsynced_names() const { return pending_.size(); }
  bool has_unsynced_data() const {
    return std::any_of(nodes_.begin(), nodes_.end(), [](const Node& node) { return !node.unsynced.empty(); });
  }

  void power_off(size_t names_kept) {
    for (size_t i = 0; i < std::min(names_kept, pending_.size()); ++i) make_durable(pending_[i]);
    pending_.clear();
  }

  void write_out(const fs::path& into, DataFate fate, int node = 0) const {
    fs::create_directory(into);
    for (const auto& [name, child] : nodes_[node].durable) {
      const fs::path path = into / name;
      switch (nodes_[child].type) {
        case 'd':
          write_out(path, fate, child);
          break;
        case 'l':
          fs::create_symlink(nodes_[child].content, path);
          break;
        default:
          write_all(path.string(), content_after(nodes_[child], fate));
      }
    }
  }

 private:
  static constexpr int kNone = -1;

  struct Node {
    char type;
    std::string content;  // as of the last fsync; of a link: its text
    std::vector<const Record*> unsynced;
    std::map<std::string, int> live;
    std::map<std::string, int> durable;
    std::map<std::string, int> former;  // renamed away from here: for descriptors that know the old path
  };
  struct Change {
    int directory;
    std::string name;
    int node;
  };
  using NameOperation = std::vector<Change>;

  int make(char type, const std::string& content) {
    nodes_.push_back({type, content, {}, {}, {}, {}});
    return static_cast<int>(nodes_.size()) - 1;
  }

  static std::string base(const std::string& path) { return fs::path(path).filename().string(); }
  int parent(const std::string& path) const { return find(fs::path(path).parent_path().string()); }
  std::pair<int, std::string> split(const std::string& path) const { return {parent(path), base(path)}; }

  int find(const std::string& path) const {
    int node = 0;
    for (const fs::path& part : fs::path(path)) {
      if (node == kNone) return kNone;
      const Node& in = nodes_[node];
      if (auto found = in.live.find(part.string()); found != in.live.end()) {
        node = found->second;
      } else if (auto was = in.former.find(part.string()); was != in.former.end()) {
        node = was->second;
      } else {
        return kNone;
      }
    }
    return node;
  }

  void change(const NameOperation& operation) {
    for (const Change& one : operation) {
      if (one.directory == kNone) throw std::logic_error("a call below a directory that the recorder does not know");
      set(nodes_[one.directory].live, one);
    }
    pending_.push_back(operation);
  }

  void move(const Record& record) {
    const auto [from, from_name] = split(record.path);
    const auto [to, to_name] = split(record.target);
    const int moved = find(record.path);
    if (record.op == Op::kExchange) {
      return change({{from, from_name, find(record.target)}, {to, to_name, moved}});
    }
    nodes_[from].former[from_name] = moved;
    change({{from, from_name, kNone}, {to, to_name, moved}});
  }

  static void set(std::map<std::string, int>& names, const Change& one) {
    if (one.node == kNone) {
      names.erase(one.name);
    } else {
      names[one.name] = one.node;
    }
  }

  void make_durable(const NameOperation& operation) {
    for (const Change& one : operation) set(nodes_[one.directory].durable, one);
  }

  void sync(int node) {
    if (nodes_[node].type == 'f') {
      nodes_[node].content = content_after(nodes_[node], DataFate::kKept);
      nodes_[node].unsynced.clear();
      return;
    }
    std::vector<NameOperation> rest;
    for (const NameOperation& operation : pending_) {
      const bool here =
          std::any_of(operation.begin(), operation.end(), [&](const Change& one) { return one.directory == node; });
      if (here) {
        make_durable(operation);
      } else {
        rest.push_back(operation);
      }
    }
    pending_ = std::move(rest);
  }

  static std::string content_after(const Node& node, DataFate fate) {
    std::string content = node.content;
    if (fate == DataFate::kLost) return content;
    const auto is_write = [](const Record* record) { return record->op == Op::kWrite; };
    const auto last_write = std::find_if(node.unsynced.rbegin(), node.unsynced.rend(), is_write);
    for (const Record* record : node.unsynced) {
      if (record->op == Op::kTruncate) content.resize(record->size);
      if (record->op == Op::kAllocate) content.resize(std::max<size_t>(content.size(), record->size));
      if (record->op != Op::kWrite) continue;
      const bool torn = fate == DataFate::kTorn && record == *last_write;
      const size_t bytes = torn ? record->data.size() / 2 : record->data.size();
      content.resize(std::max<size_t>(content.size(), record->offset + bytes));
      if (fate == DataFate::kZeros) {
        std::fill_n(content.begin() + static_cast<long>(record->offset), bytes, '\0');
      } else {
        content.replace(record->offset, bytes, record->data, 0, bytes);
      }
      if (torn) break;
    }
    return content;
  }

  std::vector<Node> nodes_;
  std::vector<NameOperation> pending_;
};

PowerCutRecorder::PowerCutRecorder(std::string root) : root_(std::move(root)) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root_)) {
    std::string path;
    relative(entry.path().string(), &path);
    if (entry.is_symlink()) {
      originals_.push_back({path, 'l', fs::read_symlink(entry.path()).string()});
    } else if (entry.is_directory()) {
      originals_.push_back({path, 'd', ""});
    } else {
      originals_.push_back({path, 'f', read_all(entry.path().string())});
    }
  }
}

bool PowerCutRecorder::relative(const std::string& path, std::string* out) const {
  const std::string normal = fs::path(path).lexically_normal().string();
  if (normal == root_ || normal == root_ + "/") {
    out->clear();
    return true;
  }
  if (!normal.starts_with(root_ + "/")) return false;
  *out = normal.substr(root_.size() + 1);
  if (out->ends_with('/')) out->pop_back();
  return true;
}

void PowerCutRecorder::after(const io::Call& call, long result, int) {
  if (result < 0 || call.op >= Op::kFirstReading || call.op == Op::kClose || call.op == Op::kChmod) return;
  Record record;
  record.op = call.op;
  if (!relative(call.path, &record.path)) return;
  if (call.op == Op::kLink) record.target = call.target;
  const bool two = call.op == Op::kRename || call.op == Op::kExchange;
  if (two && !relative(call.target, &record.target)) throw std::logic_error("a rename out of the recorded tree");
  record.offset = call.offset;
  record.size = call.size;
  if (call.op == Op::kWrite) record.data.assign(static_cast<const char*>(call.data), static_cast<size_t>(result));
  std::lock_guard lock(mutex_);
  records_.push_back(std::move(record));
}

size_t PowerCutRecorder::calls() const {
  std::lock_guard lock(mutex_);
  return records_.size();
}

std::string PowerCutRecorder::describe(size_t call) const {
  std::lock_guard lock(mutex_);
  const Record& record = records_.at(call);
  std::string text = std::string(io::to_string(record.op)) + " " + (record.path.empty() ? "." : record.path);
  if (!record.target.empty()) text += " " + record.target;
  return text;
}

PowerCutRecorder::Disk PowerCutRecorder::replay(size_t calls) const {
  std::lock_guard lock(mutex_);
  Disk disk;
  for (const Original& original : originals_) disk.put_original(original);
  for (size_t i = 0; i < std::min(calls, records_.size()); ++i) disk.apply(records_[i]);
  return disk;
}

std::vector<Fate> PowerCutRecorder::fates(size_t calls) const {
  const Disk disk = replay(calls);
  std::vector<DataFate> data = {DataFate::kLost};
  if (disk.has_unsynced_data()) data = {DataFate::kLost, DataFate::kKept, DataFate::kTorn, DataFate::kZeros};
  std::vector<Fate> all;
  for (DataFate one : data) {
    for (size_t names = 0; names <= disk.unsynced_names(); ++names) all.push_back({one, names});
  }
  return all;
}

void PowerCutRecorder::materialise(size_t calls, Fate fate, const std::string& into) const {
  Disk disk = replay(calls);
  disk.power_off(fate.names);
  disk.write_out(into, fate.data);
}

}  // namespace ckpt::test
