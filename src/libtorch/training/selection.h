// What LoadOptions choose, and what was found not to fit.
#pragma once

#include <regex>
#include <string>
#include <vector>

#include "ckpt/load_report.h"

namespace ckpt::training {

class Selection {
 public:
  /// kInvalid for a pattern that is no regular expression.
  explicit Selection(const LoadOptions& options);

  bool strict() const { return options_.strict; }
  /// Whether a live part is to be loaded.
  bool wants_part(const std::string& part) const;
  /// The live name for a name in the file: `<part>/<name>`, or of a part.
  std::string live_name(const std::string& stored) const;
  std::string live_part(const std::string& stored) const;
  bool excludes(const std::string& live) const;

 private:
  const LoadOptions& options_;
  std::vector<std::regex> patterns_;
};

/// Collects problems: into the report, and as lines for a strict load's error.
class Findings {
 public:
  explicit Findings(LoadReport& report) : report_(report) {}

  void missing(const std::string& name, const std::string& expected);
  void unexpected(const std::string& name, const std::string& actual);
  void mismatch(const std::string& name, const std::string& expected, const std::string& actual);

  size_t count() const { return lines_.size(); }
  /// Error(kMismatch) with all of them, if there are any.
  void throw_all(const std::string& path) const;

 private:
  LoadReport& report_;
  std::vector<std::string> lines_;
};

}  // namespace ckpt::training
