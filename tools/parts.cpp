#include "parts.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/format/archive_writer.h"
#include "core/io/block_writer.h"
#include "core/weights/convert.h"
#include "core/weights/state_tree.h"
#include "core/weights/weights.h"

namespace ckpt::tool {
namespace {

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
  if (!io::stat(io::parent_path(path))) {
    throw Error(ErrorCode::kIo, path, "the directory it is to be written to does not exist");
  }
  if (part == "all") {
    io::replace_file(path, [&](io::BlockWriter& writer) { copy_file(state.file(), writer); });
  } else if (path.ends_with(".safetensors")) {
    const auto weights = weights::Weights::open(state.file().path(), {.key = part});
    weights::convert(weights, path, {.to = Format::kSafetensors});
  } else {
    const auto* level = state.root().get<std::shared_ptr<const format::Archive>>(part);
    const format::ArchiveFile alone(state.shared_file(), *level);
    std::vector<format::TensorToWrite> tensors;
    const format::ArchiveToWrite archive = weights::archive_to_write(alone, tensors);
    io::replace_file(path, [&](io::BlockWriter& writer) { format::write_archive(writer, archive, tensors); });
  }
}

}  // namespace ckpt::tool
