// What Python would be given for a training state, as a fuzz target makes it: the pickle and the small tensors.
#pragma once

#include "core/format/pickle_writer.h"
#include "core/weights/python_checkpoint.h"
#include "core/weights/state_tree.h"
#include "core/weights/training_zip.h"

namespace ckpt::fuzz {

/// The bytes of the file, but for the storages: those of tensors beyond 64 KiB are not made at all. A tensor whose data
/// are not as long as it says stops the program.
inline std::string export_for_python(const format::ArchiveFile& state) {
  std::vector<format::TensorToWrite> tensors;
  std::vector<std::string> warnings;
  const format::ArchiveToWrite tree = weights::archive_to_write(state, tensors);
  const format::PickleValue value = weights::python_checkpoint_of(tree, state.file().path(), tensors, warnings);
  format::check_tensors(tensors);
  format::PickleWriter pickle(format::PickleReader::kPython, tensors);
  pickle.value(value);
  test::ZipImage image;
  image.entries.push_back(test::zip_entry("a/data.pkl", pickle.finish()));
  for (size_t key = 0; key < pickle.storages().size(); ++key) {
    const format::BytesToWrite& data = tensors[pickle.storages()[key]].data;
    if (data.bytes > 65536) throw Error(ErrorCode::kUnsupported, "", "too large to be tried");
    std::string bytes(as_text(data.memory));
    if (data.produce) data.produce([&](ByteView piece) { bytes += as_text(piece); });
    if (bytes.size() != data.bytes) __builtin_trap();
    image.entries.push_back(test::zip_entry("a/data/" + std::to_string(key), bytes));
  }
  return image.bytes();
}

}  // namespace ckpt::fuzz
