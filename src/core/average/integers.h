// Integers of several inputs made one, exactly: never through floating point.
//
// inputs[i]: `elements` elements of `dtype`, an integer one, in this machine's byte order and of any alignment; `to`:
// room for as many. A result does not depend on the order of the inputs.
//
// Thread rule: any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "core/base/dtype.h"

namespace ckpt::average {

using IntegerInputs = std::span<const std::byte* const>;

bool is_integer(DType dtype);

void integer_max(IntegerInputs inputs, DType dtype, size_t elements, std::byte* to);

/// The first element whose sum does not fit, where there is one; `to` is of no use then.
std::optional<size_t> integer_sum(IntegerInputs inputs, DType dtype, size_t elements, std::byte* to);

/// The weighted mean, rounded to nearest, of two as near to the even one. `weights` as Mean takes them. The first
/// element whose mean does not fit (some weight is negative then), where there is one.
std::optional<size_t> integer_mean(IntegerInputs inputs, std::span<const double> weights, DType dtype, size_t elements,
                                   std::byte* to);

/// The first element that is not the same in all inputs, bit for bit, where there is one. Any dtype.
std::optional<size_t> first_difference(IntegerInputs inputs, DType dtype, size_t elements);

}  // namespace ckpt::average
