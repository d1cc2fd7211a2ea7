// The mean of several files of weights: what is averaged, how, and what came of it. Used by Averager (averager.h) and
// by the Torch-free core.
//
// Every element of the result is the exact mean of the inputs' elements, rounded once to the dtype of the result, so it
// does not depend on the order of the inputs or the number of threads. A key keeps its dtype. Memory does not grow with
// the weights: at most 64 MiB and 1 MiB for each input.
//
// Thread rule: values.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ckpt/retention_policy.h"
#include "ckpt/weights.h"

namespace ckpt {

/// Whose names the result has.
enum class AverageKeys {
  kStrict,     ///< all inputs have the same, else Error(kMismatch) lists both sides
  kIntersect,  ///< those that all inputs have
  kUnion,      ///< those that any input has; a mean is then over the inputs that have the name
};

/// What becomes of integers (counters such as num_batches_tracked); never through floating point.
enum class AverageIntegers {
  kNewest,  ///< of the input with the highest iteration (the last of such) where inputs have one, else of the last
  kMax,
  kSum,    ///< kInvalid where it does not fit
  kMean,   ///< exact, rounded to nearest even
  kError,  ///< they must agree, else kMismatch
};

/// Which checkpoints of a run take part, oldest first (`iterations`: as listed). At most one of them is set; none: all.
/// Checkpoints that are not whole by manifest and sizes are passed over with a warning, but for those named.
struct AverageSelection {
  std::optional<uint64_t> best = std::nullopt;  ///< the K best by `metric`: ties to the newer, NaN worst
  std::string metric = {};                      ///< of `best`; empty: the one that the run monitors, and its mode
  Mode mode = Mode::kMax;                       ///< of `metric`
  std::optional<uint64_t> last = std::nullopt;  ///< the N newest
  std::optional<std::pair<uint64_t, uint64_t>> range = std::nullopt;  ///< iterations from first to second, both with
  std::vector<uint64_t> iterations = {};                              ///< these; kNotFound where one is missing
};

struct AverageOptions {
  /// One for each input after selection, finite, with a sum above 0, by which they are divided. Empty: equal ones.
  /// Weights go with inputs of files or listed iterations; with others their number must fit all the same.
  std::vector<double> weights = {};
  /// Instead of weights: an exponential moving average over the inputs in their order, starting from the first:
  /// shadow = decay * shadow + (1 - decay) * input. 0 <= decay < 1.
  std::optional<double> ema_decay = std::nullopt;
  AverageSelection select = {};
  /// Take the averaged weights of each input (OpenOptions::ema).
  bool ema = false;
  std::string key = {};  ///< OpenOptions::key of each input
  AverageKeys keys = AverageKeys::kStrict;
  AverageIntegers integers = AverageIntegers::kNewest;
  /// Of floating tensors in the result: float16, bfloat16, float32, float64 (or f16, ...). Empty: as they are.
  std::string dtype = {};
  /// kSafetensors, kTorch, kArchive, or kCheckpoint: `out` is a run then. Not set: told from the name of `out`
  /// (.safetensors; .pt, .pth, .bin: torch).
  std::optional<Format> format = std::nullopt;
  /// Safetensors alone: entries for `__metadata__`, beside the provenance.
  std::map<std::string, std::string> metadata = {};
  /// NaN and infinities in an input are Error(kInvalid), which lists file and name of each, unless allowed.
  bool allow_nonfinite = false;
  /// Select, compare and decide without reading or writing a tensor; hashes in the report are empty then.
  bool dry_run = false;
  unsigned threads = 0;  ///< 0: the CPUs that this process may use, at most 8
};

/// Where the result says what it was made of, as JSON `{"method", "inputs": [{"name", "hash", "weight"}]}` (of an EMA
/// also "decay"): the entry of safetensors' `__metadata__` or of a checkpoint's metadata, or the record of a torch zip
/// or archive. Of a plain or weighted mean it lists the inputs by hash, so that their order does not show.
inline constexpr const char* kAverageProvenance = "ckpt.average";

struct AverageInput {
  std::string path;                   ///< a file, or one checkpoint
  std::optional<uint64_t> iteration;  ///< where the input has one
  double weight = 0;                  ///< as given, or 1; of an EMA: what it comes to
  /// 32 hex digits over names, dtypes, shapes and elements that took part: the same in every format.
  std::string hash;
};

struct AverageDecision {
  std::string name;
  std::string what;  ///< "newest: from runs/a/step-000000000200", "left out: not in b.pt", "float32 to bfloat16", ...
};

struct AverageReport {
  std::string output;
  std::string method;                ///< "mean", "weighted" or "ema"
  std::vector<AverageInput> inputs;  ///< in the order in which they were taken
  uint64_t tensors = 0;              ///< of the result, each of tied names counted
  uint64_t bytes = 0;
  std::vector<AverageDecision> decisions;  ///< for each key of which there is something to say, sorted by name
  std::vector<std::string> warnings;
};

/// A number for the weights in a file: the higher the better, or the lower, as SoupOptions says.
using SoupMetric = std::function<double(const std::string& path)>;

/// A greedy soup (Wortsman et al. 2022, "Model soups", recipe 1): every input is measured alone; beginning with the
/// best, and in the order of their metrics, each is added to the mean where that is not the worse for it. NaN is the
/// worst.
struct SoupOptions {
  AverageOptions average = {};  ///< kInvalid with weights or ema_decay: a soup is a plain mean
  Mode mode = Mode::kMax;       ///< which metric is better
};

struct SoupTrial {
  std::vector<std::string> inputs;
  double metric = 0;
  bool kept = false;
};

struct SoupReport {
  AverageReport average;  ///< of what was kept
  double metric = 0;      ///< of that
  std::vector<SoupTrial> trials;
};

}  // namespace ckpt
