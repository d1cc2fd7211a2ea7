// A training run that goes on in the other language: training checkpoints of Python, as
//   torch.save({"iterations": n, "epoch": e, "model_state_dict": model.state_dict(),
//               "optim_state_dict": optimizer.state_dict(), "best_metric": m,
//               "gradient_scaler_state_dict": scaler.state_dict(), "ema_state_dict": ema.state_dict()}, path)
// writes them ("ema_state_dict" may be absent), to and from a TrainingState:
//
//   ckpt::TrainingState state;
//   state.add_module("model", *model).add_module("ema", *ema).add_optimizer("optimizer", optimizer);
//   ckpt::load_python_checkpoint(state, "last.pt");      // go on in C++
//   ckpt::save_python_checkpoint(state, "next.pt");      // torch.load("next.pt", weights_only=True) goes on in Python
//
// Which part is which: the modules (or lists of tensors, or Averagers) called "model" and "ema"; the optimizer called "optimizer" and
// the scaler called "scaler", or else the only one of its kind. Schedulers, samplers, custom parts and the random
// number generators have no place in such a file.
//
// Optimizers: SGD, Adam, AdamW, RMSprop, Adagrad, LBFGS. Python counts parameters: the optimizers on both sides must be
// given the same parameters in the same groups and order. With that, both go on with the same steps.
//
// Thread rule: as TrainingState: no training step meanwhile.
#pragma once

#include <string>
#include <vector>

#include "ckpt/load_report.h"
#include "ckpt/training_state.h"

namespace ckpt {

/// Loads all that the file and `state` have in common. Every checksum of the file and every name, shape, option and
/// field is checked first; names in `options` are those of the parts above, and of tensors ("model/fc.weight"). Parts
/// that have no place in such a file stay as they are, unless options.parts asks for one. The iteration, the epoch and
/// the best metric are taken over; the best metric is also the metric "best_metric".
///
/// kNotFound, kIo; kCorrupt: damage, or not a file of torch.save; kMismatch: another kind of file, or what does not fit
/// (details() lists it); kUnsupported: an option that LibTorch's optimizers have not (maximize). Nothing was touched
/// then, but for an error of reading the weights themselves, which may leave some new and the rest old. What was passed
/// over is in the report's `notes`: keys of the file that are not known here, unverified files, an optimizer that may
/// be Adam or AdamW (before PyTorch 2.7 the file does not say it).
LoadReport load_python_checkpoint(TrainingState& state, const std::string& path, const LoadOptions& options = {});

/// Writes `path`, atomically and durably, straight from the live tensors; true CRC-32s, the same bytes for the same
/// state. Returns what was left out for want of a place (schedulers, samplers, generators, metadata, other metrics).
/// kMismatch: no module "model"; kUnsupported: further modules, optimizers or scalers, custom parts, sparse or
/// quantized tensors; kInvalid as a save of a TrainingState; kIo. An existing `path` is as it was then.
std::vector<std::string> save_python_checkpoint(const TrainingState& state, const std::string& path);

}  // namespace ckpt
