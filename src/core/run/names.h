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
inline constexpr std::string_view kLatestName = "latest";
inline constexpr std::string_view kBestName = "best";
inline constexpr std::string_view kLockName = ".lock";

/// "step-000000001200": twelve digits at least.
std::string step_name(uint64_t iteration);
/// The iteration of a name that step_name() makes; std::nullopt for all others.
std::optional<uint64_t> iteration_of(std::string_view name);

/// "step-000000001200.tmp-<32 hex>": a checkpoint being written.
std::string temporary_name(uint64_t iteration);
/// "step-000000001200.old-<32 hex>": replaced, or being deleted.
std::string trash_name(std::string_view step);

enum class Leftover { kNone, kTemporary, kTrash };
/// What kind of leftover a name is; `step` (may be nullptr) gets the step it was made from.
Leftover leftover_of(std::string_view name, std::string* step = nullptr);

}  // namespace ckpt::run
