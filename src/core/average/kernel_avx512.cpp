// Compiled for AVX-512 (F, DQ, VL), FMA and F16C where the compiler can: see CMakeLists.txt.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__FMA__) && defined(__F16C__)
#include "core/average/kernel_loops.h"

namespace ckpt::average {

const KernelFunctions* avx512_kernel() { return &kFunctions; }

}  // namespace ckpt::average
#else
#include "core/average/kernel.h"

namespace ckpt::average {

const KernelFunctions* avx512_kernel() { return nullptr; }

}  // namespace ckpt::average
#endif
