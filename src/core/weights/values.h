// What a torch file holds beside tensors: numbers, texts and structure, for people and scripts to look at.
#pragma once

#include <nlohmann/json.hpp>

#include "core/format/torch_file.h"

namespace ckpt::weights {

/// Everything in the tree that is no tensor: dicts and modules as objects, lists as arrays, NaN and infinities as
/// json_number() writes them, numpy's scalars as their numbers, another foreign object as "<argparse.Namespace>". Levels
/// that hold nothing but tensors are left out. At most 100,000 values, 64 levels and about 1 MiB of texts (more in larger
/// files); what is beyond is left out. Names of a state.pt are unescaped and its descriptions, JSON texts, shown as what
/// they say.
nlohmann::json values_of(const format::TorchFile& file);

}  // namespace ckpt::weights
