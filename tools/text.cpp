#include "text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "core/base/quote.h"

namespace ckpt::tool {
namespace {

std::string rounded(double value, int decimals) {
  std::array<char, 400> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.*f", decimals, value);
  return buffer.data();
}

/// Characters on the screen: code points, without colour codes.
size_t shown_width(std::string_view text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'm') ++i;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++width;
    }
  }
  return width;
}

}  // namespace

std::string printable(std::string_view text) {
  const bool plain = !text.empty() && is_utf8(text) && std::none_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
  });
  // C1 controls (U+0080 to U+009F) steer terminals too.
  bool c1 = false;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    c1 = c1 || (text[i] == '\xC2' && static_cast<unsigned char>(text[i + 1]) < 0xA0);
  }
  return plain && !c1 ? std::string(text) : quote(text, std::numeric_limits<size_t>::max());
}

std::string human_bytes(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  auto value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    if (value < 1023.95) break;
    value /= 1024;
    unit = next;
  }
  return rounded(value, value < 99.95 ? 1 : 0) + " " + unit;
}

std::string human_age(double seconds) {
  if (!(seconds >= 1)) return "now";
  struct Unit {
    double seconds;
    const char* name;
  };
  for (const Unit& unit :
       {Unit{2 * 365.25 * 86400, "y"}, Unit{2 * 86400, "d"}, Unit{2 * 3600, "h"}, Unit{120, "min"}}) {
    if (seconds >= unit.seconds) return rounded(std::floor(seconds / (unit.seconds / 2)), 0) + " " + unit.name;
  }
  return rounded(std::floor(seconds), 0) + " s";
}

std::string human_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.6g", value);
  return buffer.data();
}

std::string counted(uint64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

std::string sparkline(const std::vector<double>& values, bool utf8, size_t limit) {
  static constexpr std::array<const char*, 8> kBlocks{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static constexpr std::array<const char*, 8> kPlain{"_", ".", "-", "=", "+", "*", "%", "#"};
  const size_t first = values.size() > limit ? values.size() - limit : 0;
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (size_t i = first; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  std::string text;
  for (size_t i = first; i < values.size(); ++i) {
    if (std::isnan(values[i])) {
      text += ' ';
      continue;
    }
    // Halved, so that the range of huge values does not overflow.
    const double range = high / 2 - low / 2;
    double place = range > 0 ? (values[i] / 2 - low / 2) / range : 0.5;
    if (std::isinf(values[i])) place = values[i] > 0 ? 1 : 0;
    const auto level = static_cast<size_t>(std::clamp(std::lround(place * 7), 0L, 7L));
    text += utf8 ? kBlocks[level] : kPlain[level];
  }
  return text;
}

void Table::add_column(std::string heading, Align align) {
  rows_[0].push_back(std::move(heading));
  align_.push_back(align);
}

void Table::add_row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

std::vector<std::string> Table::lines() const {
  std::vector<size_t> widths(align_.size(), 0);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], shown_width(row[i]));
  }
  std::vector<std::string> lines;
  lines.reserve(rows_.size());
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - shown_width(row[i]), ' ');
      if (i) line += "  ";
      line += align_[i] == Align::kRight ? gap + row[i] : row[i] + gap;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace ckpt::tool
