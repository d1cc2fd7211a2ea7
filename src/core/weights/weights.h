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
#include "core/format/stored_tensor.h"
#include "core/format/torch_file.h"
#include "core/io/file.h"

namespace ckpt::weights {

struct Tensor {
  std::string name;
  format::StoredTensor stored;
  uint32_t file = 0;     ///< place in files()
  int64_t tied_to = -1;  ///< place of the first tensor that is the same (storage, place, dtype, shape, strides), or -1
};

class Weights {
 public:
  /// Reads indexes only (with options.verify all of a checkpoint). kNotFound: no such path, key or averaged weights, no
  /// tensors at all, or an empty run; kCorrupt, kUnsafe, kUnsupported as the format's reader says.
  static Weights open(const std::string& path, const OpenOptions& options = {});

  Format format() const { return format_; }
  /// As given; of a run: the path of its checkpoint.
  const std::string& path() const { return path_; }
  /// In the order of the file; names are unique (two that meet after stripping: kCorrupt).
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find(std::string_view name) const;
  const std::vector<std::shared_ptr<const io::File>>& files() const { return files_; }
  /// Safetensors' `__metadata__`.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// The `_metadata` of a state_dict, {module path: {"version": 2}}, wrappers stripped; null where there is none.
  const nlohmann::ordered_json& module_metadata() const { return module_metadata_; }
  /// What a person should know: foreign values left out, checksums that are absent, checkpoints passed over.
  const std::vector<std::string>& warnings() const { return warnings_; }
  /// The globals of a pickle (empty for other formats), and names of values left out because of a foreign one.
  const std::vector<format::TorchFile::Global>& globals() const { return globals_; }
  const std::vector<std::string>& foreign() const { return foreign_; }
  /// Bytes of storages that no tensor of these weights covers.
  uint64_t wasted_bytes() const;

  /// Checks the CRC-32 of every zip record that `tensors` lie in, in parallel; kCorrupt names record and tensor. Nothing
  /// to do where the format has no checksums, or they are absent.
  void verify(std::span<const Tensor* const> tensors, unsigned threads) const;

  /// Row-major elements in this machine's byte order into exactly `stored.bytes` bytes; bools are made 0 or 1. `stored`
  /// may be a narrow() of the tensor's. kUnsupported for quantized and sparse ones.
  void read(const Tensor& tensor, const format::StoredTensor& stored, std::span<std::byte> into) const;
  void read(const Tensor& tensor, std::span<std::byte> into) const { read(tensor, tensor.stored, into); }
  /// The same, little-endian, as pieces of at most 4 MiB in order; the CRC-32 is checked on the way where the tensor is
  /// the whole of its record.
  void stream(const Tensor& tensor, const format::ByteSink& sink) const;

 private:
  Format format_ = Format::kTorch;
  std::string path_;
  std::vector<Tensor> tensors_;
  std::vector<uint32_t> by_name_;
  std::vector<std::shared_ptr<const io::File>> files_;
  std::map<std::string, std::string> metadata_;
  nlohmann::ordered_json module_metadata_;
  std::vector<std::string> warnings_;
  std::vector<format::TorchFile::Global> globals_;
  std::vector<std::string> foreign_;
};

}  // namespace ckpt::weights
