#include "parts.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/format/safetensors.h"
#include "core/io/block_writer.h"
#include "library.h"

namespace ckpt::tool {
namespace {

/// Copies the elements of a strided tensor out of the bytes of its storage, row-major.
void gather(const format::StoredTensor& tensor, const std::byte* first, std::byte* to) {
  const uint64_t element = width(tensor.dtype);
  std::vector<int64_t> shape, strides;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    if (tensor.shape[d] == 1) continue;  // its stride is never used, so it may be any number
    shape.push_back(tensor.shape[d]);
    strides.push_back(tensor.strides[d]);
  }
  std::vector<int64_t> index(shape.size(), 0);
  int64_t offset = 0;  // in elements, of index
  for (uint64_t i = 0; i < tensor.elements; ++i, to += element) {
    std::memcpy(to, first + offset * static_cast<int64_t>(element), element);
    for (size_t d = index.size(); d-- > 0;) {
      offset += strides[d];
      if (++index[d] < shape[d]) break;
      offset -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
}

std::vector<std::byte> read_tensor(const io::File& file, const format::StoredTensor& tensor) {
  if (tensor.contiguous() || tensor.elements == 0) return file.read_at(tensor.file_offset, tensor.bytes);
  const std::vector<std::byte> storage = file.read_at(tensor.storage_offset, tensor.storage_bytes);
  std::vector<std::byte> bytes(tensor.bytes);
  gather(tensor, storage.data() + (tensor.file_offset - tensor.storage_offset), bytes.data());
  return bytes;
}

void write_safetensors_part(const format::ArchiveFile& state, const std::string& part, io::BlockWriter& writer) {
  std::vector<format::TensorToWrite> tensors;
  std::vector<std::vector<std::byte>> data;
  std::map<std::string, std::string> metadata;
  // Tied tensors are written once; the other names stand in the metadata, as safetensors' own save_model does it.
  std::map<std::tuple<uint64_t, DType, std::vector<int64_t>, std::vector<int64_t>>, std::string> seen;
  for (const format::NamedTensor& named : format::tensors_of(*state.root().nested(part), /*escaped=*/true)) {
    const format::StoredTensor& tensor = named.tensor;
    const auto [first, is_new] =
        seen.try_emplace({tensor.file_offset, tensor.dtype, tensor.shape, tensor.strides}, named.name);
    if (!is_new && tensor.elements > 0) {
      metadata[named.name] = first->second;
      continue;
    }
    data.push_back(read_tensor(state.file(), tensor));
    tensors.push_back({named.name, tensor.dtype, tensor.shape, ByteView(data.back())});
  }
  metadata.emplace("format", "pt");  // what other readers look for
  format::write_safetensors(writer, std::move(tensors), metadata);
}

void copy_file(const io::File& file, io::BlockWriter& writer) {
  const uint64_t size = file.stat().bytes;
  for (uint64_t offset = 0; offset < size;) {
    const uint64_t count = std::min(io::kBlockBytes, size - offset);
    if (!writer.append(file.read_at(offset, count))) return;  // replace_file() throws the error
    offset += count;
  }
}

}  // namespace

void require_part(const format::ArchiveFile& state, const std::string& part) {
  if (part == "all" || state.root().nested(part)) return;
  std::string parts;
  for (const auto& [name, value] : state.root().members) {
    const bool is_part = std::holds_alternative<std::shared_ptr<const format::Archive>>(value);
    if (is_part && name != "ckpt" && name != "rng") {
      parts += (parts.empty() ? "" : ", ") + quote(format::unescape_name(name));
    }
  }
  throw Error(ErrorCode::kNotFound, state.file().path(),
              "has no part " + quote(part) + "; it has " + (parts.empty() ? "none" : parts));
}

void write_part(const format::ArchiveFile& state, const std::string& part, const std::string& path) {
  require_part(state, part);
  const bool safetensors = path.ends_with(".safetensors");
  const bool needs_torch = !safetensors && part != "all";
  const program::Library* library = needs_torch ? &torch_library() : nullptr;
  if (!io::stat(io::parent_path(path))) {
    throw Error(ErrorCode::kIo, path, "the directory it is to be written to does not exist");
  }
  io::replace_file(path, [&](io::BlockWriter& writer) {
    if (library) {
      library->write_part(state, part, writer);
    } else if (safetensors) {
      write_safetensors_part(state, part, writer);
    } else {
      copy_file(state.file(), writer);
    }
  });
}

}  // namespace ckpt::tool
