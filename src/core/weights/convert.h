// From any file of weights to a file of another format, as a stream: memory does not grow with the weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ckpt/weights.h"
#include "core/base/dtype.h"
#include "core/format/tensors_to_write.h"
#include "core/weights/weights.h"

namespace ckpt::weights {

struct ConvertOptions {
  Format to = Format::kSafetensors;           ///< kSafetensors, kTorch or kArchive
  std::optional<DType> dtype = std::nullopt;  ///< for floating tensors alone
  std::vector<RenameRule> rename = {};
  std::vector<std::string> exclude = {};
  uint64_t max_shard_bytes = 0;  ///< safetensors alone; 0: one file
};

struct Converted {
  struct Skipped {
    std::string name;
    std::string reason;
  };
  std::vector<std::string> outputs;
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  std::vector<Skipped> skipped;
  std::vector<std::string> warnings;
};

/// Writes `weights` to `out`, atomically and durably. kMismatch: two names meet; kUnsupported: tensors that the target
/// cannot hold, all in details(); kCorrupt: damage met on the way. An existing `out` is as it was then.
Converted convert(const Weights& weights, const std::string& out, const ConvertOptions& options);

/// What is left of `weights` by these rules, ready to be written; refers to `weights`.
std::vector<format::TensorToWrite> select(const Weights& weights, const ConvertOptions& options, Converted& report);

/// Writes a list in one of the three formats (shards for safetensors); for tensors of a file as for live ones. Ties are
/// kept; `module_metadata` goes into torch files, and gives an archive levels for modules that hold no tensor;
/// `metadata` goes into safetensors, `late` into all but shards.
std::vector<std::string> write_weights(std::vector<format::TensorToWrite> tensors, const std::string& out,
                                       const ConvertOptions& options,
                                       const std::map<std::string, std::string>& metadata,
                                       const nlohmann::ordered_json& module_metadata,
                                       const format::LateText* late = nullptr);

/// Appends one whole safetensors file; ties as in write_weights. kUnsupported: dtypes that it has not.
void write_safetensors(io::BlockWriter& writer, std::vector<format::TensorToWrite> tensors);

/// kUnsupported with `details`, "name: why", where there are any: tensors that the format cannot hold.
void throw_unsupported(const std::string& path, Format to, std::vector<std::string> details);

/// Turns elements of one floating dtype into another, rounding to nearest even (float64 goes through float32's range
/// only where that is the target). Both row-major in this machine's byte order.
void convert_elements(ByteView from, DType from_dtype, std::span<std::byte> to, DType to_dtype);

}  // namespace ckpt::weights
