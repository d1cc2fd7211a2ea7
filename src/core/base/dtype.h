// Element types of tensors, by the names that torch gives them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ckpt {

enum class DType : uint8_t {
  kBool,
  kUInt8,
  kInt8,
  kUInt16,
  kInt16,
  kUInt32,
  kInt32,
  kUInt64,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kComplex32,
  kComplex64,
  kComplex128,
  kFloat8E4M3FN,
  kFloat8E5M2,
  kFloat8E4M3FNUZ,
  kFloat8E5M2FNUZ,
  kFloat8E8M0FNU,
  kQInt8,
  kQUInt8,
  kQInt32,
  kQUInt4x2,
  kQUInt2x4,
};

/// Bytes of one element.
uint64_t width(DType dtype);

/// "float32", "bfloat16", "float8_e4m3fn", ...
std::string_view name(DType dtype);

/// From torch's name ("float32") or a flag's short one (f16, bf16, f32, f64).
std::optional<DType> dtype_from_name(std::string_view name);

/// From the class of a storage in a pickle ("FloatStorage"); std::nullopt for UntypedStorage and unknown ones.
std::optional<DType> dtype_from_storage_class(std::string_view storage_class);

/// The class of a storage of `dtype`, as LibTorch pickles it ("FloatStorage"). Python has some of these classes alone.
std::string_view storage_class(DType dtype);

/// From and to safetensors' spelling ("F32"); std::nullopt where safetensors has none.
std::optional<DType> dtype_from_safetensors(std::string_view name);
std::optional<std::string_view> safetensors_name(DType dtype);

/// "[3, 1, 8]".
std::string describe(std::span<const int64_t> shape);
/// "float32 [3, 1, 8]".
std::string describe(DType dtype, std::span<const int64_t> shape);

/// float8 to float64 and bfloat16; neither integers nor complex numbers.
bool is_floating(DType dtype);
bool is_complex(DType dtype);
bool is_quantized(DType dtype);

/// Turns the order of the bytes in each element (in each half of a complex one) around.
void swap_byte_order(std::span<std::byte> elements, DType dtype);

}  // namespace ckpt
