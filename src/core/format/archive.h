// Reads a file that torch::serialize::OutputArchive wrote (a TorchScript module in a zip) without LibTorch.
//
// Such an archive is a tree: each level holds named values: tensors (parameters and buffers), numbers, texts, lists and
// nested archives. `data.pkl` pickles the tree (protocol 2, objects of classes `__torch__...` by NEWOBJ and BUILD with
// a dict of attributes); tensors are torch._utils._rebuild_tensor_v2 over persistent ids ("storage", class, key,
// location, numel); bytes lie in `data/<key>`. `code/` and `constants.pkl` are never run and not needed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/format/stored_tensor.h"
#include "core/format/zip_reader.h"
#include "core/io/file.h"

namespace ckpt::format {

struct Archive;

/// std::monostate: None. A tuple of integers or of floats is a list here.
using ArchiveValue =
    std::variant<std::monostate, bool, int64_t, double, std::string, StoredTensor, std::vector<int64_t>,
                 std::vector<double>, std::vector<StoredTensor>, std::shared_ptr<const Archive>>;

/// One level. Names are as they stand in the file (not unescaped), in the order of the pickle.
struct Archive {
  std::vector<std::pair<std::string, ArchiveValue>> members;

  const ArchiveValue* find(std::string_view name) const;
  /// The member of that name and type, or nullptr.
  template <class T>
  const T* get(std::string_view name) const {
    const ArchiveValue* value = find(name);
    return value ? std::get_if<T>(value) : nullptr;
  }
  /// The nested archive of that name, or nullptr.
  const Archive* nested(std::string_view name) const;

  /// Makes find() see what `members` holds now; to be called after they were filled. A name that is there twice, or
  /// nullptr.
  const std::string* index();

 private:
  std::vector<uint32_t> by_name_;  // places in members, sorted by name
};

/// An open archive file, or the tree of one over the tensors of a file of another format.
class ArchiveFile {
 public:
  /// kCorrupt, kUnsafe (a global outside the allow-list) or kUnsupported; never runs or imports anything.
  static ArchiveFile open(const std::string& path);
  static ArchiveFile open(io::File file);
  static ArchiveFile open(std::shared_ptr<const io::File> file);
  /// `root` was made by somebody else; its tensors lie in `file`, whatever that is.
  ArchiveFile(std::shared_ptr<const io::File> file, std::shared_ptr<const Archive> root);

  const io::File& file() const { return *file_; }
  const std::shared_ptr<const io::File>& shared_file() const { return file_; }
  /// nullptr where the tree was not read from an archive.
  const ZipReader* zip() const { return zip_.get(); }
  const Archive& root() const { return *root_; }

 private:
  std::shared_ptr<const io::File> file_;  // zip_ refers to it
  std::unique_ptr<ZipReader> zip_;
  std::shared_ptr<const Archive> root_;
};

/// All tensors below `archive`, names joined with '.', unescaped where `escaped`, in the order of the pickle.
std::vector<NamedTensor> tensors_of(const Archive& archive, bool escaped);

/// LibTorch writes names that it cannot read back: Python's keywords, names of its own like `__parameters__`, names
/// with a quote, a backslash or a control character. Such names, and '%' itself, are written with %XX (two upper-case
/// hex digits): a bad character by its code, a reserved name by the code of its first letter. Bijective on all names.
std::string escape_name(std::string_view name);
/// Undoes it; a '%' that begins no such code stays as it is.
std::string unescape_name(std::string_view name);

/// Those of the whole file, unescaped where it is a state.pt.
std::vector<NamedTensor> tensors_of(const Archive& root);

/// Whether the archive was written by ckpt (has the member `ckpt`): only then its names are escaped.
bool is_training_state(const Archive& root);

}  // namespace ckpt::format
