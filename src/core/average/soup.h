// A greedy soup of files of weights: which of them are worth averaging is decided by measuring.
#pragma once

#include <string>
#include <vector>

#include "ckpt/average.h"

namespace ckpt::average {

/// `metric` is called with a file of the kind that `out` will be (a checkpoint: safetensors), in a directory beside it
/// that is removed before the call returns; what it throws ends the soup. Errors as average() has them; `out` is as it
/// was then. With dry_run: the report of the selection, and no trials.
SoupReport soup(const std::vector<std::string>& inputs, const std::string& out, const SoupOptions& options,
                const SoupMetric& metric);

}  // namespace ckpt::average
