// What Python's torch.save writes (zip, and the format before 1.6), TorchScript modules and archives of
// torch::serialize, all as inert data: a pickle whose objects get a meaning by a list of what is known. Nothing is
// imported, called or run; an unknown global is a foreign object that can be walked past.
//
// zip:    one top folder; data.pkl, data/<key> (one for each storage), byteorder, version, ...
// legacy: pickles one after the other: magic number 0x1950a86a20f9469cfc6c, protocol 1001, system (little_endian,
//         type_sizes), the object, the list of storage keys; then for each key i64 element count and raw bytes, both
//         little-endian also where the system was not.
//
// Thread rule: does not change once opened; use it from any thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/pickle.h"
#include "core/format/stored_tensor.h"
#include "core/format/zip_reader.h"
#include "core/io/file.h"

namespace ckpt::format {

/// What a value of the pickle is, with torch's own globals understood.
enum class TorchKind : uint8_t {
  kNone,
  kBool,
  kInt,  ///< 64 bits; a larger one is kOther
  kFloat,
  kText,
  kBytes,
  kTensor,   ///< made by one of torch's rebuild functions, a Parameter among them
  kDict,     ///< dict, OrderedDict, defaultdict, Counter: items() alternate key, value
  kList,     ///< list, tuple, set, torch.Size
  kModule,   ///< an object with attributes: of a class `__torch__...`, or a pickled torch.nn.Module; items() alternate
             ///< name, value (for the latter: its parameters, buffers and children)
  kDType,    ///< torch.float32, ...
  kForeign,  ///< an object of a global that is not understood, with whatever hangs on it
  kOther,    ///< understood and without use here: complex, torch.device, ...
};

class TorchFile {
 public:
  /// Parses the pickles and finds every storage; reads no tensor. kCorrupt where it is neither of the two formats, cut
  /// off or damaged; kUnsupported for what cannot be read (another zip, deflated storages, the tar of torch before
  /// 0.1.10). Memory: file size + 64 MiB.
  static TorchFile open(io::File file);

  TorchFile(TorchFile&&) noexcept;
  TorchFile& operator=(TorchFile&&) noexcept;
  ~TorchFile();

  const io::File& file() const;
  const std::shared_ptr<const io::File>& shared_file() const;
  /// nullptr for the legacy format.
  const ZipReader* zip() const;
  const Pickle& pickle() const;
  /// Has `code/` or `constants.pkl`: a TorchScript module or an archive of torch::serialize.
  bool is_script() const;
  /// Its top level is a training state of ckpt (state.pt): names are escaped as archive.h says.
  bool is_training_state() const;

  PickleNode root() const { return pickle().root(); }
  TorchKind kind(PickleNode node) const;
  /// kDict, kModule: key, value, key, value, ...; kList: the items. Else empty.
  std::span<const PickleNode> items(PickleNode node) const;
  /// The value of a text key in a kDict or kModule; kNoNode where it is not there. The last one where there are two, as
  /// in Python. Takes time in proportion to the dict.
  PickleNode find(PickleNode dict, std::string_view key) const;
  /// A dict's key as it appears in a name: text as it is, an integer in decimal; std::nullopt for other keys.
  std::optional<std::string> key_text(PickleNode key) const;
  /// The `_metadata` of a state_dict (kDict: module path -> {"version": 2}), or kNoNode.
  PickleNode state_dict_metadata(PickleNode dict) const;

  /// A kTensor. kCorrupt where its arguments or place are wrong, or it depends on a foreign object. Quantized and
  /// sparse ones come with their layout().
  StoredTensor tensor(PickleNode node) const;
  /// A kDType. std::nullopt where this library has no such dtype.
  std::optional<DType> dtype(PickleNode node) const;

  struct Global {
    std::string name;  ///< "argparse.Namespace"
    bool understood = false;
  };
  /// Every global that the pickle names, each once, sorted.
  std::vector<Global> globals() const;
  const std::string& path() const { return file().path(); }
  /// What may be taken for results beside what this object holds, by the memory rule.
  uint64_t memory_left() const;

 private:
  struct Impl;
  explicit TorchFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The tensors below a node, names joined by '.', list places as numbers, in the order of the pickle; a bare tensor is
/// "tensor". A tensor reachable under several names is there under each; where a dict has a key twice, both are there.
/// Names of a training state are unescaped.
struct TensorsBelow {
  std::vector<NamedTensor> tensors;
  /// Names of values that were left out because a foreign global made them; `?` stands for a key that is neither text
  /// nor integer, with all below it.
  std::vector<std::string> foreign;
};
/// kCorrupt for a structure that holds itself, nesting beyond 1,000, names beyond 64 KiB or not UTF-8, a tree that
/// takes more memory than the file may.
TensorsBelow tensors_below(const TorchFile& file, PickleNode node);

}  // namespace ckpt::format
