// What becomes of each name: decided from the indexes of all members, before a tensor is read.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/average/members.h"
#include "core/base/dtype.h"

namespace ckpt::average {

enum class Action : uint8_t {
  kMean,       ///< floating and complex
  kMustAgree,  ///< bools; integers under AverageIntegers::kError
  kNewest,     ///< the others: integers
  kMax,
  kSum,
  kIntegerMean,
};

/// One name of the result.
struct Item {
  std::string name;
  DType to = DType::kFloat32;
  Action action = Action::kMean;
  bool is_parameter = false;
  int64_t tied_to = -1;                         ///< place of the first item that is the same tensor in every member
  uint32_t newest = 0;                          ///< the member that kNewest takes
  std::vector<const weights::Tensor*> sources;  ///< by member; nullptr in one that has not the name

  /// That of the first member which has it; all have the same dtype and shape.
  const weights::Tensor& first() const;
};

struct Plan {
  std::vector<Item> items;                           ///< in the members' order, where all have the same; else by name
  nlohmann::ordered_json module_metadata = nullptr;  ///< where all members have the same
  std::vector<AverageDecision> decisions;            ///< sorted by name
};

/// kMismatch: names, shapes or dtypes; kUnsupported: what cannot be averaged or `format` cannot hold: all in
/// details(). `members` outlives the plan.
Plan make_plan(const Members& members, const AverageOptions& options, Format format);

}  // namespace ckpt::average
