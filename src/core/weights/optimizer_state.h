// The optimizer in a file that LibTorch wrote, on its way into a training state.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/format/archive.h"
#include "core/format/archive_writer.h"

namespace ckpt::weights {

/// The part "optimizer" of a state.pt, from what torch::save(optimizer) wrote, whose parameters are taken by position,
/// or from a state with such a part, by name. `parameters`: those of the part "model", names and places in `tensors`;
/// the optimizer's are appended there and read when they are written: `file` must outlive that. `type`: sgd, adam,
/// adamw, rmsprop, adagrad, lbfgs; empty: told from the file, "unknown" where it leaves a doubt between Adam and AdamW.
/// kMismatch: parameters, type or fields do not fit; kNotFound: no such part; kUnsupported: options of no optimizer
/// that LibTorch has; kCorrupt: not as it stores one.
format::ArchiveToWrite optimizer_to_write(const format::ArchiveFile& file, const std::string& type,
                                          const std::vector<std::pair<std::string, size_t>>& parameters,
                                          std::vector<format::TensorToWrite>& tensors);

}  // namespace ckpt::weights
