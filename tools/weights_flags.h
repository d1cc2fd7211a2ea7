// What the commands over weights share: opening a file, the values of their flags.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ckpt/weights.h"
#include "core/weights/weights.h"
#include "output.h"

namespace ckpt::tool {

/// Weights::open; its warnings become the program's.
weights::Weights open_weights(const std::string& path, const OpenOptions& options, Output& output);

/// "5GB", "500MB" (powers of 1000), "1GiB" (of 1024), "4096" (bytes); a whole number above 0.
uint64_t parse_bytes(std::string_view flag, std::string_view text);

/// RE=TO, split at the first '='.
std::vector<RenameRule> parse_renames(const std::vector<std::string>& texts);

}  // namespace ckpt::tool
