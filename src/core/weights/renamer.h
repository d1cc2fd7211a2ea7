// Rules that give tensors other names.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ckpt/weights.h"
#include "core/base/pattern.h"

namespace ckpt::weights {

class Renamer {
 public:
  /// kInvalid for a rule that is no RE2 pattern, or whose replacement names a group that it has not.
  explicit Renamer(const std::vector<RenameRule>& rules);

  /// Every rule in order.
  std::string operator()(std::string name) const;
  /// A module's path by what becomes of the beginning that it gives to names.
  std::string module_path(const std::string& path) const;

 private:
  std::vector<std::pair<Pattern, std::string>> rules_;
};

}  // namespace ckpt::weights
