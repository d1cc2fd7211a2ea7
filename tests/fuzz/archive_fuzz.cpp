// Any bytes as an archive file; what is no zip is taken for the pickle of one, past the CRC that would stop it there.
#include "core/format/archive.h"
#include "core/format/pickle_builder.h"
#include "fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile memory;
  const std::string_view input = ckpt::fuzz::text(data, size);
  const std::string file =
      input.starts_with("PK") ? std::string(input) : ckpt::test::pickled::archive(std::string(input)).bytes();
  try {
    const auto archive = ckpt::format::ArchiveFile::open(memory.open(file));
    for (const auto& named : ckpt::format::tensors_of(archive.root(), true)) {
      const auto& tensor = named.stored;
      if (tensor.contiguous() && tensor.elements > 0 && tensor.file_offset + tensor.bytes > file.size())
        __builtin_trap();
    }
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
