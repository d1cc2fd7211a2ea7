// Writes an archive of torch::serialize without LibTorch: torch::load and InputArchive::load_from of 1.13 and 2.x read
// it, and so do torch.jit.load and archive.h. Beside the pickle that holds the values, LibTorch needs
// `code/__torch__.py` to declare a class for each level, with the type of each member; levels of the same members share
// a class.
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
using ArchiveValueToWrite =
    std::variant<std::monostate, bool, int64_t, double, std::string, TensorPlace, std::vector<int64_t>,
                 std::vector<double>, std::vector<TensorPlace>, std::shared_ptr<const ArchiveToWrite>>;

/// One level, in order.
struct ArchiveToWrite {
  std::vector<std::pair<std::string, ArchiveValueToWrite>> members;
};

/// Appends a whole file. A tensor's `is_parameter` says whether it is a parameter, and asks for gradients where its
/// dtype has them. Any name of UTF-8 works, also those that LibTorch's own writer loses (archive.h): classes are
/// declared so that names are never read as code. kInvalid for names twice in a level, names and texts that are not
/// UTF-8, places that are no tensor, and more than 1,000 levels inside each other, all of them in details(); else as
/// write_torch. Nothing was appended then. The same input gives the same bytes. `late` is a record of its own, which
/// other readers do not look at.
void write_archive(io::BlockWriter& writer, const ArchiveToWrite& root, const std::vector<TensorToWrite>& tensors,
                   const LateText* late = nullptr);

/// Levels by the dots in the names of `tensors`, as torch::save(module) writes a tree of modules. Where a name is also
/// the beginning of another ("a" and "a.b"), the longer one keeps its dot; so do dots beyond the deepest level.
/// `empty_levels`: paths of levels that hold nothing, which LibTorch looks for all the same.
ArchiveToWrite archive_of(const std::vector<TensorToWrite>& tensors, const std::vector<std::string>& empty_levels = {});

}  // namespace ckpt::format
