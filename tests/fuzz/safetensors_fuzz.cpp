// Any bytes as a safetensors file.
#include "core/format/safetensors.h"
#include "fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile memory;
  try {
    const auto index = ckpt::format::read_safetensors(memory.open(ckpt::fuzz::text(data, size)));
    uint64_t end = index.data_offset;
    for (const auto& named : index.tensors) {
      if (named.stored.file_offset != end) __builtin_trap();
      end += named.stored.bytes;
    }
    if (end != size) __builtin_trap();
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
