// What the program prints: results on stdout, everything else on stderr. Results are kept back until the end and
// written at once, so that a failure to write them has one place and a closed pipe ends the program quietly.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "ckpt/error.h"

namespace ckpt::tool {

/// 0 to 7, as the manual says.
int exit_code(ErrorCode code);

enum class Style { kBold, kDim, kGreen, kYellow, kRed };

class Output {
 public:
  /// Looks at stdout, stderr and the environment: colour only on a terminal and without NO_COLOR, block characters
  /// only in a UTF-8 locale.
  Output();

  bool json = false;
  bool quiet = false;

  /// One line of text on stdout; dropped with --json.
  void line(std::string_view text);
  /// The result with --json: one object, to which "schema" and the warnings are added; dropped without.
  void object(nlohmann::json result);

  /// Something that went otherwise than expected and does not change the exit code: stderr, and `warnings`.
  void warn(const std::string& text);
  /// What a person may want to know beside the result: stderr; dropped with --quiet.
  void note(std::string_view text);
  /// A line on the terminal of stderr that the next one replaces; "" removes it. Nothing where stderr is no terminal.
  void progress(std::string_view text);

  /// One line on stderr, details below it.
  void complain(const Error& error);
  /// The same, and that is how the program ends; with --json the object {"error": ...} on stdout, with `beside` added.
  /// Returns the exit code.
  int fail(const Error& error, nlohmann::json beside = nlohmann::json::object());

  /// Writes stdout. Returns `code`, or 3 where stdout cannot take it; a closed pipe is no error.
  int finish(int code);

  bool utf8() const { return utf8_; }
  /// `text` in a style where stdout shows colours.
  std::string paint(Style style, std::string_view text) const;

 private:
  bool colour_ = false;
  bool utf8_ = false;
  bool progress_allowed_ = false;
  bool progress_shown_ = false;
  std::string stdout_;
  std::vector<std::string> warnings_;
};

}  // namespace ckpt::tool
