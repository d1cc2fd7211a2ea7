// What the program `ckpt` needs LibTorch for. The program is linked with the Torch-free core alone, so that it starts
// at once; when a command needs one of these, it opens the shared library `ckpt` and finds them by one C function.
// Program and library are of one version: nothing here is stable.
//
// Thread rule: one thread at a time.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "core/format/archive.h"
#include "core/run/retention.h"
#include "core/run/writer.h"

namespace ckpt::program {

/// What `ckpt save` commits. All files are whole: every CRC was checked.
struct SaveInput {
  std::string run;
  run::CheckpointHead head;
  run::KeepRules keep;
  bool weights_copy = false;
  std::chrono::milliseconds wait{};

  const format::ArchiveFile* model = nullptr;      ///< torch::save(module), or a state.pt
  const format::ArchiveFile* ema = nullptr;        ///< the same, or nullptr
  const format::ArchiveFile* optimizer = nullptr;  ///< torch::save(optimizer), or a state.pt, or nullptr
  std::string optimizer_type;                      ///< sgd, adam, ...; empty: told from its fields
};

class Library {
 public:
  virtual ~Library() = default;

  /// Builds the state as a TrainingState would hold it and commits it. kMismatch: the optimizer does not fit the
  /// model; kNotFound: a state.pt lacks the part; kUnsupported, kCorrupt: its fields are of no known layout; and what
  /// RunWriter throws. `warnings` gets what was not as it should be.
  virtual run::Committed save(const SaveInput& input, std::vector<std::string>& warnings) const = 0;
};

}  // namespace ckpt::program

/// nullptr where `version` (ckpt's own) is another one.
extern "C" const ckpt::program::Library* ckpt_program_library(const char* version);
