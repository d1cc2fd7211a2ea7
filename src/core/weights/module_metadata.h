// The modules that tensors belong to: a state_dict's `_metadata`, {module path: {"version": 2}}, which names them all,
// also those that hold no tensor (Dropout). LibTorch asks for a level of an archive for each.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/torch_file.h"
#include "core/weights/budget.h"

namespace ckpt::weights {

/// The `_metadata` of a dict; of a module (an archive, TorchScript) what Python would have there, made from its levels.
/// null where there is none. What has another form is left out, as nothing reads it; of a key that is there twice the
/// last value is taken, as by Python. kCorrupt where a `_metadata` takes more than the budget has.
nlohmann::ordered_json read_module_metadata(const format::TorchFile& file, format::PickleNode node, Budget& budget);

/// As Python has it for one module. Normalisation layers that count their batches have version 2.
nlohmann::ordered_json module_version(bool counts_batches);

/// Takes the prefix of a wrapper ("module.") from all paths: "module" itself becomes "", the module that "module.a" is
/// a member of. What lies outside of it was the wrapper, and goes.
void strip_module_paths(nlohmann::ordered_json& metadata, std::string_view prefix);

/// Whether an archive may have a level of this path: not the root, at most 16 KiB and 500 levels deep.
bool can_be_level(std::string_view path);

/// The paths in `metadata` without a tensor at or below them, where `names` are those of all tensors; without what
/// cannot be a level, and without what comes after 50,000 levels: a small file can name very many.
std::vector<std::string> empty_levels(const nlohmann::ordered_json& metadata, std::vector<std::string_view> names);

}  // namespace ckpt::weights
