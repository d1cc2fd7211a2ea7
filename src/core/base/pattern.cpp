#include "core/base/pattern.h"

#include <re2/re2.h>

#include <algorithm>

#include "ckpt/error.h"
#include "core/base/quote.h"

namespace ckpt {

struct Pattern::Compiled {
  explicit Compiled(std::string_view text) : regex(re2::StringPiece(text.data(), text.size()), RE2::Quiet) {}
  RE2 regex;
};

Pattern::Pattern(std::string_view text, std::string_view what) : compiled_(std::make_shared<Compiled>(text)) {
  if (!compiled_->regex.ok()) {
    throw Error(ErrorCode::kInvalid, "",
                std::string(what) + ": " + quote(text) + " is no regular expression: " + compiled_->regex.error());
  }
}

bool Pattern::matches(std::string_view name) const {
  return RE2::PartialMatch(re2::StringPiece(name.data(), name.size()), compiled_->regex);
}

std::string Pattern::replaced(std::string_view name, const std::string& to) const {
  std::string result(name);
  RE2::GlobalReplace(&result, compiled_->regex, to);
  return result;
}

std::string Pattern::problem_with(const std::string& to) const {
  std::string problem;
  return compiled_->regex.CheckRewriteString(to, &problem) ? "" : problem;
}

std::vector<Pattern> compile_patterns(std::span<const std::string> texts, std::string_view what) {
  std::vector<Pattern> patterns;
  patterns.reserve(texts.size());
  for (const std::string& text : texts) patterns.emplace_back(text, what);
  return patterns;
}

bool any_matches(std::span<const Pattern> patterns, std::string_view name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const Pattern& pattern) { return pattern.matches(name); });
}

}  // namespace ckpt
