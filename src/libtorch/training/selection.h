// What LoadOptions choose, and what was found not to fit.
#pragma once

#include <string>
#include <vector>

#include "ckpt/load_report.h"
#include "core/base/pattern.h"
#include "libtorch/model/match.h"

namespace ckpt::training {

class Selection {
 public:
  /// kInvalid for a pattern that is no regular expression of RE2.
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
  std::vector<Pattern> excluded_;
};

using model::Findings;

}  // namespace ckpt::training
