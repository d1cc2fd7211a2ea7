// Keeps the mean of the best checkpoints of a run beside them:
//
//   <run>/averaged/weights.safetensors    of their models (what Weights::open finds)
//   <run>/averaged/ema.safetensors        of their parts "ema"
//
// Each is a plain average (average.h), so it is replaced whole or stays. `__metadata__` has "ckpt.checkpoints", a JSON
// object from the names of the checkpoints to their save_ids, which tells whether the file is still the right one.
//
// Thread rule: one thread at a time; it holds the lock of the run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/io/file.h"
#include "core/run/retention.h"

namespace ckpt::average {

struct BestWanted {
  uint64_t count = 0;  ///< how many of run::ranked() over all checkpoints that are good; fewer where there are fewer
  run::Monitor monitor;
  bool ema = false;  ///< also of the parts "ema"
};

/// Writes the files that are not there yet or of other checkpoints; nothing where no checkpoint has the metric. Returns
/// a line for each that could not be written: it is as it was then.
std::vector<std::string> update_average_of_best(const io::Directory& run, const BestWanted& wanted);

}  // namespace ckpt::average
