// Regular expressions of users over names that come from files: RE2, which takes linear time on any name.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ckpt {

/// One RE2 pattern; copies share it. Matched anywhere in a name unless anchored.
class Pattern {
 public:
  /// kInvalid where `text` is no RE2 pattern; `what` ("exclude") begins the message.
  Pattern(std::string_view text, std::string_view what);

  bool matches(std::string_view name) const;
  /// All matches replaced by `to`, in which \0 to \9 stand for the match and its groups.
  std::string replaced(std::string_view name, const std::string& to) const;
  /// Why `to` cannot be used with this pattern (a group that it has not); empty where it can.
  std::string problem_with(const std::string& to) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

std::vector<Pattern> compile_patterns(std::span<const std::string> texts, std::string_view what);
bool any_matches(std::span<const Pattern> patterns, std::string_view name);

}  // namespace ckpt
