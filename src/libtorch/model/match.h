// Fits stored tensors, or those of another model, to live ones by name. Nothing is read or written for it, but where
// tied live tensors have several stored values that must be compared.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ckpt/load_report.h"
#include "core/base/dtype.h"

namespace ckpt::model {

/// Collects problems: into the report, and as lines for the error.
class Findings {
 public:
  explicit Findings(LoadReport& report) : report_(report) {}

  void missing(const std::string& name, const std::string& expected);
  void unexpected(const std::string& name, const std::string& actual);
  void mismatch(const std::string& name, const std::string& expected, const std::string& actual);

  LoadReport& report() { return report_; }
  size_t count() const { return lines_.size(); }
  /// Error(kMismatch) with all of them, if there are any.
  void throw_all(const std::string& path) const;

 private:
  LoadReport& report_;
  std::vector<std::string> lines_;
};

/// One tensor that values can come from.
struct Source {
  DType dtype = DType::kFloat32;
  at::IntArrayRef shape;
  const char* unusable = nullptr;            ///< "a sparse tensor": listed, and cannot be loaded
  std::pair<uint64_t, uint64_t> place = {};  ///< file and byte, or memory: what is at one place is the same tensor
  size_t index = 0;                          ///< whatever the caller tells it by
};
using Sources = std::unordered_map<std::string, Source>;  // by live name

struct MatchRules {
  /// Names that are loaded and reported; the others are passed over in silence.
  std::function<bool(const std::string& name)> wanted;
  /// Whether two sources of one dtype and shape have the same values.
  std::function<bool(const Source& a, const Source& b)> same_values;
  bool convert_dtype = false;
  bool skip_shape_mismatch = false;
};

struct Match {
  struct Pair {
    size_t source;  ///< its index
    at::Tensor live;
  };
  /// Live tensors that share memory are here once.
  std::vector<Pair> pairs;
  /// Live, and not among the sources, under no name that the tensor has.
  std::vector<const std::pair<std::string, at::Tensor>*> missing;
  /// Sources that no live tensor has the name of, sorted by name.
  std::vector<std::pair<std::string, Source>> unexpected;
};

/// What fits goes to the report's `loaded`, what does not to `findings`; missing and unexpected ones are the caller's
/// to judge.
Match match(const std::vector<std::pair<std::string, at::Tensor>>& live, Sources sources, const MatchRules& rules,
            Findings& findings);

/// "float32 [10, 64]".
std::string describe(const Source& source);

/// Whether values of `from` may be converted to `to`.
bool convertible(DType from, at::ScalarType to);

}  // namespace ckpt::model
