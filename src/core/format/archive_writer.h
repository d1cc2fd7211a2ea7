// Writes an archive of torch::serialize without LibTorch: torch::load and InputArchive::load_from of 1.13 and 2.x read
// it, and so do torch.jit.load and archive.h. Beside the pickle that holds the values, LibTorch needs `code/__torch__.py`
// to declare a class for each level, with the type of each member.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/format/tensors_to_write.h"
#include "core/io/block_writer.h"

namespace ckpt::format {

struct ArchiveToWrite;

/// A value of a level. A tensor is its place in the list of tensors that the archive is written with.
struct TensorPlace {
  size_t index = 0;
};
using ArchiveValueToWrite = std::variant<std::monostate, bool, int64_t, double, std::string, TensorPlace,
                                         std::vector<int64_t>, std::vector<double>, std::vector<TensorPlace>,
                                         std::shared_ptr<const ArchiveToWrite>>;

/// One level, in order. Names are written as they are: what LibTorch cannot read back (archive.h) is kInvalid.
struct ArchiveToWrite {
  std::vector<std::pair<std::string, ArchiveValueToWrite>> members;
};

/// Appends a whole file. A tensor's `is_parameter` says whether it asks for gradients. kInvalid, kUnsupported as
/// write_torch; nothing was appended then. The same input gives the same bytes.
void write_archive(io::BlockWriter& writer, const ArchiveToWrite& root, const std::vector<TensorToWrite>& tensors);

/// Levels by the dots in the names of `tensors`, as torch::save(module) writes a tree of modules. kInvalid for names that
/// LibTorch cannot read back, all of them in details().
ArchiveToWrite archive_of(const std::vector<TensorToWrite>& tensors);

}  // namespace ckpt::format
