#include "core/weights/renamer.h"

#include "ckpt/error.h"
#include "core/base/quote.h"

namespace ckpt::weights {

Renamer::Renamer(const std::vector<RenameRule>& rules) {
  for (const RenameRule& rule : rules) {
    rules_.emplace_back(Pattern(rule.from, "rename"), rule.to);
    if (const std::string problem = rules_.back().first.problem_with(rule.to); !problem.empty()) {
      throw Error(ErrorCode::kInvalid, "",
                  "rename: " + quote(rule.to) + " cannot replace " + quote(rule.from) + ": " + problem);
    }
  }
}

std::string Renamer::operator()(std::string name) const {
  for (const auto& [from, to] : rules_) name = from.replaced(name, to);
  return name;
}

std::string Renamer::module_path(const std::string& path) const {
  if (path.empty()) return path;
  std::string renamed = (*this)(path + ".");
  if (renamed.ends_with('.')) renamed.pop_back();
  return renamed;
}

}  // namespace ckpt::weights
