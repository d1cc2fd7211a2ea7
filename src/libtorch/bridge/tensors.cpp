#include "libtorch/bridge/tensors.h"

#include <torch/version.h>

#include <algorithm>
#include <array>
#include <utility>

namespace ckpt::bridge {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::kBool, at::kBool},
    {DType::kUInt8, at::kByte},
    {DType::kInt8, at::kChar},
    {DType::kInt16, at::kShort},
    {DType::kInt32, at::kInt},
    {DType::kInt64, at::kLong},
    {DType::kFloat16, at::kHalf},
    {DType::kBFloat16, at::kBFloat16},
    {DType::kFloat32, at::kFloat},
    {DType::kFloat64, at::kDouble},
    {DType::kComplex32, at::kComplexHalf},
    {DType::kComplex64, at::kComplexFloat},
    {DType::kComplex128, at::kComplexDouble},
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
    {DType::kUInt16, at::kUInt16},
    {DType::kUInt32, at::kUInt32},
    {DType::kUInt64, at::kUInt64},
    {DType::kFloat8E4M3FN, at::kFloat8_e4m3fn},
    {DType::kFloat8E5M2, at::kFloat8_e5m2},
    {DType::kFloat8E4M3FNUZ, at::kFloat8_e4m3fnuz},
    {DType::kFloat8E5M2FNUZ, at::kFloat8_e5m2fnuz},
#endif
};

}  // namespace

std::optional<DType> dtype_of(at::ScalarType type) {
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](auto& pair) { return pair.second == type; });
  return found == std::end(kTypes) ? std::nullopt : std::optional(found->first);
}

std::optional<at::ScalarType> scalar_type_of(DType dtype) {
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](auto& pair) { return pair.first == dtype; });
  return found == std::end(kTypes) ? std::nullopt : std::optional(found->second);
}

std::string describe(const format::StoredTensor& tensor) {
  const char* reason = unsupported_reason(tensor);
  return reason ? reason : ckpt::describe(tensor.dtype, tensor.shape);
}

std::string describe(const at::Tensor& tensor) {
  if (const char* reason = unsupported_reason(tensor)) return reason;
  return ckpt::describe(*dtype_of(tensor.scalar_type()), tensor.sizes());
}

bool same_form(const at::Tensor& tensor, const format::StoredTensor& stored) {
  return dtype_of(tensor.scalar_type()) == stored.dtype && tensor.sizes() == at::IntArrayRef(stored.shape);
}

const char* unsupported_reason(const at::Tensor& tensor) {
  if (!tensor.defined()) return "an undefined tensor";
  if (tensor.layout() != at::kStrided) return "a sparse tensor";
  if (tensor.is_quantized()) return "a quantized tensor";
  if (!dtype_of(tensor.scalar_type())) return "a tensor of a dtype without a name";
  if (tensor.is_meta()) return "a tensor without data (meta)";
  return nullptr;
}

const char* unsupported_reason(const format::StoredTensor& tensor) {
  switch (tensor.layout) {
    case format::TensorLayout::kStrided:
      return nullptr;
    case format::TensorLayout::kQuantized:
      return "a quantized tensor";
    case format::TensorLayout::kSparse:
      return "a sparse tensor";
  }
  return nullptr;
}

bool is_plain(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

}  // namespace ckpt::bridge
