// Averages files of weights, exactly and in little memory, and writes the result.
//
//   inputs -> members (files and chosen checkpoints, opened) -> plan (names compared, one decision for each)
//          -> tiles: read all members' elements, mean, in order -> writer of the format -> atomic commit
//
// Thread rule: any thread; starts threads that end before a call returns.
#pragma once

#include <string>
#include <vector>

#include "ckpt/average.h"

namespace ckpt::average {

/// `inputs`: files, checkpoints, runs. All problems of one kind are listed in details(): kNotFound, kCorrupt (damage
/// met on the way too), kMismatch (names, shapes, dtypes, bools that differ), kUnsupported (sparse, quantized, what the
/// format cannot hold), kInvalid (NaN and infinities; weights), kIo (also: an input changed meanwhile). `out` is as it
/// was then.
AverageReport average(const std::vector<std::string>& inputs, const std::string& out, const AverageOptions& options);

/// options.format, else what the name of `out` tells; kInvalid where it tells nothing.
Format output_format(const std::string& out, const AverageOptions& options);

}  // namespace ckpt::average
