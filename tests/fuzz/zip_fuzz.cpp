// Any bytes as a zip file: opened, every record read, every byte checked.
#include "core/format/verify.h"
#include "core/format/zip_reader.h"
#include "fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile memory;
  const ckpt::io::File file = memory.open(ckpt::fuzz::text(data, size));
  try {
    const ckpt::format::ZipReader zip(file);
    ckpt::format::check_file(file, nullptr, &zip, {}, 1);
    for (const ckpt::format::ZipRecord& record : zip.records()) {
      if (zip.find(record.name) != &record) __builtin_trap();
      try {
        if (zip.read(record, 1 << 20).size() != record.bytes) __builtin_trap();
      } catch (const ckpt::Error&) {  // the others may be whole
      }
    }
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
