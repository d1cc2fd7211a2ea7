// What `ckpt inspect` found, and how it is shown to a person.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/weights/stats.h"
#include "core/weights/weights.h"
#include "output.h"

namespace ckpt::tool {

struct Inspected {
  std::string path;
  std::string format;
  weights::Weights weights;
  std::vector<const weights::Tensor*> shown = {};  ///< those that --match left
  nlohmann::json metadata = nlohmann::json::object();
  std::vector<std::vector<std::string>> ties = {};   ///< names of one tensor, the first one first
  std::map<std::string, weights::Stats> stats = {};  ///< with --stats
};

/// The description of a training state in `metadata`, or null: of a state.pt at the top, of a checkpoint below "state".
nlohmann::json state_of(const nlohmann::json& metadata);

void print_text(const Inspected& inspected, Output& output);

}  // namespace ckpt::tool
