// Every name that a run directory holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ckpt::run {

inline constexpr std::string_view kManifestName = "MANIFEST.json";
inline constexpr std::string_view kStateName = "state.pt";
inline constexpr std::string_view kWeightsName = "weights.safetensors";
/// The averages of the best checkpoints: weights.safetensors and ema.safetensors in it.
inline constexpr std::string_view kAveragedName = "averaged";
inline constexpr std::string_view kAveragedEmaName = "ema.safetensors";
inline constexpr std::string_view kLatestName = "latest";
inline constexpr std::string_view kBestName = "best";
inline constexpr std::string_view kLockName = ".lock";

/// "step-000000001200": twelve digits at least.
std::string step_name(uint64_t iteration);
/// The iteration of a name that step_name() makes; std::nullopt for all others.
std::optional<uint64_t> iteration_of(std::string_view name);

/// "step-000000001200.tmp-<32 hex>": a checkpoint being written, or (after an exchange) the one that was replaced.
/// Never needed once its writer is dead.
std::string temporary_name(uint64_t iteration);
/// "step-000000001200.old-<32 hex>": moved aside for its replacement. Where that never came, this is the checkpoint.
std::string replaced_name(std::string_view step);
/// "step-000000001200.trash-<32 hex>": being deleted. Never comes back.
std::string trash_name(std::string_view step);

enum class Leftover { kNone, kTemporary, kReplaced, kTrash };
/// What kind of leftover a name is; `step` (may be nullptr) gets the step it was made from, or the link ("latest",
/// "best") that was being replaced through it.
Leftover leftover_of(std::string_view name, std::string* step = nullptr);

}  // namespace ckpt::run
