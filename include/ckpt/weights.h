// What is in a file of weights, and how it is looked for: used by ModelState and by the Torch-free core.
//
// Thread rule: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ckpt {

/// Told by the content of a file, never by its name.
enum class Format {
  kTorch,             ///< torch.save since PyTorch 1.6: a zip with a pickle
  kTorchLegacy,       ///< torch.save before 1.6: pickles and raw storages
  kTorchScript,       ///< torch.jit.save: a zip with code, which is never compiled here
  kArchive,           ///< torch::serialize (C++): torch::save(module), a state.pt
  kPt2,               ///< torch.export.save
  kSafetensors,
  kSafetensorsIndex,  ///< model.safetensors.index.json with its shards
  kCheckpoint,        ///< one checkpoint of ckpt: a directory
  kRun,               ///< a run directory: its newest checkpoint that verifies
};

/// "torch", "torch-legacy", "torchscript", "archive", "pt2", "safetensors", "safetensors-index", "checkpoint", "run".
std::string_view to_string(Format format);

struct OpenOptions {
  /// Dotted path to the weights in a training file ("state.model"), or the part of a checkpoint. Empty: the first of
  /// model_state_dict, state_dict, model_state, model, module, net that holds tensors, else the whole file.
  std::string key = {};
  /// Prefer averaged weights: ema_state_dict, model_ema, ema, ema_model (in a checkpoint the part "ema"). kNotFound
  /// where there are none.
  bool ema = false;
  /// Every tensor in the file (of a checkpoint: in state.pt): no wrapper is looked for and none stripped.
  bool whole = false;
  /// Strip "module." and "_orig_mod." from the front where all names have them, repeatedly.
  bool strip_wrappers = true;
  /// For runs and checkpoints: whether a candidate is read and hashed as a whole before it is taken.
  bool verify = true;
};

/// One rule: every match of the RE2 pattern `from` in a name becomes `to`, in which \1 to \9 stand for groups.
struct RenameRule {
  std::string from;
  std::string to;
};

/// One tensor of a file.
struct TensorInfo {
  std::string name;
  std::string dtype;             ///< as torch spells it: "float32", "bfloat16", "float8_e4m3fn"
  std::vector<int64_t> shape;    ///< empty: one number
  std::vector<int64_t> strides;  ///< in elements; empty for sparse ones
  uint64_t bytes = 0;            ///< elements x width
  std::string file;              ///< path of the file that holds it
  std::string record;            ///< zip record of its storage; empty where the file is no zip
  uint64_t file_offset = 0;      ///< of its first element
  uint64_t storage_offset = 0;   ///< of its storage: tensors with the same one share memory
  uint64_t storage_bytes = 0;
  bool is_parameter = false;         ///< as far as the file tells
  std::optional<std::string> tied_to = {};  ///< first name of the same tensor, where this is a further one
};

}  // namespace ckpt
