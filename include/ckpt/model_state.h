// The weights in a file of any format, and the way into a live model, and back into a file.
//
//   auto weights = ckpt::ModelState::open("resnet50.pth");
//   ckpt::LoadReport report = weights.load_into(*model, {.exclude = {"^fc\\."}});
//   ckpt::ModelState::of(*model).save("resnet50.safetensors", ckpt::Format::kSafetensors);
//
// The format is told by the content (weights.h lists them). A file is data: no code in it is run, imported or compiled,
// and it may be hostile. Opening reads the index alone; the bytes of a tensor are read when they are asked for.
//
// Names are those of a state_dict, "layer1.0.conv1.weight", without the prefix of a wrapper ("module.", "_orig_mod.").
//
// Thread rule: a ModelState does not change; copies share it, and any thread may use it. Live tensors must not be used
// by others while they are loaded into. Loading and reading start threads that end before the call returns.
//
// Errors are ckpt::Error. Nothing is touched by a call that throws, but for what load_into() says.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ckpt/load_report.h"
#include "ckpt/weights.h"

namespace at {
class Tensor;
}
namespace torch::nn {
class Module;
}

namespace ckpt {

/// Tensors by name, in order; tied ones are the same at::Tensor.
using StateDict = std::vector<std::pair<std::string, at::Tensor>>;

struct WeightLoadOptions {
  /// true: every name must be on both sides, else Error(kMismatch). false: names that only one side has are reported
  /// and no problem. What differs in shape or dtype is an error either way, but for the two options below.
  bool strict = true;
  /// RE2 patterns, matched anywhere in the live name unless anchored: {"^fc\\."}. What one of them matches is neither
  /// loaded nor reported, on either side.
  std::vector<std::string> exclude = {};
  /// RE2 patterns on live names: where the file has no such tensor, the live one keeps its values; it is reported as
  /// missing and no problem.
  std::vector<std::string> may_be_missing = {};
  /// From names in the file to live names; every rule in order. Two names that meet: Error(kMismatch).
  std::vector<RenameRule> rename = {};
  /// A live tensor of another shape keeps its values, reported as mismatched and no problem.
  bool skip_shape_mismatch = false;
  /// Converts to the dtype of the live tensor: between floating dtypes rounding to nearest even, else as an assignment
  /// in torch, where it would allow one (not from floating to integer, nor from complex to real, nor to bool).
  bool convert_dtype = false;
  /// Checks the CRC-32 of everything that will be read, before a live tensor is touched; where the format has them
  /// (zip files). Costs one more pass over the file.
  bool verify = true;
  /// 0: the CPUs that this process may use, at most 8.
  unsigned threads = 0;
};

struct ReadOptions {
  bool verify = true;    ///< as WeightLoadOptions::verify
  unsigned threads = 0;  ///< as WeightLoadOptions::threads
};

struct SaveOptions {
  /// For floating tensors alone: float16, bfloat16, float32 or float64 (or f16, bf16, f32, f64). Empty: as they are.
  std::string dtype = {};
  /// Safetensors alone: the most bytes of tensors in one file; 0: one file. More than one: shards
  /// `STEM-00001-of-0000N.safetensors` beside `STEM.safetensors.index.json`.
  uint64_t max_shard_bytes = 0;
  /// Safetensors alone: entries for `__metadata__`, beside those of the file.
  std::map<std::string, std::string> metadata = {};
};

class ModelState {
 public:
  /// Reads the index of a file, checkpoint or run. kNotFound: nothing there, no such key, no tensors; kCorrupt,
  /// kUnsafe, kUnsupported for what cannot be read, with the byte where there is one; kIo.
  static ModelState open(const std::string& path, const OpenOptions& options = {});

  /// The live tensors of a module or a list, not copied: changes to them show. kUnsupported: sparse, quantized and
  /// undefined tensors, all in details(); kInvalid: two tensors of one name.
  static ModelState of(const torch::nn::Module& module);
  static ModelState of(StateDict tensors);

