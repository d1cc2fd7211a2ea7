// Which checkpoints of a run are kept: a pure function from a list to a list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ckpt/retention_policy.h"

namespace ckpt::run {

struct Monitor {
  std::string metric;
  Mode mode = Mode::kMax;
  bool operator==(const Monitor&) const = default;
};

/// Each rule that is set keeps; what no rule keeps goes; none set: everything is kept.
struct KeepRules {
  std::optional<uint64_t> last = std::nullopt;    ///< the N newest (highest sequence)
  std::optional<uint64_t> best = std::nullopt;    ///< the K best by `monitor`
  std::optional<Monitor> monitor = std::nullopt;  ///< needed by `best`
  std::optional<uint64_t> every = std::nullopt;   ///< iteration % every == 0; every > 0
  std::optional<double> hours = std::nullopt;     ///< not older than this, against `now`

  bool keeps_all() const { return !last && !best && !every && !hours; }
  /// Throws kInvalid for `best` without a monitor, `every` of 0, and hours that are negative or NaN.
  void check() const;
};

struct Candidate {
  uint64_t sequence = 0;
  uint64_t iteration = 0;
  double time = 0;  ///< Unix seconds
  std::map<std::string, double> metrics;
};

/// For each candidate (any order) whether it is kept. The highest sequence always is. Best: ties go to the newer, NaN
/// is the worst but can fill a free place, a missing metric never counts. The same sequence twice (a run put together
/// by hand): the higher iteration is the newer.
std::vector<bool> keep(const std::vector<Candidate>& candidates, const KeepRules& rules, double now);

/// Indices of those that have the metric, best first (the same order): NaNs last, ties newest first.
std::vector<size_t> ranked(const std::vector<Candidate>& candidates, const Monitor& monitor);

/// The first of ranked(); std::nullopt where none has the metric or all are NaN.
std::optional<size_t> best_of(const std::vector<Candidate>& candidates, const Monitor& monitor);

}  // namespace ckpt::run
