// The weights in any file: what there is, where it lies, and its bytes. Formats are told by content.
//
// Thread rule: does not change once opened; use it from any thread.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ckpt/weights.h"
#include "core/format/bytes_to_write.h"
#include "core/format/checksummed_range.h"
#include "core/format/safetensors.h"
#include "core/format/stored_tensor.h"
#include "core/format/torch_file.h"
#include "core/io/file.h"

namespace ckpt::weights {

/// `file` is its place in files(); `tied_to` the place of the first tensor that is the same (storage, place, dtype,
/// shape, strides), or -1. The readers' own type: of very many tensors, a list is never there twice.
using Tensor = format::NamedTensor;

/// What the reader of a format finds in a file.
struct Contents {
  Format format = Format::kTorch;
  std::string path;
  std::vector<Tensor> tensors;
  std::vector<std::shared_ptr<const io::File>> files;
  std::vector<format::ChecksummedRange> checksums = {};  ///< of the zip records in files[0], in their order
  std::vector<format::OpaqueTensor> opaque = {};
  std::map<std::string, std::string> metadata = {};
  nlohmann::ordered_json module_metadata = nullptr;
  std::vector<std::string> warnings = {};
  std::vector<format::TorchFile::Global> globals = {};
  std::vector<std::string> foreign = {};
};

class Weights {
 public:
  /// Takes what was found: strips wrappers, indexes names, finds ties. kNotFound where there are no tensors; kCorrupt
  /// where two names meet.
  Weights(Contents contents, bool strip_wrappers);

  /// Reads indexes only (with options.verify all of a checkpoint). kNotFound: no such path, key or averaged weights, no
  /// tensors at all, or an empty run; kCorrupt, kUnsafe, kUnsupported as the format's reader says.
  static Weights open(const std::string& path, const OpenOptions& options = {});

  Format format() const { return contents_.format; }
  /// As given; of a run: the path of its checkpoint.
  const std::string& path() const { return contents_.path; }
  /// In the order of the file; names are unique (two that meet after stripping: kCorrupt). Names that safetensors'
  /// save_model dropped as ties are there again, at the end.
  const std::vector<Tensor>& tensors() const { return contents_.tensors; }
  const Tensor* find(std::string_view name) const;
  /// Tensors of a safetensors file whose dtype this library has not: they are no more than listed.
  const std::vector<format::OpaqueTensor>& opaque() const { return contents_.opaque; }
  const std::vector<std::shared_ptr<const io::File>>& files() const { return contents_.files; }
  /// Safetensors' `__metadata__`, without the names of ties.
  const std::map<std::string, std::string>& metadata() const { return contents_.metadata; }
  /// The `_metadata` of a state_dict, {module path: {"version": 2}}, wrappers stripped; null where there is none.
  const nlohmann::ordered_json& module_metadata() const { return contents_.module_metadata; }
  /// What a person should know: foreign values left out, checksums that are absent, checkpoints passed over.
  const std::vector<std::string>& warnings() const { return contents_.warnings; }
  /// The globals of a pickle (empty for other formats), and names of values left out because of a foreign one.
  const std::vector<format::TorchFile::Global>& globals() const { return contents_.globals; }
  const std::vector<std::string>& foreign() const { return contents_.foreign; }
  /// Bytes of storages that no tensor of these weights covers.
  uint64_t wasted_bytes() const;

  /// Checks the CRC-32 of every zip record that `tensors` lie in, in parallel; kCorrupt names record and tensor.
  /// Nothing to do where the format has no checksums, or they are absent.
  void verify(std::span<const Tensor* const> tensors, unsigned threads) const;

  /// Row-major elements in this machine's byte order into exactly `stored.bytes` bytes; bools are made 0 or 1. `stored`
  /// may be a narrow() of the tensor's. kUnsupported for quantized and sparse ones.
  void read(const Tensor& tensor, const format::StoredTensor& stored, std::span<std::byte> into) const;
  void read(const Tensor& tensor, std::span<std::byte> into) const { read(tensor, tensor.stored, into); }
  /// The same, little-endian, as pieces of at most 4 MiB in order; the CRC-32 is checked on the way where the tensor is
  /// the whole of its record.
  void stream(const Tensor& tensor, const format::ByteSink& sink) const;
  /// Whether stream() checks all checksums that there are.
  bool checks_while_streaming(const Tensor& tensor) const;
  /// The record that a tensor is all of, byte by byte, where its checksum is known; else nullptr.
  const format::ChecksummedRange* whole_record(const Tensor& tensor) const;
  /// kCorrupt where that is not the CRC-32 of its whole_record().
  void check_whole_record(const Tensor& tensor, uint32_t crc) const;

 private:
  /// The record that a tensor's storage lies in, where its checksum is known.
  const format::ChecksummedRange* record_of(const Tensor& tensor) const;
  Error wrong_checksum(const Tensor& tensor) const;

  Contents contents_;
  std::vector<uint32_t> by_name_;  // places in tensors(), sorted by name
};

}  // namespace ckpt::weights
