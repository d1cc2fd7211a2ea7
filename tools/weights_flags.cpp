#include "weights_flags.h"

#include <array>
#include <charconv>
#include <utility>

#include "args.h"
#include "core/base/checked.h"
#include "core/base/quote.h"
#include "text.h"

namespace ckpt::tool {

weights::Weights open_weights(const std::string& path, const OpenOptions& options, Output& output) {
  output.progress("reading " + printable(path));
  weights::Weights weights = weights::Weights::open(without_trailing_slash(path), options);
  output.progress("");
  for (const std::string& warning : weights.warnings()) output.warn(printable(path) + ": " + warning);
  return weights;
}

uint64_t parse_bytes(std::string_view flag, std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, uint64_t>, 8> kUnits{{{"", 1},
                                                                                {"B", 1},
                                                                                {"KB", 1000},
                                                                                {"MB", 1000 * 1000},
                                                                                {"GB", 1000 * 1000 * 1000},
                                                                                {"KiB", 1 << 10},
                                                                                {"MiB", 1 << 20},
                                                                                {"GiB", 1 << 30}}};
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  for (const auto& [name, factor] : kUnits) {
    if (error != std::errc() || number == 0 || unit != name) continue;
    if (const auto bytes = checked_mul(number, factor); bytes && *bytes <= INT64_MAX) return *bytes;
  }
  throw Error(ErrorCode::kUsage, "",
              std::string(flag) + ": expected a size such as 5GB, 500MB or 1GiB, found " + quote(text));
}

std::vector<RenameRule> parse_renames(const std::vector<std::string>& texts) {
  std::vector<RenameRule> rules;
  for (const std::string& text : texts) {
    const size_t middle = text.find('=');
    if (middle == std::string::npos || middle == 0) {
      throw Error(ErrorCode::kUsage, "", "--rename: expected RE=TO, found " + quote(text));
    }
    rules.push_back({text.substr(0, middle), text.substr(middle + 1)});
  }
  return rules;
}

}  // namespace ckpt::tool
