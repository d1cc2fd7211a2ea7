// A sharded safetensors model: `model.safetensors.index.json`, {"metadata": {"total_size"}, "weight_map": {tensor:
// file}}, beside its shards `model-00001-of-0000N.safetensors`.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/format/safetensors.h"

namespace ckpt::format {

struct ShardedIndex {
  std::vector<std::shared_ptr<const io::File>> files;  ///< the shards, sorted by name
  std::vector<NamedTensor> tensors;                    ///< shard by shard; `file`: the place in files
  std::vector<OpaqueTensor> opaque;
  std::map<std::string, std::string> metadata;  ///< of all shards; the first that has a key
  uint64_t memory_left = 0;                     ///< what may be taken beside it, by the memory rule
};

/// Opens the shards beside the index. kUnsafe for file names that are not plain ones, and for a shard that is a link
/// to anything but `../../blobs/<name>` (the cache of Hugging Face's hub is made of these); kCorrupt where index and
/// shards disagree (a tensor in another file, in none, or in a shard and not in the index); kNotFound for an absent
/// shard. The index is parsed as a stream; memory: size of all files + 64 MiB.
ShardedIndex read_sharded(const io::File& index);

}  // namespace ckpt::format
