// The format of torch.save before 1.6: pickles one after the other, then the storages.
#include <tuple>

#include "core/base/quote.h"
#include "core/format/pickle_length.h"
#include "core/format/torch_file_impl.h"
#include "core/format/window.h"

namespace ckpt::format {
namespace {

constexpr std::string_view kMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";  // 0x1950a86a20f9469cfc6c
constexpr int64_t kProtocol = 1001;
constexpr uint64_t kMaxHeadBytes = 65536;  // of each of the three pickles before the object
// What is read at once of the counts before storages: small ones stand close together; of large ones, each is alone.
constexpr size_t kCountChunk = 4096;

PickleNode value_at(const Pickle& pickle, PickleNode dict, std::string_view key) {
  if (pickle.kind(dict) != PickleKind::kDict) return kNoNode;
  const auto items = pickle.items(dict);
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (pickle.kind(items[i]) == PickleKind::kText && pickle.text(items[i]) == key) return items[i + 1];
  }
  return kNoNode;
}

}  // namespace

// The storages are little-endian whatever `little_endian` says: torch turns them around where it runs on another
// machine, and looks at the sizes of C's types only to write them down.
void TorchFile::Impl::check_system(const Pickle& system) const {
  const PickleNode sizes = value_at(system, system.root(), "type_sizes");
  if (sizes == kNoNode) corrupt("legacy file: the description of the system has no type_sizes");
  for (const auto& [type, usual, wide] : {std::tuple{"short", 2, 2}, {"int", 4, 4}, {"long", 4, 8}}) {
    const PickleNode node = value_at(system, sizes, type);
    if (node == kNoNode || system.kind(node) != PickleKind::kInt) {
      corrupt("legacy file: the description of the system has no size of " + quote(type));
    }
    if (const int64_t size = system.integer(node); size != usual && size != wide) {
      fail(ErrorCode::kUnsupported,
           "legacy file: of a system where " + std::string(type) + " has " + std::to_string(size) + " bytes");
    }
  }
}

void TorchFile::Impl::open_legacy() {
  uint64_t offset = 0;
  const auto next = [&](uint64_t limit) {
    const uint64_t length = pickle_length(*file, offset, offset + std::min(limit, file_bytes - offset));
    Pickle parsed = parse(file->read_at(offset, length), offset);
    offset += length;
    return parsed;
  };
  const Pickle magic = next(kMaxHeadBytes);
  if (magic.kind(magic.root()) != PickleKind::kBigInt || magic.text(magic.root()) != kMagic) {
    corrupt("a pickle that torch.save did not write: it does not begin with its magic number");
  }
  const Pickle protocol = next(kMaxHeadBytes);
  if (protocol.kind(protocol.root()) != PickleKind::kInt) corrupt("legacy file: expected its protocol's number");
  if (const int64_t found = protocol.integer(protocol.root()); found != kProtocol) {
    fail(ErrorCode::kUnsupported, "legacy file: expected protocol 1001, found " + std::to_string(found));
  }
  check_system(next(kMaxHeadBytes));
  pickle = next(std::min(memory, kMaxPickleBytes));
  index_pickle();
  const uint64_t before = memory;
  const Pickle keys = next(std::min(memory, kMaxPickleBytes));
  place_storages(keys, offset);
  memory = before + storage_of_key.size() * kKeyBytes;  // neither list of keys is kept
  storage_of_key = {};
}

/// `keys` is the order of the storages, which begin at `offset`.
void TorchFile::Impl::place_storages(const Pickle& keys, uint64_t offset) {
  if (keys.kind(keys.root()) != PickleKind::kList) corrupt("legacy file: expected a list of the storages' keys");
  const uint64_t distance = (file_bytes - offset) / std::max<size_t>(storages.size(), 1);
  Window window(*file, file_bytes, distance < kCountChunk / 2 ? kCountChunk : sizeof(uint64_t));
  for (PickleNode node : keys.items(keys.root())) {
    if (keys.kind(node) != PickleKind::kText) corrupt("legacy file: a storage's key is no text");
    const std::string_view key = keys.text(node);
    const auto at = storage_of_key.find(key);
    if (at == storage_of_key.end()) corrupt("legacy file: no tensor is in storage " + quote(key));
    TorchStorage& storage = storages[at->second];
    if (storage.offset != 0) corrupt("legacy file: storage " + quote(key) + " is listed twice");
    const auto count = load_le<uint64_t>(window.view(offset, sizeof(uint64_t)).data());
    if (count != storage.elements) {
      throw Error(ErrorCode::kCorrupt, file->path(),
                  "legacy file: expected " + std::to_string(storage.elements) + " elements in storage " + quote(key) +
                      ", found " + std::to_string(count),
                  {.offset = offset});
    }
    storage.offset = offset + sizeof(uint64_t);
    if (storage.bytes > file_bytes - storage.offset) {
      throw Error(ErrorCode::kCorrupt, file->path(),
                  "cut off: expected " + std::to_string(storage.bytes) + " bytes of storage " + quote(key) +
                      ", found " + std::to_string(file_bytes - storage.offset),
                  {.offset = storage.offset});
    }
    offset = storage.offset + storage.bytes;
  }
  const auto is_missing = [&](const auto& each) { return storages[each.second].offset == 0; };
  if (const auto at = std::find_if(storage_of_key.begin(), storage_of_key.end(), is_missing);
      at != storage_of_key.end()) {
    corrupt("legacy file: the list of storages lacks " + quote(at->first));
  }
  if (offset != file_bytes) {
    throw Error(ErrorCode::kCorrupt, file->path(),
                "legacy file: " + std::to_string(file_bytes - offset) + " bytes follow the last storage",
                {.offset = offset});
  }
}

}  // namespace ckpt::format
