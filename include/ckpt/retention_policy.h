// What a run keeps and which of two values of a metric is better.
//
// Thread rule: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ckpt {

/// Whether the lower or the higher value of a metric is better.
enum class Mode { kMin, kMax };

/// Each rule that is set keeps checkpoints; what no rule keeps is deleted after the next save; none set: all are kept.
/// The newest checkpoint is kept whatever the rules say.
struct RetentionPolicy {
  std::optional<uint64_t> last = std::nullopt;   ///< the N newest
  std::optional<uint64_t> best = std::nullopt;   ///< the K best by `metric`, of all there are; ties go to the newer
  std::string metric = {};                       ///< needed by `best`; given alone it sets the link `best`
  Mode mode = Mode::kMax;                        ///< of `metric`; NaN is the worst in both
  std::optional<uint64_t> every = std::nullopt;  ///< those with iteration % every == 0
  std::optional<double> hours = std::nullopt;    ///< those not older than this
};

}  // namespace ckpt
