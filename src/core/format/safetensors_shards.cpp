#include "core/format/safetensors_shards.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "core/base/quote.h"
#include "core/format/json_stream.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

constexpr size_t kMaxFileNameBytes = 255;

/// The weight_map of an index.
class WeightMap {
  static constexpr uint32_t kMarked = UINT32_MAX;
  struct Entry {
    uint64_t offset = 0;  ///< in names_
    uint32_t bytes = 0;
    uint32_t file = 0;
  };

 public:
  void add(std::string_view tensor, const std::string& file) {
    const auto place = files_.emplace(file, static_cast<uint32_t>(files_.size())).first;
    entries_.push_back({names_.size(), static_cast<uint32_t>(tensor.size()), place->second});
    names_ += tensor;
  }
  /// What it takes, while it grows too.
  static uint64_t cost(std::string_view tensor) { return 3 * (tensor.size() + sizeof(Entry)); }

  /// File names and the numbers of the files.
  const std::map<std::string, uint32_t>& files() const { return files_; }

  size_t size() const { return entries_.size(); }
  /// What was said of it by cost() and is not taken once it is sorted.
  uint64_t spare() const { return 2 * (names_.size() + entries_.size() * sizeof(Entry)); }

  /// Ends the adding. A name that is there twice, or std::nullopt.
  std::optional<std::string_view> sort() {
    names_.shrink_to_fit();
    entries_.shrink_to_fit();
    const auto before = [&](const Entry& a, const Entry& b) { return name(a) < name(b); };
    std::sort(entries_.begin(), entries_.end(), before);
    const auto twice = std::adjacent_find(entries_.begin(), entries_.end(),
                                          [&](const Entry& a, const Entry& b) { return name(a) == name(b); });
    if (twice == entries_.end()) return std::nullopt;
    return name(*twice);
  }
  /// False where that tensor is not in that file, or was marked before.
  bool mark(std::string_view tensor, uint32_t file) {
    const auto at = std::lower_bound(entries_.begin(), entries_.end(), tensor,
                                     [&](const Entry& entry, std::string_view wanted) { return name(entry) < wanted; });
    if (at == entries_.end() || name(*at) != tensor || at->file != file) return false;
    at->file = kMarked;
    return true;
  }
  /// A tensor and its file, or std::nullopt.
  std::optional<std::pair<std::string, std::string>> not_marked() const {
    const auto at =
        std::find_if(entries_.begin(), entries_.end(), [](const Entry& entry) { return entry.file != kMarked; });
    if (at == entries_.end()) return std::nullopt;
    const auto file =
        std::find_if(files_.begin(), files_.end(), [&](const auto& item) { return item.second == at->file; });
    return std::pair(std::string(name(*at)), file->first);
  }

 private:
  std::string_view name(const Entry& entry) const { return std::string_view(names_).substr(entry.offset, entry.bytes); }

  std::string names_;  // all of them: a string each would take several times that
  std::vector<Entry> entries_;
  std::map<std::string, uint32_t> files_;
};

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxFileNameBytes && name != "." && name != ".." && is_utf8(name) &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

class Handler : public JsonHandler {
 public:
  Handler(JsonText& text, uint64_t memory, WeightMap& map) : JsonHandler(text, memory), map_(map) {}

  bool has_map() const { return in_ == In::kDone && map_seen_; }

 private:
  enum class In { kNothing, kIndex, kMap, kDone };

  void on_object() override {
    if (in_ == In::kNothing) {
      in_ = In::kIndex;
    } else if (in_ == In::kIndex) {
      in_ = In::kMap;
    } else {
      unexpected("an object");
    }
  }
  void on_key(std::string& key) override {
    if (in_ == In::kMap) {
      if (key.size() > kMaxNameBytes) fail("a name of " + std::to_string(key.size()) + " bytes");
      name_ = std::move(key);
    } else if (key != "weight_map") {
      skip_value();
    } else if (map_seen_) {
      fail("weight_map is there twice");
    } else {
      map_seen_ = true;
    }
  }
  void on_text(std::string& file) override {
    if (in_ != In::kMap) unexpected("a text");
    if (!is_plain_file_name(file)) {
      fail("the file " + quote(file) + ", which is no plain file name,", ErrorCode::kUnsafe);
    }
    charge(WeightMap::cost(name_));
    if (!map_.files().contains(file)) charge(file.size() + 256);  // the open file too
    map_.add(name_, file);
    name_.clear();
  }
  void on_object_end() override { in_ = in_ == In::kMap ? In::kIndex : In::kDone; }

