#include "core/format/safetensors.h"

#include <algorithm>
#include <array>
#include <span>
#include <tuple>

#include "core/base/checked.h"
#include "core/base/json.h"
#include "core/base/name_order.h"
#include "core/base/quote.h"
#include "core/format/safetensors_header.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100000000;
void check_names(std::span<const NamedTensor> tensors, const std::vector<OpaqueTensor>& opaque,
                 const std::string& path) {
  const auto name = [&](size_t i) -> const std::string& {
    return i < tensors.size() ? tensors[i].name : opaque[i - tensors.size()].name;
  };
  const std::vector<uint32_t> order = order_by_name(tensors.size() + opaque.size(), name);
  const auto twice =
      std::adjacent_find(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return name(a) == name(b); });
  if (twice != order.end()) {
    throw Error(ErrorCode::kCorrupt, path, "header: two tensors " + quote(name(*twice)), {.tensor = name(*twice)});
  }
}

template <class T>
void sort_by_place(std::span<T> list) {
  const auto place = [](const T& item) {
    if constexpr (std::is_same_v<T, NamedTensor>) {
      return std::tie(item.stored.file_offset, item.stored.bytes, item.name);
    } else {
      return std::tie(item.file_offset, item.bytes, item.name);
    }
  };
  const auto before = [&](const T& a, const T& b) { return place(a) < place(b); };
  if (!std::is_sorted(list.begin(), list.end(), before)) std::sort(list.begin(), list.end(), before);
}

/// Sorts `tensors`, those of this file, by place and turns offsets into the data into offsets in the file; refuses
/// holes and overlaps.
void place_tensors(std::span<NamedTensor> tensors, SafetensorsIndex& index, uint64_t file_bytes,
                   const std::string& path) {
  sort_by_place(tensors);
  sort_by_place(std::span(index.opaque));
  const uint64_t data_bytes = file_bytes - index.data_offset;
  uint64_t end = 0;
  const auto place = [&](const std::string& name, uint64_t& offset, uint64_t bytes) {
    if (offset != end || bytes > data_bytes - end) {
      throw Error(ErrorCode::kCorrupt, path,
                  "tensor " + quote(name) + ": " + std::to_string(bytes) + " bytes at " + std::to_string(offset) +
                      " of the data, expected at " + std::to_string(end) + " and at most " +
                      std::to_string(data_bytes - end),
                  {.offset = index.data_offset + end, .tensor = name});
    }
    end += bytes;
    offset += index.data_offset;
  };
  auto opaque = index.opaque.begin();
  const auto place_opaque = [&](uint64_t before, uint64_t bytes) {
    for (; opaque != index.opaque.end() && std::tie(opaque->file_offset, opaque->bytes) < std::tie(before, bytes);
         ++opaque) {
      place(opaque->name, opaque->file_offset, opaque->bytes);
    }
  };
  for (NamedTensor& named : tensors) {
    StoredTensor& tensor = named.stored;
    place_opaque(tensor.file_offset, tensor.bytes);
    place(named.name, tensor.file_offset, tensor.bytes);
    tensor.storage_offset = tensor.file_offset;
  }
  place_opaque(UINT64_MAX, UINT64_MAX);
  if (end != data_bytes) {
    throw Error(ErrorCode::kCorrupt, path,
                "expected " + std::to_string(end) + " bytes of data, found " + std::to_string(data_bytes),
                {.offset = index.data_offset + end});
  }
}

[[noreturn]] void invalid(const std::string& path, const TensorToWrite& tensor, const std::string& what,
                          ErrorCode code = ErrorCode::kInvalid) {
  throw Error(code, path, "tensor " + quote(tensor.name) + ": " + what, {.tensor = tensor.name});
}

void check_to_write(const TensorToWrite& tensor) {
  if (!safetensors_name(tensor.dtype)) {
    invalid("", tensor, "safetensors has no dtype " + std::string(name(tensor.dtype)), ErrorCode::kUnsupported);
  }
  if (tensor.name == "__metadata__" || !is_utf8(tensor.name) || tensor.name.size() > kMaxNameBytes) {
    invalid("", tensor, "safetensors cannot hold this name");
  }
  if (tensor.tied_to != -1) invalid("", tensor, "safetensors cannot hold a second name of a tensor");
  check_data(tensor);
}

