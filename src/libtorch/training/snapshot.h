// Capturing a TrainingState, writing it as state.pt, and restoring one. The layout of the file:
// core/format/state_layout.h.
//
// Thread rule: capture() and restore() run on the training thread; a Snapshot may then be written on any one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ckpt/training_state.h"
#include "core/base/parallel.h"
#include "core/base/staging.h"
#include "core/format/archive.h"
#include "core/format/archive_writer.h"
#include "core/format/safetensors.h"
#include "core/io/block_writer.h"
#include "core/run/writer.h"

namespace ckpt::training {

/// The tensors of the modules, for weights.safetensors: plain names where there is one module, else `<part>.<name>`.
struct Weights {
  std::vector<format::TensorToWrite> tensors;  ///< refer to the Snapshot's memory
  std::map<std::string, std::string> ties;     ///< name left out -> name of `tensors` that has its values
};

/// For states that are put together from files and not from a live training run.
struct CaptureOptions {
  bool generators = true;  ///< whether the random number generators are captured
};

/// The values of one moment.
class Snapshot {
 public:
  Snapshot(Snapshot&&) noexcept;
  Snapshot& operator=(Snapshot&&) noexcept;
  ~Snapshot();

  const run::CheckpointHead& head() const;
  /// About how long state.pt will be.
  uint64_t expected_bytes() const;
  /// Appends the whole of state.pt. The same state gives the same bytes. The Snapshot stays unchanged and alive until
  /// the writer has finished. Errors of the writer come from its finish(); Error(kInternal) where LibTorch failed.
  void write(io::BlockWriter& writer) const;
  Weights weights() const;
  /// Whether a module, a list of tensors or an averager is called so.
  bool holds_weights(const std::string& part) const;
  /// The tree of state.pt; its tensors are appended to `tensors` and refer to the Snapshot's memory, ties kept.
  format::ArchiveToWrite tree(std::vector<format::TensorToWrite>& tensors) const;

 private:
  friend Snapshot capture(const TrainingState& state, StagingBuffer* staging, const CaptureOptions& options);
  struct Impl;
  explicit Snapshot(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Without `staging` the snapshot refers to live CPU tensors: train on only when it is written. With it, all values are
/// copied there (in parallel; tied tensors once) before this returns, and the snapshot lives as long as the buffer is
/// not used for another. Throws kInvalid (an optimizer's parameter in no module, two tensors of one name), kUnsupported
/// (sparse and quantized tensors), std::bad_alloc; the state is only read.
Snapshot capture(const TrainingState& state, StagingBuffer* staging, const CaptureOptions& options = {});

/// Restores what `options` ask for. Everything is checked first: Error(kMismatch) lists all problems in details(), and
/// nothing was touched. New optimizer state and other parts are read aside and swapped in last; only the weights are
/// read straight into the live tensors, so that an error of reading (kIo, kCorrupt) may leave some weights new and the
/// rest as they were: load again from another file. Also takes what plain torch::save(model, path) wrote, as the
/// module "model" or the only one; the rest of the state stays untouched then.
LoadReport restore(TrainingState& state, const format::ArchiveFile& file, const LoadOptions& options = {},
                   unsigned threads = default_threads());

}  // namespace ckpt::training
