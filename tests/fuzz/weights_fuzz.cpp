// Any bytes as a file of weights of any format; what is none is taken for the pickle of a torch.save. All small tensors
// are read, in both ways, and must be alike.
#include "core/weights/weights.h"
#include "fuzz/memory_file.h"
#include "core/weights/training_zip.h"

namespace {

bool is_file(std::string_view input) {
  return input.starts_with("PK") || input.starts_with("\x80\x02\x8a\x0a") || (input.size() > 8 && input[8] == '{');
}

void read_all(const ckpt::weights::Weights& weights) {
  weights.wasted_bytes();
  for (const ckpt::weights::Tensor& tensor : weights.tensors()) {
    if (weights.find(tensor.name) != &tensor) __builtin_trap();
    if (tensor.stored.bytes > 65536 || tensor.stored.layout != ckpt::format::TensorLayout::kStrided) continue;
    std::string read(tensor.stored.bytes, '?'), streamed;
    weights.read(tensor, std::as_writable_bytes(std::span(read)));
    try {
      weights.stream(tensor, [&](ckpt::ByteView piece) { streamed += ckpt::as_text(piece); });
    } catch (const ckpt::Error& error) {  // it checks checksums
      if (error.code() != ckpt::ErrorCode::kCorrupt) __builtin_trap();
      continue;
    }
    if (read != streamed) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile memory;
  const std::string_view input = ckpt::fuzz::text(data, size);
  const std::string bytes = is_file(input) ? std::string(input) : ckpt::test::training_zip(input);
  const std::string path(memory.open(bytes).path());
  for (const bool whole : {false, true}) {
    try {
      read_all(ckpt::weights::Weights::open(path, {.whole = whole}));
    } catch (const ckpt::Error&) {  // the one thing that may be thrown
    }
  }
  return 0;
}
