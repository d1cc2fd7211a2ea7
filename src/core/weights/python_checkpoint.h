// Training checkpoints of Python in this lineage, {"iterations", "epoch", "model_state_dict", "optim_state_dict",
// "best_metric", "gradient_scaler_state_dict" [, "ema_state_dict"]}, as the training state that state.pt holds, and
// back.
//
// Layout of state.pt: state_layout.h. Python's optimizers count parameters, state.pt names them. The parts are called
// "model", "ema", "optimizer" and "scaler"; best_metric is the state's best_metric and the metric of that name.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/format/archive.h"
#include "core/format/archive_writer.h"
#include "core/format/pickle_writer.h"
#include "core/format/tensors_to_write.h"
#include "core/format/torch_file.h"
#include "core/run/writer.h"

namespace ckpt::weights {

/// Whether the top of `file` is such a checkpoint: a dict with model_state_dict and one of iterations, epoch,
/// optim_state_dict.
bool is_python_checkpoint(const format::TorchFile& file);

struct PythonOptions {
  /// The names of the optimizer's parameters, group by group, as a live optimizer has them ("model/conv1.weight"): the
  /// file's are taken by position, as Python does. std::nullopt, or `param_names` in the file: told from the file, by
  /// shapes and order where it has no names.
  std::optional<std::vector<std::vector<std::string>>> parameter_names = std::nullopt;
  /// false: leaves the optimizer out, whatever it is.
  bool optimizer = true;
};

/// The same tree that ArchiveFile::open gives for a state.pt, over the tensors of `file`; it shares the open file.
/// Wrappers' prefixes are taken from the names. kMismatch: parameters, names or fields do not fit, or it is no such
/// checkpoint; kUnsupported: an optimizer that LibTorch has not, options that it cannot follow (maximize), sparse and
/// quantized tensors; kCorrupt. `warnings`: what was left out.
format::ArchiveFile training_state_of(const format::TorchFile& file, const PythonOptions& options,
                                      std::vector<std::string>& warnings);

/// A state with the part "optimizer" alone, of a Python checkpoint or of a file that holds optimizer.state_dict()
/// itself. `model`: the tensors of the model that it belongs to, in their order, from whatever file. As
/// training_state_of.
format::ArchiveFile optimizer_state_of(const format::TorchFile& file, const std::vector<format::NamedTensor>& model,
                                       std::vector<std::string>& warnings);

/// What torch.save would be called with for a training state, and what it refers to in `tensors`, to which the steps of
/// the optimizer are appended. `path`: the state's file, for errors. kUnsupported for parts that Python's checkpoint
/// has no place for, unless a run can go on without them (generators, samplers, schedulers): those go to `warnings`.
/// kMismatch: no module "model"; kCorrupt: descriptions that are no training state's.
format::PickleValue python_checkpoint_of(const format::ArchiveToWrite& state, const std::string& path,
                                         std::vector<format::TensorToWrite>& tensors,
                                         std::vector<std::string>& warnings);

/// What the manifest of a checkpoint says, from the state itself.
run::CheckpointHead head_of(const format::ArchiveFile& state);

}  // namespace ckpt::weights
