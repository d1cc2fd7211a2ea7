// Whole training states from Python's checkpoints into runs of ckpt and back, as streams and without LibTorch.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "ckpt/weights.h"
#include "core/format/archive.h"
#include "core/run/retention.h"
#include "core/run/writer.h"
#include "core/weights/convert.h"
#include "core/weights/module_state.h"

namespace ckpt::weights {

/// What save_to_run() commits. The files must be whole: nothing else looks at every byte of them.
struct SaveInput {
  std::string run;
  run::CheckpointHead head;
  run::KeepRules keep;
  bool weights_copy = false;  ///< weights.safetensors beside state.pt
  std::chrono::milliseconds wait{};

  const ModuleState* model = nullptr;
  const ModuleState* ema = nullptr;                ///< or nullptr
  const format::ArchiveFile* optimizer = nullptr;  ///< torch::save(optimizer), or a state with one, or nullptr
  std::string optimizer_type;                      ///< as optimizer_to_write() takes it
};

/// Commits a state of the parts "model", "ema", "optimizer", as a TrainingState restores it, without generators: those
/// of whoever loads it stay. Errors as ModuleState, optimizer_to_write() and RunWriter say; the run is locked only when
/// all fits.
run::Committed save_to_run(const SaveInput& input);

/// Commits the training checkpoint of Python in `in` to the run `run` as iteration `iterations`, with model, ema,
/// optimizer, scaler, epoch and metrics.best_metric; any other file of weights as the part "model" of iteration 0.
/// Every CRC of `in` is checked first. outputs: the checkpoint. Errors as training_state_of() and RunWriter say.
Converted convert_to_run(const std::string& in, const std::string& run);

/// Commits `tensors` as the part "model" of a checkpoint of the run `run`; `head.metrics` and `head.metadata` go into
/// the manifest alone.
run::Committed commit_weights(const std::string& run, std::vector<format::TensorToWrite> tensors,
                              const nlohmann::ordered_json& module_metadata, const run::CheckpointHead& head);

/// Writes a run (its newest checkpoint that verifies), a checkpoint or a state.pt as a training checkpoint of Python,
/// atomically and durably.
Converted convert_to_python(const std::string& in, const std::string& out);

/// Whether `path` holds a training state of ckpt: a run, a checkpoint, or a state.pt.
bool holds_training_state(const std::string& path);

}  // namespace ckpt::weights
