// state.pt: what a TrainingState is in a file.
//
// One archive of torch::serialize. Names that LibTorch cannot read back are escaped (format::escape_name). At the top:
//   ckpt          `version` (int, 1) and `description`, a JSON text:
//                 {"parts": {name: {"kind", ...}}, "epoch", "iteration", "metrics": {}, "best_metric": number or null,
//                  "metadata": {}}
//                 of an averager also "method" ("ema" or "swa"), "calls" and "updates"
//   rng           `cpu`, `cuda0`, `cuda1`, ...: byte tensors, the states of the generators
//   <part>        one archive for each part, by kind:
//     module      what torch::nn::Module::save writes: parameters and buffers, an archive for each child
//     tensors     the same form; dots in names make levels
//     averager    the averages, as a module's tensors
//     optimizer   `description`: {"type", "groups": [{"options": {}, "parameters": [name]}], "state": {name: {field:
//                 number}}} and the archive `state`: <field>/<name of the parameter>, dots in both making levels. The
//                 parameters that have a state are the names in "state". LBFGS: one state, of flat vectors in the order
//                 of "parameters", lists of tensors as <field>.0, <field>.1, ...
//     scheduler   `description`: {"type", "hyperparameters": {}, "counters": {}}
//     sampler     `description`: {"size", "seed", "shuffle", "epoch", "first", "batches", "batch_size"}
//     scaler      `description`: {"scale", "growth_factor", "backoff_factor", "growth_interval", "growth_tracker"}
//     custom      `description`: {"type", "values"} and the archive `tensors`, dots in names making levels
// Names of parameters are `<part>/<qualified name>`. Floating numbers are as json_number() writes them.
#pragma once

#include <cstdint>

namespace ckpt::format {

inline constexpr int64_t kStateVersion = 1;
inline constexpr const char* kHeadPart = "ckpt";
inline constexpr const char* kRandomPart = "rng";

}  // namespace ckpt::format