  WeightMap& map_;
  In in_ = In::kNothing;
  bool map_seen_ = false;
};

/// Takes what the map needs from `memory`.
WeightMap read_map(const io::File& file, uint64_t& memory) {
  WeightMap map;
  JsonText text(file, 0, file.stat().bytes, "index");
  Handler handler(text, memory, map);
  handler.parse();
  if (!handler.has_map()) text.fail(ErrorCode::kCorrupt, "it has no weight_map");
  if (const auto twice = map.sort()) {
    const std::string name(*twice);
    text.fail(ErrorCode::kCorrupt, "two tensors " + quote(name), name);
  }
  memory = handler.memory() + map.spare();
  return map;
}

/// Follows a link where it is one of the hub's cache, to a file that is no link itself.
io::File open_shard(const io::Directory& directory, const std::string& name) {
  const std::optional<std::string> link = directory.read_link(name);
  if (!link) return directory.open_file(name);
  constexpr std::string_view kBlobs = "../../blobs/";
  if (!link->starts_with(kBlobs) || !is_plain_file_name(std::string_view(*link).substr(kBlobs.size()))) {
    throw Error(ErrorCode::kUnsafe, directory.path_of(name),
                "a shard that is a link to " + quote(*link) + ", expected a file");
  }
  return io::Directory::open(directory.path_of("../..")).open_dir("blobs").open_file(link->substr(kBlobs.size()));
}

/// Every tensor of the shard must be one that the index has in it; marks these.
void check_shard(WeightMap& map, uint32_t place, std::span<const NamedTensor> tensors,
                 std::span<const OpaqueTensor> opaque, const std::string& path, const std::string& index_path) {
  const auto check = [&](const std::string& name) {
    if (map.mark(name, place)) return;
    throw Error(ErrorCode::kCorrupt, path,
                "tensor " + quote(name) + " is here, but not by the index " + quote(index_path), {.tensor = name});
  };
  for (const NamedTensor& named : tensors) check(named.name);
  for (const OpaqueTensor& other : opaque) check(other.name);
}

}  // namespace

ShardedIndex read_sharded(const io::File& index) {
  uint64_t memory = index.stat().bytes + kMemoryBeyondFile;
  const uint64_t before = memory;
  WeightMap map = read_map(index, memory);
  const uint64_t map_bytes = before - memory;
  const io::Directory directory = io::Directory::open(io::parent_path(index.path()));
  ShardedIndex sharded;
  sharded.files.reserve(map.files().size());
  for (const auto& [name, place] : map.files()) {
    sharded.files.push_back(std::make_shared<const io::File>(open_shard(directory, name)));
    memory += sharded.files.back()->stat().bytes;
  }
  // Room for all, and for what the last header may count beside tensors: itself and its metadata.
  const uint64_t room = map.size() + 2;
  if (room > memory / sizeof(NamedTensor)) {
    throw Error(ErrorCode::kCorrupt, index.path(), "names more tensors than files of this size may");
  }
  memory -= room * sizeof(NamedTensor);
  sharded.tensors.reserve(static_cast<size_t>(room));
  auto next = sharded.files.begin();
  for (const auto& [name, place] : map.files()) {
    const io::File& file = **next;
    const size_t first = sharded.tensors.size();
    SafetensorsIndex shard = read_safetensors(file, memory, std::move(sharded.tensors));
    sharded.tensors = std::move(shard.tensors);
    const std::span tensors = std::span(sharded.tensors).subspan(first);
    check_shard(map, place, tensors, shard.opaque, file.path(), index.path());
    for (NamedTensor& named : tensors) named.file = static_cast<uint32_t>(next - sharded.files.begin());
    std::move(shard.opaque.begin(), shard.opaque.end(), std::back_inserter(sharded.opaque));
    sharded.metadata.merge(shard.metadata);
    ++next;
  }
  if (const auto missing = map.not_marked()) {
    const auto& [name, file] = *missing;
    throw Error(ErrorCode::kCorrupt, index.path(),
                "tensor " + quote(name) + " is not in " + quote(file) + ", where the index has it", {.tensor = name});
  }
  sharded.memory_left = memory + map_bytes;  // the map goes now
  return sharded;
}

}  // namespace ckpt::format
