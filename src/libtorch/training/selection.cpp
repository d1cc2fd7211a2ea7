#include "libtorch/training/selection.h"

#include <algorithm>

#include "ckpt/error.h"
#include "core/base/quote.h"

namespace ckpt::training {
namespace {

// libstdc++ matches by recursion over the text, so a long name would end the stack.
constexpr size_t kLongestMatched = 1024;

std::regex compile(const std::string& pattern) {
  auto flags = std::regex::ECMAScript;
#ifdef __GLIBCXX__
  flags |= std::regex_constants::__polynomial;  // breadth first: no pattern takes exponential time
#endif
  try {
    return std::regex(pattern, flags);
  } catch (const std::regex_error&) {
#ifdef __GLIBCXX__
    try {
      return std::regex(pattern);  // back references need the other way
    } catch (const std::regex_error&) {
    }
#endif
    throw Error(ErrorCode::kInvalid, "", "exclude: " + quote(pattern) + " is no regular expression");
  }
}

}  // namespace

Selection::Selection(const LoadOptions& options) : options_(options) {
  for (const std::string& pattern : options.exclude) patterns_.push_back(compile(pattern));
}

bool Selection::wants_part(const std::string& part) const {
  const auto& parts = options_.parts;
  return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
}

std::string Selection::live_name(const std::string& stored) const {
  const auto& rename = options_.rename;
  if (const auto exact = rename.find(stored); exact != rename.end()) return exact->second;
  const std::string* from = nullptr;
  const std::string* to = nullptr;
  for (const auto& [key, value] : rename) {
    const bool is_prefix = !key.empty() && (key.back() == '.' || key.back() == '/');
    if (is_prefix && stored.starts_with(key) && (!from || key.size() > from->size())) {
      from = &key;
      to = &value;
    }
  }
  return from ? *to + stored.substr(from->size()) : stored;
}

std::string Selection::live_part(const std::string& stored) const {
  const auto exact = options_.rename.find(stored);
  if (exact != options_.rename.end()) return exact->second;
  const auto prefix = options_.rename.find(stored + "/");
  if (prefix == options_.rename.end()) return stored;
  return prefix->second.substr(0, prefix->second.find_last_not_of('/') + 1);
}

bool Selection::excludes(const std::string& live) const {
  return live.size() <= kLongestMatched &&
         std::any_of(patterns_.begin(), patterns_.end(),
                     [&](const std::regex& regex) { return std::regex_search(live, regex); });
}

void Findings::missing(const std::string& name, const std::string& expected) {
  report_.missing.push_back(name);
  lines_.push_back(quote(name) + ": expected " + expected + ", not in the file");
}

void Findings::unexpected(const std::string& name, const std::string& actual) {
  report_.unexpected.push_back(name);
  lines_.push_back(quote(name) + ": not expected, the file has " + actual);
}

void Findings::mismatch(const std::string& name, const std::string& expected, const std::string& actual) {
  report_.mismatched.push_back({name, expected, actual});
  lines_.push_back(quote(name) + ": expected " + expected + ", found " + actual);
}

void Findings::throw_all(const std::string& path) const {
  if (lines_.empty()) return;
  const std::string count = lines_.size() == 1 ? "" : std::to_string(lines_.size()) + " problems, the first: ";
  throw Error(ErrorCode::kMismatch, path, "does not fit the live objects: " + count + lines_.front(),
              {.details = lines_});
}

}  // namespace ckpt::training
