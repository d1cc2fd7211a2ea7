// Elements of several members made one, by the action that was decided for their name.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "core/average/mean.h"
#include "core/average/plan.h"

namespace ckpt::average {

/// What was met on the way.
struct Seen {
  bool nonfinite_input = false;
  bool overflow = false;   ///< finite inputs whose result is beyond the target's dtype
  bool disagrees = false;  ///< kMustAgree, and they do not
};

/// Thread rule: does not change once made; use it from any thread.
class Combiner {
 public:
  /// kInvalid where the weights of the members that have some name have no sum above 0; kUnsupported for dtypes that
  /// have no mean.
  Combiner(const Members& members, const Plan& plan);

  /// `inputs`: elements of the members that have the item, in their order; this machine's byte order on both sides.
  Seen operator()(const Item& item, std::span<const std::byte* const> inputs, size_t elements, std::byte* to) const;

 private:
  /// The weights of the members that have an item.
  std::vector<double> weights_of(const Item& item) const;
  using Key = std::tuple<std::vector<double>, DType, DType>;

  std::vector<double> weights_;
  std::map<Key, Mean> means_;
};

}  // namespace ckpt::average
