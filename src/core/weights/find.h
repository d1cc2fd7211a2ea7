// Where the weights are in the tree of a torch file.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "ckpt/weights.h"
#include "core/format/torch_file.h"

namespace ckpt::weights {

/// Averaged weights, by the names that training programs give them; the first that is there.
inline constexpr std::array<std::string_view, 4> kAveragedNames = {"ema_state_dict", "model_ema", "ema", "ema_model"};

struct FoundWeights {
  format::PickleNode node = format::kNoNode;
  format::TensorsBelow below;
};

/// By the rules of OpenOptions. kNotFound where there is no such key, no averaged weights, or several parts of a
/// training state and none is named; the message says what is there. What is found may hold no tensors.
FoundWeights find_weights(const format::TorchFile& file, const OpenOptions& options);

/// `names` for a message: quoted, the first few of many.
std::string listed(const std::vector<std::string>& names);

}  // namespace ckpt::weights
