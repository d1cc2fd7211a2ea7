// Which checkpoints of a run are kept: a pure function from a list to a list.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ckpt {

enum class Mode { kMin, kMax };

}  // namespace ckpt

namespace ckpt::run {

struct Monitor {
  std::string metric;
  Mode mode = Mode::kMax;
  bool operator==(const Monitor&) const = default;
};

/// Each rule that is set keeps; what no rule keeps goes; none set: everything is kept.
struct KeepRules {
  std::optional<uint64_t> last;      ///< the N newest (highest sequence)
  std::optional<uint64_t> best;      ///< the K best by `monitor`
  std::optional<Monitor> monitor;    ///< needed by `best`
  std::optional<uint64_t> every;     ///< iteration % every == 0; every > 0
  std::optional<double> hours;       ///< not older than this, against `now`

  bool keeps_all() const { return !last && !best && !every && !hours; }
};

struct Candidate {
  uint64_t sequence = 0;
  uint64_t iteration = 0;
  double time = 0;  ///< Unix seconds
  std::map<std::string, double> metrics;
};

/// For each candidate (any order) whether it is kept. The highest sequence always is. Best: ties go to the newer, NaN
/// is the worst but can fill a free place, a missing metric never counts.
std::vector<bool> keep(const std::vector<Candidate>& candidates, const KeepRules& rules, double now);

/// Index of the best by the monitor (the same order), if any has the metric; a NaN is never best.
std::optional<size_t> best_of(const std::vector<Candidate>& candidates, const Monitor& monitor);

}  // namespace ckpt::run