/// `late_at`: where in the header the value of `late` stands, where that is set.
std::string header_of(const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata,
                      const LateText* late, size_t& late_at) {
  std::string header = "{";
  for (const auto& [key, value] : metadata) {
    header += (header.size() == 1 ? "\"__metadata__\":{" : ",") + dump_json(key) + ":";
    if (late && key == late->key) late_at = header.size();
    header += dump_json(value);
  }
  if (!metadata.empty()) header += '}';
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    if (header.size() > 1) header += ',';
    const uint64_t end = offset + tensor.data.bytes;
    header += dump_json(tensor.name) + ":{\"dtype\":\"" + std::string(*safetensors_name(tensor.dtype)) +
              "\",\"shape\":" + dump_json(tensor.shape) + ",\"data_offsets\":[" + std::to_string(offset) + "," +
              std::to_string(end) + "]}";
    offset = end;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > kMaxHeaderBytes) {
    throw Error(ErrorCode::kInvalid, "",
                "safetensors: a header of " + std::to_string(header.size()) + " bytes, at most " +
                    std::to_string(kMaxHeaderBytes) + " are allowed");
  }
  return header;
}

}  // namespace

SafetensorsIndex read_safetensors(const io::File& file) {
  uint64_t memory = file.stat().bytes + kMemoryBeyondFile;
  return read_safetensors(file, memory);
}

SafetensorsIndex read_safetensors(const io::File& file, uint64_t& memory, std::vector<NamedTensor> before) {
  const uint64_t file_bytes = file.stat().bytes;
  std::array<std::byte, 8> length;
  file.read_at(0, length);
  const auto header_bytes = load_le<uint64_t>(length.data());
  if (header_bytes > std::min(kMaxHeaderBytes, file_bytes - length.size())) {
    throw Error(ErrorCode::kCorrupt, file.path(),
                "no safetensors file, or cut off: a header of " + std::to_string(header_bytes) +
                    " bytes in a file of " + std::to_string(file_bytes),
                {.offset = 0});
  }
  SafetensorsIndex index;
  const size_t first = before.size();
  index.tensors = std::move(before);
  index.data_offset = length.size() + header_bytes;
  parse_safetensors_header(file, header_bytes, memory, index);
  const std::span tensors = std::span(index.tensors).subspan(first);
  check_names(tensors, index.opaque, file.path());
  place_tensors(tensors, index, file_bytes, file.path());
  return index;
}

bool safetensors_before(const TensorToWrite& a, const TensorToWrite& b) {
  const uint64_t width_a = width(a.dtype), width_b = width(b.dtype);
  return width_a != width_b ? width_a > width_b : a.name < b.name;
}

void write_safetensors(io::BlockWriter& writer, std::vector<TensorToWrite> tensors,
                       std::map<std::string, std::string> metadata, const LateText* late) {
  if (late) metadata[late->key] = late->sample;
  for (const TensorToWrite& tensor : tensors) check_to_write(tensor);
  for (const auto& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value)) {
      throw Error(ErrorCode::kInvalid, "", "safetensors: metadata " + quote(key) + " is not UTF-8");
    }
  }
  std::sort(tensors.begin(), tensors.end(), safetensors_before);
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorToWrite& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    throw Error(ErrorCode::kInvalid, "", "safetensors: two tensors " + quote(*twice));
  }
  size_t late_at = 0;
  const std::string header = header_of(tensors, metadata, late, late_at);
  std::string length;
  append_le(length, header.size(), 8);
  if (late) writer.hold(length.size() + header.size());
  writer.append(as_bytes(length));
  writer.append(as_bytes(header));
  for (const TensorToWrite& tensor : tensors) append(writer, tensor.data);
  if (!late) return;
  const std::string text = dump_json(late->make());
  if (text.size() != dump_json(late->sample).size()) {
    throw Error(ErrorCode::kInternal, "", "safetensors: metadata " + quote(late->key) + " has become longer");
  }
  writer.patch(length.size() + late_at, as_bytes(text));
}

}  // namespace ckpt::format
