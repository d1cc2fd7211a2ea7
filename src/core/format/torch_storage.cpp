// Persistent ids, and the storages that they mean.
#include "core/base/checked.h"
#include "core/base/quote.h"
#include "core/format/tensor_check.h"
#include "core/format/torch_file_impl.h"

namespace ckpt::format {
namespace {

/// Storages mostly lie in the file as the pickle names them: the record behind the last one is looked at first.
const ZipRecord* find_record(const ZipReader& zip, const std::string& name, const ZipRecord* last) {
  if (last != nullptr && last != &zip.records().back() && last[1].name == name) return last + 1;
  return zip.find(name);
}

}  // namespace

std::optional<TorchStorageId> TorchFile::Impl::storage_id(PickleNode node) const {
  const PickleNode tuple = pickle.items(node)[0];
  const auto id = pickle.kind(tuple) == PickleKind::kTuple ? pickle.items(tuple) : std::span<const PickleNode>();
  const auto is = [&](size_t i, PickleKind kind) { return i < id.size() && pickle.kind(id[i]) == kind; };
  const auto is_count = [&](PickleNode number) {
    return pickle.kind(number) == PickleKind::kInt && pickle.integer(number) >= 0;
  };
  if (!zip && id.size() == 4 && is(0, PickleKind::kText) && pickle.text(id[0]) == "module") return std::nullopt;
  // The legacy format has a sixth part: None, or (key, offset, size) of a view, both in elements.
  const bool has_view = !zip && id.size() == 6;
  if ((id.size() != 5 && !has_view) || !is(0, PickleKind::kText) || pickle.text(id[0]) != "storage" ||
      !is(1, PickleKind::kGlobal) || !is(2, PickleKind::kText) || !is(3, PickleKind::kText) || !is_count(id[4])) {
    corrupt("pickle: a persistent id that is not (\"storage\", class, key, location, elements)");
  }
  TorchStorageId result;
  result.class_name = pickle.text(id[1]);
  const bool is_storage = meaning(id[1]) == TorchGlobal::kStorage;
  const bool is_untyped = is_storage && result.class_name.ends_with("UntypedStorage");
  if (is_storage) result.dtype = is_untyped ? DType::kUInt8 : dtype_from_storage_class(result.class_name);
  result.key = pickle.text(id[2]);
  if (result.key.size() > kMaxLookedUpBytes) corrupt("pickle: a storage key of more than 1 KiB");
  result.elements = result.view_elements = static_cast<uint64_t>(pickle.integer(id[4]));
  if (!has_view || pickle.kind(id[5]) == PickleKind::kNone) return result;

  const auto view = pickle.kind(id[5]) == PickleKind::kTuple ? pickle.items(id[5]) : std::span<const PickleNode>();
  if (view.size() != 3 || pickle.kind(view[0]) != PickleKind::kText || !is_count(view[1]) || !is_count(view[2])) {
    corrupt("pickle: a view of a storage that is not (key, offset, size)");
  }
  result.view_first = static_cast<uint64_t>(pickle.integer(view[1]));
  result.view_elements = static_cast<uint64_t>(pickle.integer(view[2]));
  if (result.view_first > result.elements || result.view_elements > result.elements - result.view_first) {
    corrupt("storage " + quote(result.key) + ": a view of " + std::to_string(result.view_elements) + " elements from " +
            std::to_string(result.view_first) + " leaves its " + std::to_string(result.elements));
  }
  return result;
}

/// The place in `storages` of an id whose dtype is known.
uint32_t TorchFile::Impl::storage_place(const TorchStorageId& id) {
  const auto next = static_cast<uint32_t>(storages.size());
  if (!zip) {
    const auto [at, is_new] = storage_of_key.try_emplace(id.key, next);
    if (is_new) {
      charge(sizeof(TorchStorage) + kKeyBytes);
      const auto bytes = checked_mul(id.elements, width(*id.dtype));
      if (!bytes || *bytes > file_bytes) {
        corrupt("storage " + quote(id.key) + ": " + std::to_string(id.elements) + " elements of " +
                std::string(name(*id.dtype)) + " cannot be in a file of " + std::to_string(file_bytes) + " bytes");
      }
      storages.push_back({.bytes = *bytes, .elements = id.elements, .dtype = *id.dtype});
    }
    return at->second;
  }
  const std::string record_name = "data/" + std::string(id.key);
  const ZipRecord* record = find_record(*zip, record_name, storages.empty() ? nullptr : storages.back().record);
  if (!record) corrupt("zip record " + quote(record_name) + " of a tensor is not there");
  if (record->deflated) fail(ErrorCode::kUnsupported, "zip record " + quote(record_name) + " of a tensor is deflated");
  uint32_t& place = storage_of_record[static_cast<size_t>(record - zip->records().data())];
  if (place == UINT32_MAX) {
    charge(sizeof(TorchStorage));
    place = next;
    storages.push_back({record->data_offset, record->bytes, id.elements, *id.dtype, record});
  }
  return place;
}

void TorchFile::Impl::add_storage_use(PickleNode node) {
  const std::optional<TorchStorageId> id = storage_id(node);
  if (!id) return;
  if (!id->dtype) {
    // Where the storages of a legacy file lie depends on the sizes of all.
    if (!zip) fail(ErrorCode::kUnsupported, "a storage of class " + quote(id->class_name));
    storage_uses.push_back({.node = node, .storage = UINT32_MAX});
    return;
  }
  const uint32_t place = storage_place(*id);
  const TorchStorage& storage = storages[place];
  const auto where = [&] { return zip ? "zip record " + quote(storage.record->name) : "storage " + quote(id->key); };
  // torch refuses to write it with two dtypes, unless there is nothing in it.
  if (storage.dtype != *id->dtype && (id->elements != 0 || storage.elements != 0)) {
    corrupt(where() + " is used as " + std::string(name(storage.dtype)) + " and as " + std::string(name(*id->dtype)));
  }
  // A record may hold a broken element more, of a storage that was made for other elements.
  if (zip ? storage.bytes / width(*id->dtype) != id->elements : storage.elements != id->elements) {
    corrupt(where() + ": expected " + std::to_string(id->elements) + " elements of " + std::string(name(*id->dtype)) +
            ", found " + std::to_string(storage.bytes) + " bytes");
  }
  storage_uses.push_back({.node = node,
                          .storage = place,
                          .first_byte = id->view_first * width(*id->dtype),
                          .bytes = id->view_elements * width(*id->dtype)});
}

const TorchStorageUse& TorchFile::Impl::storage_use(PickleNode node) const {
  const auto at = std::lower_bound(storage_uses.begin(), storage_uses.end(), node,
                                   [](const TorchStorageUse& use, PickleNode wanted) { return use.node < wanted; });
  if (at == storage_uses.end() || at->node != node) corrupt("a tensor whose storage is no persistent id of one");
  if (at->storage == UINT32_MAX) {
    fail(ErrorCode::kUnsupported, "a storage of class " + quote(storage_id(node)->class_name));
  }
  return *at;
}

}  // namespace ckpt::format
