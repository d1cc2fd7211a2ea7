// What a TorchFile holds. Only the torch_*.cpp beside it need it.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/format/torch_file.h"
#include "core/format/torch_globals.h"

namespace ckpt::format {

inline constexpr uint64_t kMaxPickleBytes = uint64_t{1} << 30;
/// Of the name of a global, its module and the key of a storage. A text costs a pickle its bytes once, however many
/// globals and storages go by it, and each of these is looked up.
inline constexpr size_t kMaxLookedUpBytes = 1024;

inline constexpr uint64_t kKeyBytes = 64;  ///< that a key takes in a hash map

/// The bytes of one key of persistent ids.
struct TorchStorage {
  uint64_t offset = 0;          ///< in the file
  uint64_t bytes = 0;           ///< in the file
  uint64_t elements = 0;        ///< as the persistent ids say
  DType dtype = DType::kUInt8;  ///< of UntypedStorage: uint8
  const ZipRecord* record = nullptr;
};

/// One persistent id: a storage, or (in the legacy format) a stretch of one.
struct TorchStorageUse {
  PickleNode node = kNoNode;
  uint32_t storage = 0;  ///< UINT32_MAX: of a class that is not known
  uint64_t first_byte = 0;
  uint64_t bytes = 0;
};

/// ("storage", class, key, location, elements [, view]), read.
struct TorchStorageId {
  std::string_view class_name;
  std::optional<DType> dtype;
  std::string_view key;
  uint64_t elements = 0;
  uint64_t view_first = 0;     ///< in elements
  uint64_t view_elements = 0;  ///< all of them where there is no view
};

/// A call of a rebuild function, parameters and classes around it taken off.
struct TorchTensorCall {
  TorchGlobal function = TorchGlobal::kUnknown;
  std::span<const PickleNode> arguments;
  bool is_parameter = false;
};

struct TorchValue {
  TorchKind kind = TorchKind::kOther;
  std::span<const PickleNode> items = {};
};

struct TorchFile::Impl {
  std::shared_ptr<const io::File> file;
  uint64_t file_bytes = 0;
  std::unique_ptr<ZipReader> zip;
  Pickle pickle;
  bool is_script = false;
  bool is_training_state = false;
  bool big_endian = false;
  uint64_t memory = 0;  ///< what may still be taken

  std::vector<TorchGlobal> meanings;  // of pickle.globals()
  std::deque<TorchStorage> storages;
  std::vector<TorchStorageUse> storage_uses;  // in the order of their nodes
  // Places in storages, while they are found: of each record of a zip; of the keys of a legacy file.
  std::vector<uint32_t> storage_of_record;
  std::unordered_map<std::string_view, uint32_t> storage_of_key;

  struct Range {
    size_t first = 0;
    size_t size = 0;
  };
  std::vector<PickleNode> made_items;             // items that do not stand in the pickle like that
  std::unordered_map<PickleNode, Range> pairs;    // by a list of (key, value)
  std::unordered_map<PickleNode, Range> modules;  // by the state of a torch.nn.Module
  std::unordered_set<PickleNode> states;          // that were looked at, of modules or not

  [[noreturn]] void fail(ErrorCode code, const std::string& message) const { throw Error(code, file->path(), message); }
  [[noreturn]] void corrupt(const std::string& message) const { fail(ErrorCode::kCorrupt, message); }
  void charge(uint64_t bytes);

  // torch_file.cpp, torch_legacy.cpp
  void open_either();
  void open_zip();
  void open_legacy();
  void check_system(const Pickle& system) const;
  void place_storages(const Pickle& keys, uint64_t offset);
  Pickle parse(std::vector<std::byte> bytes, uint64_t offset);
  void index_pickle();

  // torch_storage.cpp
  void add_storage_use(PickleNode node);
  std::optional<TorchStorageId> storage_id(PickleNode node) const;
  uint32_t storage_place(const TorchStorageId& id);
  const TorchStorageUse& storage_use(PickleNode node) const;

  // torch_values.cpp
  void index_objects();
  void index_pairs(PickleNode list);
  void index_module(PickleNode state);
  Range begin_items(size_t size);
  TorchGlobal meaning(PickleNode global) const;
  /// What an object is made by: the class of one that protocols 0 and 1 spell as a call, or whose source the legacy
  /// format keeps.
  PickleNode class_of(const PickleObject& object) const;
  TorchValue value(PickleNode node) const;
  TorchValue object_value(PickleNode node) const;
  std::optional<std::span<const PickleNode>> mapping(PickleNode node) const;
  std::span<const PickleNode> items_at(Range range) const {
    return std::span(made_items).subspan(range.first, range.size);
  }

  // torch_tensor.cpp
  /// std::nullopt where something foreign is in it.
  std::optional<TorchTensorCall> tensor_call(PickleNode node) const;
  StoredTensor tensor(PickleNode node) const;
  StoredTensor strided(const TorchTensorCall& call) const;
  StoredTensor sparse(const TorchTensorCall& call) const;
  void check_math_bits(PickleNode metadata) const;
  std::vector<int64_t> integers(PickleNode node, const char* what) const;
  std::optional<DType> dtype(PickleNode node) const;
};

}  // namespace ckpt::format
