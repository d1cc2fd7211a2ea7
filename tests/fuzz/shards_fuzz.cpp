// Any bytes as the index of a sharded safetensors model. Two files lie beside it, "a" with the tensors x and y, and "b"
// with z.
#include <filesystem>
#include <fstream>

#include "core/format/safetensors_builder.h"
#include "core/format/safetensors_shards.h"
#include "fuzz/memory_file.h"

namespace {

/// A folder of its own: the index names what lies beside it.
struct Folder {
  Folder() {
    const auto write = [&](const char* name, const std::string& header, const std::string& data) {
      std::ofstream(path + "/" + name, std::ios::binary) << ckpt::test::safetensors(header, data);
    };
    write("a",
          R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"y":{"dtype":"U8","shape":[],"data_offsets":[1,2]}})",
          "xy");
    write("b", R"({"z":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "z");
  }
  ~Folder() { std::filesystem::remove_all(path); }

  std::string path = ckpt::fuzz::temporary_folder();
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Folder folder;
  static ckpt::fuzz::MemoryFile memory(folder.path);
  try {
    const auto sharded = ckpt::format::read_sharded(memory.open(ckpt::fuzz::text(data, size)));
    for (const auto& file : sharded.files) {
      if (std::filesystem::path(file->path()).parent_path() != folder.path) __builtin_trap();
    }
    for (const auto& named : sharded.tensors) {
      if (named.file >= sharded.files.size()) __builtin_trap();
    }
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
