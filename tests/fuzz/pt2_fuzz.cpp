// Any bytes as a .pt2; what is no zip is taken for the table of its weights, past the CRC that would stop it there.
#include "core/format/pt2.h"
#include "core/format/zip_builder.h"
#include "fuzz/memory_file.h"

namespace {

std::string package(std::string_view table) {
  using ckpt::test::zip_entry;
  return ckpt::test::ZipImage{.entries = {zip_entry("a/data/weights/weight_0", std::string(24, 'w')),
                                          zip_entry("a/data/weights/weight_1", ""),
                                          zip_entry("a/data/weights/model_weights_config.json", std::string(table)),
                                          zip_entry("a/archive_format", "pt2")}}
      .bytes();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile memory;
  const std::string_view input = ckpt::fuzz::text(data, size);
  const std::string bytes = input.starts_with("PK") ? std::string(input) : package(input);
  try {
    const ckpt::io::File file = memory.open(bytes);
    for (const auto& named : ckpt::format::read_pt2(ckpt::format::ZipReader(file))) {
      const auto& tensor = named.stored;
      if (tensor.elements > 0 && tensor.file_offset + ckpt::width(tensor.dtype) > bytes.size()) __builtin_trap();
    }
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
