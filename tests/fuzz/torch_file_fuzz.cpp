// Any bytes as a file of torch.save: opened, every tensor in it placed. What is neither a zip nor the older format is
// taken for the pickle of a zip, past the CRC that would stop it there.
#include "core/format/torch_builder.h"
#include "fuzz/memory_file.h"

namespace {

bool may_be_legacy(std::string_view input) {
  return input.starts_with("\x80\x02\x8a\x0a") || (input.size() > 2 && input[0] == '\x80' && input[2] == '\x95');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile memory;
  const std::string_view input = ckpt::fuzz::text(data, size);
  const bool is_file = input.starts_with("PK") || may_be_legacy(input);
  const std::string bytes = is_file ? std::string(input) : ckpt::test::pickled::archive(std::string(input)).bytes();
  try {
    const auto file = ckpt::format::TorchFile::open(memory.open(bytes));
    file.globals();
    file.state_dict_metadata(file.root());
    for (const auto& named : ckpt::format::tensors_below(file, file.root()).tensors) {
      const auto& tensor = named.stored;
      if (tensor.layout == ckpt::format::TensorLayout::kSparse || tensor.elements == 0) continue;
      uint64_t last = 0;
      for (size_t i = 0; i < tensor.shape.size(); ++i) {
        last += static_cast<uint64_t>(tensor.shape[i] - 1) * static_cast<uint64_t>(tensor.strides[i]);
      }
      if (tensor.file_offset + (last + 1) * ckpt::width(tensor.dtype) > bytes.size()) __builtin_trap();
    }
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
