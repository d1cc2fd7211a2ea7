#include "core/base/dtype.h"

#include <algorithm>
#include <array>

namespace ckpt {
namespace {

struct Row {
  DType dtype;
  uint64_t width;
  std::string_view name;
  std::string_view storage;      // the class of its storage, as Python and C++ pickle it
  std::string_view safetensors;  // empty: safetensors cannot hold it
};

// In the order of the enumeration. The packed quantised types count as torch counts them: one byte an element.
constexpr std::array kRows = {
    Row{DType::kBool, 1, "bool", "BoolStorage", "BOOL"},
    Row{DType::kUInt8, 1, "uint8", "ByteStorage", "U8"},
    Row{DType::kInt8, 1, "int8", "CharStorage", "I8"},
    Row{DType::kUInt16, 2, "uint16", "UInt16Storage", "U16"},
    Row{DType::kInt16, 2, "int16", "ShortStorage", "I16"},
    Row{DType::kUInt32, 4, "uint32", "UInt32Storage", "U32"},
    Row{DType::kInt32, 4, "int32", "IntStorage", "I32"},
    Row{DType::kUInt64, 8, "uint64", "UInt64Storage", "U64"},
    Row{DType::kInt64, 8, "int64", "LongStorage", "I64"},
    Row{DType::kFloat16, 2, "float16", "HalfStorage", "F16"},
    Row{DType::kBFloat16, 2, "bfloat16", "BFloat16Storage", "BF16"},
    Row{DType::kFloat32, 4, "float32", "FloatStorage", "F32"},
    Row{DType::kFloat64, 8, "float64", "DoubleStorage", "F64"},
    Row{DType::kComplex32, 4, "complex32", "ComplexHalfStorage", ""},
    Row{DType::kComplex64, 8, "complex64", "ComplexFloatStorage", "C64"},
    Row{DType::kComplex128, 16, "complex128", "ComplexDoubleStorage", ""},
    Row{DType::kFloat8E4M3FN, 1, "float8_e4m3fn", "Float8_e4m3fnStorage", "F8_E4M3"},
    Row{DType::kFloat8E5M2, 1, "float8_e5m2", "Float8_e5m2Storage", "F8_E5M2"},
    Row{DType::kFloat8E4M3FNUZ, 1, "float8_e4m3fnuz", "Float8_e4m3fnuzStorage", "F8_E4M3FNUZ"},
    Row{DType::kFloat8E5M2FNUZ, 1, "float8_e5m2fnuz", "Float8_e5m2fnuzStorage", "F8_E5M2FNUZ"},
    Row{DType::kFloat8E8M0FNU, 1, "float8_e8m0fnu", "Float8_e8m0fnuStorage", "F8_E8M0"},
    Row{DType::kQInt8, 1, "qint8", "QInt8Storage", ""},
    Row{DType::kQUInt8, 1, "quint8", "QUInt8Storage", ""},
    Row{DType::kQInt32, 4, "qint32", "QInt32Storage", ""},
    Row{DType::kQUInt4x2, 1, "quint4x2", "QUInt4x2Storage", ""},
    Row{DType::kQUInt2x4, 1, "quint2x4", "QUInt2x4Storage", ""},
};

constexpr bool in_order() {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<size_t>(kRows[i].dtype) != i) return false;
  }
  return kRows.size() == static_cast<size_t>(DType::kQUInt2x4) + 1;
}
static_assert(in_order());

std::optional<DType> find(std::string_view Row::*column, std::string_view text) {
  if (text.empty()) return std::nullopt;
  for (const Row& row : kRows) {
    if (row.*column == text) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace

uint64_t width(DType dtype) { return kRows[static_cast<size_t>(dtype)].width; }
std::string_view name(DType dtype) { return kRows[static_cast<size_t>(dtype)].name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  if (name == "f16") return DType::kFloat16;
  if (name == "bf16") return DType::kBFloat16;
  if (name == "f32") return DType::kFloat32;
  if (name == "f64") return DType::kFloat64;
  return find(&Row::name, name);
}

std::optional<DType> dtype_from_storage_class(std::string_view storage_class) {
  return find(&Row::storage, storage_class);
}

std::string_view storage_class(DType dtype) { return kRows[static_cast<size_t>(dtype)].storage; }

std::optional<DType> dtype_from_safetensors(std::string_view name) { return find(&Row::safetensors, name); }

std::optional<std::string_view> safetensors_name(DType dtype) {
  std::string_view name = kRows[static_cast<size_t>(dtype)].safetensors;
  if (name.empty()) return std::nullopt;
  return name;
}

std::string describe(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

std::string describe(DType dtype, std::span<const int64_t> shape) {
  return std::string(name(dtype)) + " " + describe(shape);
}

bool is_floating(DType dtype) {
  return (dtype >= DType::kFloat16 && dtype <= DType::kFloat64) ||
         (dtype >= DType::kFloat8E4M3FN && dtype <= DType::kFloat8E8M0FNU);
}

bool is_complex(DType dtype) { return dtype >= DType::kComplex32 && dtype <= DType::kComplex128; }

bool is_quantized(DType dtype) { return dtype >= DType::kQInt8; }

void swap_byte_order(std::span<std::byte> elements, DType dtype) {
  const size_t unit = static_cast<size_t>(is_complex(dtype) ? width(dtype) / 2 : width(dtype));
  if (unit == 1) return;
  for (size_t i = 0; i + unit <= elements.size(); i += unit) {
    std::reverse(elements.begin() + static_cast<std::ptrdiff_t>(i),
                 elements.begin() + static_cast<std::ptrdiff_t>(i + unit));
  }
}

}  // namespace ckpt
