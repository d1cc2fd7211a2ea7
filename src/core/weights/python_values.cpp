#include "core/weights/python_values.h"

#include <array>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "core/base/json.h"

namespace ckpt::weights {
namespace {

using format::Pickle;
using format::PickleKind;
using format::PickleNode;
using format::TorchFile;
using format::TorchKind;
using nlohmann::json;

constexpr size_t kLongestText = 200;

/// One little-endian element.
std::optional<json> element(const std::byte* bytes, DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return json_number(std::bit_cast<double>(load_le<uint64_t>(bytes)));
    case DType::kFloat32:
      return json_number(double{std::bit_cast<float>(load_le<uint32_t>(bytes))});
    case DType::kInt64:
      return load_le<int64_t>(bytes);
    case DType::kInt32:
      return load_le<int32_t>(bytes);
    case DType::kInt16:
      return load_le<int16_t>(bytes);
    case DType::kInt8:
      return load_le<int8_t>(bytes);
    case DType::kUInt8:
      return load_le<uint8_t>(bytes);
    case DType::kBool:
      return *bytes != std::byte{0};
    default:
      return std::nullopt;
  }
}

std::optional<json> tensor_scalar(const TorchFile& file, PickleNode node) {
  const format::StoredTensor tensor = file.tensor(node);
  if (tensor.elements != 1 || tensor.layout != format::TensorLayout::kStrided) return std::nullopt;
  std::vector<std::byte> bytes = file.file().read_at(tensor.file_offset, width(tensor.dtype));
  if (tensor.big_endian) swap_byte_order(bytes, tensor.dtype);
  return element(bytes.data(), tensor.dtype);
}

bool is_text(const Pickle& pickle, PickleNode node) { return pickle.kind(node) == PickleKind::kText; }

/// The items of a tuple; empty where it is none.
std::span<const PickleNode> tuple_items(const Pickle& pickle, PickleNode node) {
  if (node == format::kNoNode || pickle.kind(node) != PickleKind::kTuple) return {};
  return pickle.items(node);
}

// Protocol 2 has no bytes: Python 3 writes _codecs.encode(text, "latin1"), in which each character is a byte.
std::optional<std::vector<std::byte>> bytes_of(const Pickle& pickle, PickleNode node) {
  if (pickle.kind(node) == PickleKind::kBytes) {
    const ByteView bytes = as_bytes(pickle.text(node));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  }
  if (pickle.kind(node) != PickleKind::kObject) return std::nullopt;
  const format::PickleObject& call = pickle.object(node);
  const auto arguments = tuple_items(pickle, call.arguments);
  if (!pickle.is_global(call.callable, "_codecs", "encode") || arguments.size() != 2 || !is_text(pickle, arguments[0]))
    return std::nullopt;
  const std::string_view text = pickle.text(arguments[0]);
  if (text.size() > kLongestText) return std::nullopt;
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    auto code = static_cast<unsigned>(static_cast<unsigned char>(text[i]));
    if (code >= 0x80) {
      const unsigned next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0u;
      if ((code != 0xc2 && code != 0xc3) || (next & 0xc0) != 0x80) return std::nullopt;
      code = (code & 3) << 6 | (next & 0x3f);
      ++i;
    }
    bytes.push_back(static_cast<std::byte>(code));
  }
  return bytes;
}

std::optional<DType> numpy_dtype(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, DType>, 8> kNames{{{"f8", DType::kFloat64},
                                                                             {"f4", DType::kFloat32},
                                                                             {"i8", DType::kInt64},
                                                                             {"i4", DType::kInt32},
                                                                             {"i2", DType::kInt16},
                                                                             {"i1", DType::kInt8},
                                                                             {"u1", DType::kUInt8},
                                                                             {"b1", DType::kBool}}};
  for (const auto& [known, dtype] : kNames) {
    if (known == name) return dtype;
  }
  return std::nullopt;
}

// numpy.core.multiarray.scalar(numpy.dtype("f8", False, True), bytes); the dtype's state is (3, "<", ...).
std::optional<json> numpy_scalar(const Pickle& pickle, PickleNode node) {
  if (pickle.kind(node) != PickleKind::kObject) return std::nullopt;
  const format::PickleObject& call = pickle.object(node);
  if (!pickle.is_global(call.callable, "numpy.core.multiarray", "scalar") &&
      !pickle.is_global(call.callable, "numpy._core.multiarray", "scalar")) {
    return std::nullopt;
  }
  const auto arguments = tuple_items(pickle, call.arguments);
  if (arguments.size() != 2 || pickle.kind(arguments[0]) != PickleKind::kObject) return std::nullopt;
  const format::PickleObject& type = pickle.object(arguments[0]);
  const auto name = tuple_items(pickle, type.arguments);
  const auto state = tuple_items(pickle, type.state);
  if (!pickle.is_global(type.callable, "numpy", "dtype") || name.empty() || !is_text(pickle, name[0]) ||
      state.size() < 2 || !is_text(pickle, state[1])) {
    return std::nullopt;
  }
  const auto dtype = numpy_dtype(pickle.text(name[0]));
  auto bytes = bytes_of(pickle, arguments[1]);
  if (!dtype || !bytes || bytes->size() != width(*dtype)) return std::nullopt;
  if (pickle.text(state[1]) == ">") swap_byte_order(*bytes, *dtype);
  return element(bytes->data(), *dtype);
}

}  // namespace

std::optional<json> python_scalar(const TorchFile& file, PickleNode node) {
  const Pickle& pickle = file.pickle();
  if (auto number = numpy_scalar(pickle, node)) return number;
  switch (file.kind(node)) {
    case TorchKind::kNone:
      return json();
    case TorchKind::kBool:
      return pickle.boolean(node);
    case TorchKind::kInt:
      return pickle.integer(node);
    case TorchKind::kFloat:
      return json_number(pickle.number(node));
    case TorchKind::kText:
      if (pickle.text(node).size() > kLongestText) return std::nullopt;
      return std::string(pickle.text(node));
    case TorchKind::kTensor:
      return tensor_scalar(file, node);
    default:
      return std::nullopt;
  }
}

std::optional<int64_t> whole_number(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return number <= static_cast<uint64_t>(INT64_MAX) ? std::optional(static_cast<int64_t>(number)) : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  if (std::abs(number) > 0x1p53 || number != std::floor(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace ckpt::weights
