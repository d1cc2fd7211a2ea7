#include "libtorch/model/match.h"

#include <ATen/ATen.h>
#include <c10/core/ScalarType.h>

#include <algorithm>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "libtorch/bridge/tensors.h"

namespace ckpt::model {
namespace {

// Elements of the live tensor that share a place cannot take different values.
bool overlaps_itself(const at::Tensor& tensor) {
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.stride(i) == 0 && tensor.size(i) > 1) return true;
  }
  return false;
}

const void* memory_of(const at::Tensor& tensor) {
  return bridge::unsupported_reason(tensor) || tensor.nbytes() == 0 ? nullptr : tensor.data_ptr();
}

class Matcher {
 public:
  Matcher(const MatchRules& rules, Findings& findings) : rules_(rules), findings_(findings) {}

  void take(const std::string& name, const at::Tensor& live, const Source& source) {
    if (!fits(name, live, source)) return;
    if (const void* memory = memory_of(live)) {
      const auto [tied, fresh] = taken_.emplace(memory, Taken{name, live, source});
      if (!fresh && !same(tied->second, live, source)) {
        return findings_.mismatch(name, "the same values as " + quote(tied->second.name) + " (tied)",
                                  "values of its own");
      }
      if (fresh) result.pairs.push_back({source.index, live});
    }
    findings_.report().loaded.push_back(name);
  }

  bool has_taken(const at::Tensor& live) const {
    const void* memory = memory_of(live);
    return memory && taken_.count(memory);
  }

  Match result;

 private:
  struct Taken {
    std::string name;
    at::Tensor live;
    Source source;
  };

  bool fits(const std::string& name, const at::Tensor& live, const Source& source) {
    const bool usable = !source.unusable && !bridge::unsupported_reason(live);
    const bool same_shape = usable && live.sizes() == source.shape;
    if (usable && !same_shape && rules_.skip_shape_mismatch) {
      findings_.report().mismatched.push_back({name, bridge::describe(live), describe(source)});
      return false;
    }
    const bool same_dtype = usable && (bridge::dtype_of(live.scalar_type()) == source.dtype ||
                                       (rules_.convert_dtype && convertible(source.dtype, live.scalar_type())));
    if (!same_shape || !same_dtype) {
      findings_.mismatch(name, bridge::describe(live), describe(source));
      return false;
    }
    if (overlaps_itself(live)) {
      findings_.mismatch(name, "memory of its own", "an expanded live tensor");
      return false;
    }
    return true;
  }

  // Where one memory is seen in two ways (a matrix and its transpose), so must what is stored be.
  bool same(const Taken& first, const at::Tensor& live, const Source& source) const {
    const bool one_view = live.sizes() == first.live.sizes() && live.strides() == first.live.strides() &&
                          live.scalar_type() == first.live.scalar_type();
    if (!one_view) return source.place == first.source.place;
    return source.dtype == first.source.dtype && rules_.same_values(first.source, source);
  }

  const MatchRules& rules_;
  Findings& findings_;
  std::unordered_map<const void*, Taken> taken_;
};

}  // namespace

std::string describe(const Source& source) {
  return source.unusable ? source.unusable : ckpt::describe(source.dtype, source.shape);
}

bool convertible(DType from, at::ScalarType to) {
  const auto live = bridge::dtype_of(to);
  if (live && is_floating(from) && is_floating(*live)) return true;
  const auto type = bridge::scalar_type_of(from);
  return type && c10::canCast(*type, to);
}

Match match(const std::vector<std::pair<std::string, at::Tensor>>& live, Sources sources, const MatchRules& rules,
            Findings& findings) {
  Matcher matcher(rules, findings);
  std::vector<const std::pair<std::string, at::Tensor>*> without;
  for (const auto& item : live) {
    const auto found = sources.find(item.first);
    if (found != sources.end()) {
      if (rules.wanted(item.first)) matcher.take(item.first, item.second, found->second);
      sources.erase(found);
    } else if (rules.wanted(item.first)) {
      without.push_back(&item);
    }
  }
  Match& result = matcher.result;
  // One of several names is enough where the live tensor has them.
  std::copy_if(without.begin(), without.end(), std::back_inserter(result.missing),
               [&](const auto* item) { return !matcher.has_taken(item->second); });
  for (auto& item : sources) {
    if (rules.wanted(item.first)) result.unexpected.emplace_back(item.first, item.second);
  }
  std::sort(result.unexpected.begin(), result.unexpected.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return std::move(result);
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

}  // namespace ckpt::model
