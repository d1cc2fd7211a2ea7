#include "core/run/names.h"

#include <array>
#include <charconv>
#include <utility>

#include "core/io/file.h"

namespace ckpt::run {
namespace {

constexpr std::string_view kStepPrefix = "step-";
constexpr size_t kStepDigits = 12;
constexpr size_t kRandomDigits = 32;

constexpr std::array<std::pair<std::string_view, Leftover>, 3> kSuffixes{{
    {".tmp-", Leftover::kTemporary},
    {".old-", Leftover::kReplaced},
    {".trash-", Leftover::kTrash},
}};

bool is_random(std::string_view text) {
  return text.size() == kRandomDigits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string leftover_name(std::string_view step, std::string_view suffix) {
  return std::string(step).append(suffix).append(io::random_name());
}

}  // namespace

std::string step_name(uint64_t iteration) {
  std::string digits = std::to_string(iteration);
  if (digits.size() < kStepDigits) digits.insert(0, kStepDigits - digits.size(), '0');
  return std::string(kStepPrefix) + digits;
}

std::optional<uint64_t> iteration_of(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  std::string_view digits = name.substr(kStepPrefix.size());
  if (digits.size() < kStepDigits || (digits.size() > kStepDigits && digits.front() == '0')) return std::nullopt;
  uint64_t iteration = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), iteration);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return iteration;
}

std::string temporary_name(uint64_t iteration) { return leftover_name(step_name(iteration), ".tmp-"); }
std::string replaced_name(std::string_view step) { return leftover_name(step, ".old-"); }
std::string trash_name(std::string_view step) { return leftover_name(step, ".trash-"); }

Leftover leftover_of(std::string_view name, std::string* step) {
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return Leftover::kNone;
  const std::string_view origin = name.substr(0, dot);
  const std::string_view rest = name.substr(dot);
  const bool link = origin == kLatestName || origin == kBestName;
  if (!link && !iteration_of(origin)) return Leftover::kNone;
  for (const auto& [suffix, kind] : kSuffixes) {
    if (link && kind != Leftover::kTemporary) continue;
    if (!rest.starts_with(suffix) || !is_random(rest.substr(suffix.size()))) continue;
    if (step) *step = origin;
    return kind;
  }
  return Leftover::kNone;
}

}  // namespace ckpt::run
