// Any bytes as the pickle of a training checkpoint of Python (a zip is taken as it is): made a training state, and
// exported again; what was exported must be whole.
#include "core/weights/python_checkpoint.h"
#include "fuzz/exported.h"
#include "fuzz/memory_file.h"

namespace {

using ckpt::format::ArchiveFile;
using ckpt::format::TorchFile;

std::vector<std::string> warnings;

ArchiveFile state_of(ckpt::io::File file) {
  warnings.clear();
  const TorchFile torch = TorchFile::open(std::move(file));
  try {
    // In place of a model from another file: the tensors of the whole file.
    ckpt::weights::optimizer_state_of(torch, ckpt::format::tensors_below(torch, torch.root()).tensors, warnings);
  } catch (const ckpt::Error&) {  // the state itself may be fine
  }
  ArchiveFile state = ckpt::weights::training_state_of(torch, {}, warnings);
  ckpt::weights::head_of(state);
  return state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ckpt::fuzz::MemoryFile first, second;
  const std::string_view input = ckpt::fuzz::text(data, size);
  std::string exported;
  try {
    const std::string bytes = input.starts_with("PK") ? std::string(input) : ckpt::test::training_zip(input);
    exported = ckpt::fuzz::export_for_python(state_of(first.open(bytes)));
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
    return 0;
  }
  try {
    state_of(second.open(exported));
  } catch (const ckpt::Error& error) {
    // Which parameters are whose may be known from the order of the first file alone.
    if (error.code() != ckpt::ErrorCode::kMismatch) __builtin_trap();
  }
  return 0;
}
