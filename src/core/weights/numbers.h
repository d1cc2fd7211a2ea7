// Elements of any dtype as numbers.
#pragma once

#include <span>

#include "core/base/bytes.h"
#include "core/base/dtype.h"

namespace ckpt::weights {

/// How many numbers an element is: two for complex ones.
inline size_t numbers_per_element(DType dtype) { return is_complex(dtype) ? 2 : 1; }

/// Elements in this machine's byte order as float64, exactly but for integers of 64 bits; of complex ones both
/// components. `to` has room for all of them. kUnsupported for quantized dtypes.
void as_doubles(ByteView elements, DType dtype, std::span<double> to);

}  // namespace ckpt::weights
