// A sharded safetensors model: `model.safetensors.index.json`, {"metadata": {"total_size"}, "weight_map": {tensor:
// file}}, beside its shards `model-00001-of-0000N.safetensors`.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/safetensors.h"

namespace ckpt::format {

struct ShardedTensor {
  NamedTensor named;
  uint32_t file = 0;  ///< place in ShardedIndex::files
};

struct ShardedIndex {
  std::vector<std::shared_ptr<const io::File>> files;  ///< sorted by name
  std::vector<ShardedTensor> tensors;                  ///< by file, then by place
  std::map<std::string, std::string> metadata;         ///< of all shards; the first that has a key
};

/// Opens the shards beside the index. File names must be plain names (kUnsafe otherwise); kCorrupt where index and
/// shards disagree (a tensor in another file, in none, or in a shard and not in the index); kNotFound for an absent
/// shard. The index is parsed as a stream; memory: size of all files + 64 MiB.
ShardedIndex read_sharded(const io::File& index);

}  // namespace ckpt::format
