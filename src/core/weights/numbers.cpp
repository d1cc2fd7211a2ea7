#include "core/weights/numbers.h"

#include <cstring>
#include <string>

#include "core/weights/convert.h"

namespace ckpt::weights {
namespace {

template <class T>
void cast(ByteView elements, std::span<double> to) {
  for (size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, elements.data() + i * sizeof value, sizeof value);
    to[i] = static_cast<double>(value);
  }
}

void from_floating(ByteView elements, DType dtype, std::span<double> to) {
  convert_elements(elements, dtype, std::as_writable_bytes(to), DType::kFloat64);
}

}  // namespace

void as_doubles(ByteView elements, DType dtype, std::span<double> to) {
  switch (dtype) {
    case DType::kBool:
    case DType::kUInt8:
      return cast<uint8_t>(elements, to);
    case DType::kInt8:
      return cast<int8_t>(elements, to);
    case DType::kUInt16:
      return cast<uint16_t>(elements, to);
    case DType::kInt16:
      return cast<int16_t>(elements, to);
    case DType::kUInt32:
      return cast<uint32_t>(elements, to);
    case DType::kInt32:
      return cast<int32_t>(elements, to);
    case DType::kUInt64:
      return cast<uint64_t>(elements, to);
    case DType::kInt64:
      return cast<int64_t>(elements, to);
    case DType::kComplex32:
      return from_floating(elements, DType::kFloat16, to);
    case DType::kComplex64:
      return from_floating(elements, DType::kFloat32, to);
    case DType::kComplex128:
      return from_floating(elements, DType::kFloat64, to);
    default:
      return from_floating(elements, dtype, to);
  }
}

}  // namespace ckpt::weights
