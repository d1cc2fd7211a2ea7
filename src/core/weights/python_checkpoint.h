// Training checkpoints of Python in this lineage, {"iterations", "epoch", "model_state_dict", "optim_state_dict",
// "best_metric", "gradient_scaler_state_dict" [, "ema_state_dict"]}, as the training state that state.pt holds, and back.
//
// Layout of state.pt: state_layout.h. Python's optimizers count parameters, state.pt names them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/format/archive.h"
#include "core/format/pickle_writer.h"
#include "core/format/tensors_to_write.h"
#include "core/format/torch_file.h"

namespace ckpt::weights {

/// Whether the top of `file` is such a checkpoint: a dict with model_state_dict and one of iterations, epoch,
/// optim_state_dict.
bool is_python_checkpoint(const format::TorchFile& file);

struct PythonOptions {
  /// The names of the optimizer's parameters, group by group, as a live optimizer has them ("model/conv1.weight").
  /// std::nullopt: told from the file: `param_names` where the groups have them, else the parameters of the model in its
  /// order, which are the tensors that fit the optimizer's state.
  std::optional<std::vector<std::vector<std::string>>> parameter_names = std::nullopt;
};

/// The same tree that ArchiveFile::open gives for a state.pt, over the tensors of `file`. kMismatch: parameters, names
/// or fields do not fit; kUnsupported: an optimizer that C++ has not, or options that it cannot follow (maximize).
/// `warnings`: what was left out.
format::ArchiveFile training_state_of(const format::TorchFile& file, const PythonOptions& options,
                                      std::vector<std::string>& warnings);

/// What torch.save would be called with for a training state. Tensors are appended to `tensors`; the tree refers to
/// them. `order`: the model's parameters in the order that Python counts them. kUnsupported for parts that Python's
/// checkpoint has no place for, unless they may be left out (generators, samplers, schedulers): those go to `warnings`.
format::PickleValue python_checkpoint_of(const format::ArchiveFile& state, std::vector<format::TensorToWrite>& tensors,
                                         std::vector<std::string>& warnings);

}  // namespace ckpt::weights
