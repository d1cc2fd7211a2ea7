// Element types and memory of tensors, between LibTorch and the core.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "core/base/dtype.h"
#include "core/format/archive.h"

namespace ckpt::bridge {

/// std::nullopt where the other side has no such type.
std::optional<DType> dtype_of(at::ScalarType type);
std::optional<at::ScalarType> scalar_type_of(DType dtype);

/// "float32 [10, 64]".
std::string describe(const at::Tensor& tensor);
std::string describe(const format::StoredTensor& tensor);

/// Whether dtype and shape are the same.
bool same_form(const at::Tensor& tensor, const format::StoredTensor& stored);

/// Why `tensor` cannot be captured or loaded into, or nullptr: undefined, sparse, quantized, a dtype without a name.
const char* unsupported_reason(const at::Tensor& tensor);

/// Why a stored tensor cannot be read into a live one, or nullptr: sparse, quantized.
const char* unsupported_reason(const format::StoredTensor& tensor);

/// Whether the values lie in the CPU's memory in row-major order, as they are (neither conjugated nor negated lazily).
bool is_plain(const at::Tensor& tensor);

}  // namespace ckpt::bridge
