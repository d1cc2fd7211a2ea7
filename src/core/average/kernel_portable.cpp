#include "core/average/kernel_loops.h"

namespace ckpt::average {

const KernelFunctions* portable_kernel() { return &kFunctions; }

}  // namespace ckpt::average
