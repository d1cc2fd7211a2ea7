// What differs between two files of weights of any formats.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/weights/weights.h"

namespace ckpt::weights {

/// |a - b| <= atol + rtol * |b| counts as equal, for floating and complex numbers (by components); NaN at the same
/// place is equal. Integers and bools are compared exactly.
struct DiffOptions {
  double rtol = 0;
  double atol = 0;
  unsigned threads = 1;
};

struct Difference {
  enum class Kind { kDType, kShape, kValue };
  std::string name;
  Kind kind = Kind::kValue;
  std::string a;  ///< "float32 [10, 64]"
  std::string b;
  // kValue alone. Infinite where a NaN or an infinity stands against something else.
  double max_abs = 0;
  double max_rel = 0;                 ///< |a - b| / |b|, where b is not 0
  std::optional<double> cosine = {};  ///< of the whole tensors; none where one has no length
  /// Of float16, bfloat16, float32 and float64; none where a NaN stands against a number.
  std::optional<uint64_t> max_ulp = {};
};

struct Diff {
  std::vector<std::string> added;    ///< in b alone
  std::vector<std::string> removed;  ///< in a alone
  std::vector<Difference> changed;   ///< in the order of a
  bool equal() const { return added.empty() && removed.empty() && changed.empty(); }
};

/// A name that only one side has is no difference where that side has the same tensor under another name that both
/// have (a tie that a format could not keep).
/// Reads in tiles; kUnsupported where tensors that both have are sparse or quantized, all in details().
Diff diff(const Weights& a, const Weights& b, const DiffOptions& options = {});

}  // namespace ckpt::weights
