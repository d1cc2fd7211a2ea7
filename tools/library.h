// The shared library `ckpt`, which brings LibTorch: opened when a command first needs it.
#pragma once

#include "libtorch/program.h"

namespace ckpt::tool {

/// kUnsupported where it is not installed, cannot be loaded, or is of another version.
const program::Library& torch_library();

}  // namespace ckpt::tool
