// The tree of a state.pt, made level by level and written again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/format/archive.h"
#include "core/format/archive_writer.h"
#include "core/format/tensors_to_write.h"

namespace ckpt::weights {

/// Archives whose levels come from the dots in names. Names and paths are from a file: `path` is its name for errors.
class StateTree {
 public:
  /// `max_levels` bounds all trees that this makes.
  StateTree(std::string path, uint64_t max_levels) : path_(std::move(path)), levels_left_(max_levels) {}

  /// One tree of `values`, with the levels `empty`, too (LibTorch looks for modules that hold nothing). Where a name is
  /// also the beginning of another ("a" and "a.b"), the longer one keeps its dot. Names are escaped. Of `empty`, what is
  /// a value's name or cannot be a level (module_metadata.h) is left out. kCorrupt for two values of one name, levels
  /// deeper than 1,000 or more than may be.
  std::shared_ptr<format::Archive> make(std::vector<std::pair<std::string, format::ArchiveValue>> values,
                                        const std::vector<std::string>& empty = {});
  /// The same for a writer, of tensors by their places in its list.
  format::ArchiveToWrite make_places(std::vector<std::pair<std::string, size_t>> places,
                                     const std::vector<std::string>& empty = {});

 private:
  struct Levels;
  std::string path_;
  uint64_t levels_left_;
};

/// The bytes of a tensor in `file`, which must outlive the writing.
format::BytesToWrite bytes_of(const io::File& file, const format::StoredTensor& tensor);

/// `state` as a writer takes it; its tensors are appended to `tensors`, ties kept. They are read when they are written:
/// `state` must outlive that. kUnsupported for quantized and sparse ones.
format::ArchiveToWrite archive_to_write(const format::ArchiveFile& state, std::vector<format::TensorToWrite>& tensors);

}  // namespace ckpt::weights
