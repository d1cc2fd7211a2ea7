// Any bytes as the pickle of a state.pt (a zip is taken as it is): what a manifest says of it, and the training
// checkpoint for Python.
#include "fuzz/exported.h"
#include "fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile memory;
  const std::string_view input = ckpt::fuzz::text(data, size);
  try {
    const auto state = ckpt::format::ArchiveFile::open(
        memory.open(input.starts_with("PK") ? std::string(input) : ckpt::test::training_zip(input)));
    try {
      ckpt::weights::head_of(state);
    } catch (const ckpt::Error&) {  // it may be exported all the same
    }
    ckpt::fuzz::export_for_python(state);
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
