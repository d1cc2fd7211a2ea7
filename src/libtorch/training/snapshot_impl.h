// What a Snapshot holds.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "libtorch/training/layout.h"
#include "libtorch/training/snapshot.h"

namespace ckpt::training {

/// Smaller pieces are cheaper to copy than to keep track of.
inline constexpr size_t kStableFrom = 65536;

struct Snapshot::Impl {
  run::CheckpointHead head;
  Node root;
  std::vector<std::pair<std::string, Node*>> weights;  // parts of `root` that are modules or lists of tensors
  uint64_t tensors = 0;
  uint64_t tensor_bytes = 0;
};

}  // namespace ckpt::training
