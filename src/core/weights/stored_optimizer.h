// What a file of LibTorch or of ckpt says of an optimizer, nothing of it checked against a model.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/format/archive.h"

namespace ckpt::weights {

struct StoredState {
  std::map<std::string, nlohmann::json> numbers;
  std::vector<std::pair<std::string, format::StoredTensor>> tensors;  ///< of lists: "old_dirs.0", ...
};

/// Parameters by some key: an address, or a name.
struct StoredOptimizer {
  struct Group {
    nlohmann::json options = nlohmann::json::object();
    std::vector<std::string> keys;
  };
  std::vector<Group> groups;
  std::map<std::string, StoredState> states;
  std::string type;      ///< where the file says it
  bool by_name = false;  ///< keys are names: it is a part of a training state
};

/// kMismatch: no optimizer; kNotFound: a state without the part "optimizer"; kCorrupt: not as one is stored.
StoredOptimizer read_stored_optimizer(const format::ArchiveFile& file);

}  // namespace ckpt::weights
