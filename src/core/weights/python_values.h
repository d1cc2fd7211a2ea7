// Numbers of a pickled Python value, however Python spelled them: its own, tensors of one element, numpy's scalars.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/format/torch_file.h"

namespace ckpt::weights {

/// None, a truth value, a number or a text (floating numbers as json_number() writes them); std::nullopt for all else,
/// for a numpy scalar or tensor of a dtype that is not read here, and for texts beyond 200 bytes. Reads at most one
/// element of a tensor; kCorrupt where the tensor is.
std::optional<nlohmann::json> python_scalar(const format::TorchFile& file, format::PickleNode node);

/// A whole number: also a floating one without a fraction, as `step` is in newer Python versions.
std::optional<int64_t> whole_number(const nlohmann::json& value);

}  // namespace ckpt::weights
