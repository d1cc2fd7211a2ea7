// The files of a checkpoint, made from a Snapshot.
#pragma once

#include <vector>

#include "core/run/writer.h"
#include "libtorch/training/snapshot.h"

namespace ckpt::training {

/// state.pt and, on request, weights.safetensors. `snapshot` must live until they are written.
std::vector<run::FileToWrite> files_of(const Snapshot& snapshot, bool weights_copy);

}  // namespace ckpt::training
