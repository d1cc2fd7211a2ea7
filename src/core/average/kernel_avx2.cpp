// Compiled for AVX2, FMA and F16C where the compiler can: see CMakeLists.txt.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "core/average/kernel_loops.h"

namespace ckpt::average {

const KernelFunctions* avx2_kernel() { return &kFunctions; }

}  // namespace ckpt::average
#else
#include "core/average/kernel.h"

namespace ckpt::average {

const KernelFunctions* avx2_kernel() { return nullptr; }

}  // namespace ckpt::average
#endif
