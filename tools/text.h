// Text for people: sizes, ages, numbers, names that are safe on a terminal, tables, sparklines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ckpt::tool {

/// The text itself where it is UTF-8 without control characters; otherwise quoted.
std::string printable(std::string_view text);

/// "17 B", "4.1 MiB".
std::string human_bytes(uint64_t bytes);
/// "3 min", "2 h", "5 d"; "now" below a second or where the clock was set back.
std::string human_age(double seconds);
/// Six significant digits at most; "NaN", "Infinity", "-Infinity".
std::string human_number(double value);
/// "1 checkpoint", "3 checkpoints".
std::string counted(uint64_t count, std::string_view noun);

/// One character for each value, lowest to highest; NaN is a blank. The newest (last) values where there are more than
/// `limit`. Block characters, or plain ones without `utf8`.
std::string sparkline(const std::vector<double>& values, bool utf8, size_t limit);

/// Columns two blanks apart, each as wide as its widest cell; cells may carry colour codes.
class Table {
 public:
  enum class Align { kLeft, kRight };

  void add_column(std::string heading, Align align);
  void add_row(std::vector<std::string> cells);

  /// The heading first; trailing blanks are cut off.
  std::vector<std::string> lines() const;

 private:
  std::vector<Align> align_;
  std::vector<std::vector<std::string>> rows_{{}};
};

}  // namespace ckpt::tool
