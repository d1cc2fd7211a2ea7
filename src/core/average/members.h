// What takes part in an average: files and chosen checkpoints, opened.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ckpt/average.h"
#include "core/weights/weights.h"

namespace ckpt::average {

struct Member {
  std::string path;  ///< a file, or one checkpoint
  std::optional<uint64_t> iteration;
  double weight = 1;
  weights::Weights weights;
  std::vector<io::Stat> as_opened;  ///< of weights.files()
};

struct Members {
  std::vector<Member> list;  ///< in the order in which they count for an EMA
  std::string method;        ///< "mean", "weighted", "ema"
  std::vector<std::string> warnings;
};

/// Reads indexes alone; checksums are for whoever reads the tensors. All inputs that cannot be read are in details().
/// kInvalid for weights or a decay that make no sense.
Members open_members(const std::vector<std::string>& inputs, const AverageOptions& options);

/// kIo where the file of a member is not what it was when it was opened.
void require_unchanged(const Members& members);

}  // namespace ckpt::average
