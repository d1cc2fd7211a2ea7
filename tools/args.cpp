#include "args.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/io/file.h"
#include "core/run/run.h"
#include "text.h"

namespace ckpt::tool {
namespace {

constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();  // LibTorch's integers, too

[[noreturn]] void usage(std::string_view flag, const std::string& message) {
  throw Error(ErrorCode::kUsage, "", std::string(flag) + ": " + message);
}

}  // namespace

std::optional<double> number_in(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

uint64_t parse_count(std::string_view flag, std::string_view text, uint64_t least) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > kMost) {
    usage(flag, "expected a whole number from " + std::to_string(least) + " to " + std::to_string(kMost) + ", found " +
                    quote(text));
  }
  return value;
}

double parse_number(std::string_view flag, std::string_view text, double least) {
  const std::optional<double> value = number_in(text);
  if (!value || !std::isfinite(*value) || *value < least) {
    usage(flag, "expected a number from " + human_number(least) + ", found " + quote(text));
  }
  return *value;
}

std::map<std::string, double> parse_metrics(const std::vector<std::string>& texts) {
  std::map<std::string, double> metrics;
  for (const std::string& text : texts) {
    const size_t split = text.rfind('=');
    if (split == std::string::npos || split == 0) usage("--metric", "expected NAME=VALUE, found " + quote(text));
    const std::string name = text.substr(0, split);
    const std::optional<double> value = number_in(std::string_view(text).substr(split + 1));
    if (!value) usage("--metric", "expected a number after the last '=', found " + quote(text));
    if (!is_utf8(name)) usage("--metric", "expected a name in UTF-8, found " + quote(name));
    if (!metrics.emplace(name, *value).second) usage("--metric", quote(name) + " is given twice");
  }
  return metrics;
}

nlohmann::json parse_metadata(const std::vector<std::string>& texts) {
  nlohmann::json metadata = nlohmann::json::object();
  for (const std::string& text : texts) {
    const size_t split = text.find('=');
    if (split == std::string::npos || split == 0) usage("--meta", "expected KEY=VALUE, found " + quote(text));
    const std::string key = text.substr(0, split);
    if (!is_utf8(text)) usage("--meta", "expected UTF-8, found " + quote(text));
    if (metadata.contains(key)) usage("--meta", quote(key) + " is given twice");
    metadata[key] = text.substr(split + 1);
  }
  return metadata;
}

void KeepFlags::declare(CLI::App& app) {
  const char* group = "What to keep (each keeps; what none keeps goes; none given: everything is kept)";
  app.add_option("--keep-last", last, "the N newest")->type_name("N")->group(group);
  app.add_option("--keep-best", best, "the K best by --monitor and --mode")->type_name("K")->group(group);
  app.add_option("--monitor", monitor, "the metric that says what is best")->type_name("NAME")->group(group);
  app.add_option("--mode", mode, "whether the highest or the lowest is best")->type_name("max|min")->group(group);
  app.add_option("--keep-every", every, "those whose iteration is a multiple of M")->type_name("M")->group(group);
  app.add_option("--keep-hours", hours, "those not older than H hours")->type_name("H")->group(group);
}

run::KeepRules KeepFlags::rules() const {
  run::KeepRules rules;
  if (best || monitor || mode) {
    if (!best || !monitor || !mode) {
      throw Error(ErrorCode::kUsage, "", "--keep-best, --monitor and --mode are needed together");
    }
    if (*mode != "max" && *mode != "min") usage("--mode", "expected max or min, found " + quote(*mode));
    if (monitor->empty() || !is_utf8(*monitor)) usage("--monitor", "expected a name, found " + quote(*monitor));
    rules.best = parse_count("--keep-best", *best, 1);
    rules.monitor = run::Monitor{*monitor, *mode == "max" ? Mode::kMax : Mode::kMin};
  }
  if (last) rules.last = parse_count("--keep-last", *last, 1);
  if (every) rules.every = parse_count("--keep-every", *every, 1);
  if (hours) rules.hours = parse_number("--keep-hours", *hours, 0);
  return rules;
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

PathKind kind_of(const std::string& path) {
  const auto found = io::stat(path);
  if (!found) throw Error(ErrorCode::kNotFound, path, "does not exist");
  if (found->type != io::FileType::kDirectory) return PathKind::kFile;
  return run::is_checkpoint_directory(path) ? PathKind::kCheckpoint : PathKind::kRun;
}

std::string resolve_link(const std::string& path) {
  std::string resolved = path;
  for (int links = 0; links < 8; ++links) {
    const auto target = io::Directory::open(io::parent_path(resolved)).read_link(io::file_name(resolved));
    if (!target) break;
    const size_t slash = resolved.rfind('/');
    const bool replaced_whole = target->starts_with('/') || slash == std::string::npos;
    resolved = replaced_whole ? *target : resolved.substr(0, slash + 1) + *target;
    resolved = without_trailing_slash(resolved);
  }
  return resolved;
}

void require_run(const std::string& path) {
  switch (kind_of(path)) {
    case PathKind::kRun:
      return;
    case PathKind::kCheckpoint:
      throw Error(ErrorCode::kNotFound, path, "expected a run, found one of its checkpoints");
    case PathKind::kFile:
      throw Error(ErrorCode::kNotFound, path, "expected a run (a directory), found a file");
  }
}

}  // namespace ckpt::tool
