// What Weights::open is made of: each function knows one kind of path.
#pragma once

#include <string>

#include "core/weights/weights.h"

namespace ckpt::weights {

/// A regular file of any format, told by its content.
Contents open_file(io::File file, const OpenOptions& options);

/// A zip or legacy file of PyTorch, in which the weights are looked for.
Contents open_torch(io::File file, const OpenOptions& options);
Contents open_safetensors(io::File file);
Contents open_sharded(io::File file);

/// A checkpoint or run of ckpt.
Contents open_directory(const std::string& path, const OpenOptions& options);

/// For formats without a tree: keeps the tensors below options.key (or of averaged weights), whose names lose that.
/// kNotFound where there are none.
void keep_wanted(Contents& contents, const OpenOptions& options);

}  // namespace ckpt::weights
