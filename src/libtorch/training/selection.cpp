#include "libtorch/training/selection.h"

#include <algorithm>

namespace ckpt::training {
Selection::Selection(const LoadOptions& options)
    : options_(options), excluded_(compile_patterns(options.exclude, "exclude")) {}

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

bool Selection::excludes(const std::string& live) const { return any_matches(excluded_, live); }

}  // namespace ckpt::training
