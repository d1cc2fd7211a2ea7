// Means in rational arithmetic (GMP), rounded by their own rules: nothing here is of the code under test.
#pragma once

#include <gmpxx.h>

#include <span>
#include <vector>

#include "core/base/dtype.h"

namespace ckpt::average::test {

/// All floating dtypes.
inline constexpr DType kFloats[] = {DType::kFloat64,        DType::kFloat32,        DType::kFloat16,
                                    DType::kBFloat16,       DType::kFloat8E4M3FN,   DType::kFloat8E5M2,
                                    DType::kFloat8E4M3FNUZ, DType::kFloat8E5M2FNUZ, DType::kFloat8E8M0FNU};

/// The bits of the greatest finite number.
uint64_t greatest(DType dtype);
/// 0 where the dtype has no sign.
uint64_t sign_bit(DType dtype);
/// False: the bits are a NaN, or there is no sign.
bool has_negative_zero(DType dtype);

/// The value of bits that are finite, and of the bits after the greatest as if they were.
mpq_class value_of(uint64_t bits, DType dtype);

/// The bits of what is nearest to sum(weights * numbers) / sum(weights), with torch's rules of what is beyond the
/// range. An exact 0 is +0.
uint64_t rounded_mean(std::span<const mpq_class> numbers, std::span<const double> weights, DType dtype);

}  // namespace ckpt::average::test
