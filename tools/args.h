// Values of flags: parsed strictly, every mistake is a usage error that names the flag and the text found.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/run/retention.h"

namespace ckpt::tool {

/// The whole text as a number, infinities and NaN among them.
std::optional<double> number_in(std::string_view text);
/// A whole number from `least` to 2^63 - 1.
uint64_t parse_count(std::string_view flag, std::string_view text, uint64_t least);
/// A finite number from `least`.
double parse_number(std::string_view flag, std::string_view text, double least);

/// NAME=VALUE, split at the last '='; NaN and infinities are accepted. A name given twice is an error.
std::map<std::string, double> parse_metrics(const std::vector<std::string>& texts);
/// KEY=VALUE, split at the first '='; values are texts. A key given twice is an error.
nlohmann::json parse_metadata(const std::vector<std::string>& texts);

/// The flags KEEP, shared by save and prune.
struct KeepFlags {
  std::optional<std::string> last, best, monitor, mode, every, hours;

  void declare(CLI::App& app);
  run::KeepRules rules() const;
};

/// The path without slashes at its end, which would be doubled in the paths made from it.
std::string without_trailing_slash(std::string path);

/// What a path given by the user names.
enum class PathKind { kRun, kCheckpoint, kFile };
/// kNotFound where nothing is there.
PathKind kind_of(const std::string& path);
/// `path` with a link as its last part replaced by what that names ("run/latest": "run/step-000000001200").
std::string resolve_link(const std::string& path);
/// kNotFound where `path` is no directory, or is a checkpoint.
void require_run(const std::string& path);

}  // namespace ckpt::tool