  /// std::nullopt for live tensors.
  std::optional<Format> format() const;
  /// As given to open(); of a run, the path of the checkpoint that was taken. Empty for live tensors.
  const std::string& path() const;
  /// In the order of the file. For live tensors without the places in a file.
  const std::vector<TensorInfo>& tensors() const;
  /// nullptr where there is none; valid as long as this or a copy lives.
  const TensorInfo* find(std::string_view name) const;
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// The `__metadata__` of a safetensors file.
  const std::map<std::string, std::string>& metadata() const;
  /// What a person should know: values left out because of a foreign class, checksums that are absent, and so on.
  const std::vector<std::string>& warnings() const;

  /// One tensor, without the rest, in new memory of the CPU, row-major (of live tensors: itself). kNotFound: no such
  /// name; kUnsupported: sparse or quantized in the file, or a dtype that this LibTorch has not; kCorrupt; kIo.
  at::Tensor tensor(std::string_view name, const ReadOptions& options = {}) const;

  /// One tensor where it lies in the file, mapped into memory: for files far larger than what is used of them, and for
  /// many processes that share one copy in the page cache. With {.verify = false} nothing is read before it is used.
  /// The strides are those of the file, ties and views share memory. Writing into it changes this process's copy alone,
  /// for all tensors that share those bytes, and never the file. It may outlive the ModelState.
  ///
  /// Only for files that nobody cuts off or writes into while the tensor lives: else values change under it, and what
  /// is cut off gives SIGBUS when it is touched, which kills the process. (Replacing a file by another, as ckpt does,
  /// or removing it, does no harm.) What can be seen at the call, another length than at open(), is kCorrupt.
  ///
  /// Bools, big-endian elements, and those that do not lie at a multiple of their size, are read as by tensor()
  /// instead; safetensors of foreign writers and legacy files have such. Of live tensors: itself. Errors as tensor().
  at::Tensor mapped(std::string_view name, const ReadOptions& options = {}) const;

  /// The places `begin` to `end` (not with it) of dimension `dim`; reads those bytes alone, and so cannot check a
  /// CRC-32. kInvalid where they leave the tensor; else as tensor().
  at::Tensor slice(std::string_view name, int64_t dim, int64_t begin, int64_t end) const;

  /// All tensors, read in parallel. As tensor().
  StateDict state_dict(const ReadOptions& options = {}) const;

  /// Writes into the live tensors, on whatever device, with whatever strides. Names, shapes, dtypes and (where asked
  /// for) checksums are checked before the first byte is written: Error(kMismatch) has all problems in details(),
  /// kCorrupt the damaged record, and nothing was touched. Tied live tensors take one value: one of their names in the
  /// file is enough, and several must hold the same values. Only where the file or the disk changes or fails after that
  /// (kIo; kCorrupt without `verify`) some live tensors may be new and the rest as they were.
  LoadReport load_into(torch::nn::Module& module, const WeightLoadOptions& options = {}) const;
  LoadReport load_into(const StateDict& tensors, const WeightLoadOptions& options = {}) const;

  /// Writes a new file, atomically and durably, in Format::kSafetensors, kTorch (what Python's torch.load reads with
  /// weights_only=True) or kArchive (what torch::load reads); returns the files written. The modules of a live module,
  /// and those that the `_metadata` of a state_dict or an archive names, are kept: as `_metadata` of a torch file, and
  /// as levels of an archive, where torch::load looks for every module, also for one without tensors (Dropout). Of a
  /// safetensors file only those are known that hold tensors. Ties are kept, a slice does not drag its storage along,
  /// and the same tensors give the same bytes. kUnsupported: tensors that the format cannot hold, all in details(), or
  /// another format; kInvalid: a dtype that is none, names that LibTorch could not read back; kCorrupt: damage in the
  /// file they come from. An existing file is as it was then.
  std::vector<std::string> save(const std::string& path, Format format, const SaveOptions& options = {}) const;

 private:
  struct Impl;
  explicit ModelState(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

/// Parameters and buffers in the order of Python's state_dict: the module's own parameters, its own buffers, then its
/// children in order. Without the prefix of a wrapper. The tensors are the live ones; undefined ones are left out, and
/// so are modules that are not serializable (Functional).
StateDict state_dict(const torch::nn::Module& module);

/// Copies values from one live module to another, by the rules of ModelState::load_into (`verify` has no meaning here).
LoadReport copy_weights(const torch::nn::Module& from, torch::nn::Module& to, const WeightLoadOptions& options = {});

}  // namespace ckpt
