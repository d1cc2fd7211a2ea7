// What opening a file may still take.
#pragma once

#include <cstdint>
#include <string>

#include "ckpt/error.h"

namespace ckpt::weights {

/// Counts down what may be taken by the rule that readers take no more than the size of what they read and 64 MiB.
class Budget {
 public:
  /// `path` outlives it.
  Budget(uint64_t left, const std::string& path) : left_(left), path_(path) {}

  uint64_t left() const { return left_; }

  /// kCorrupt where that is more than is left.
  void charge(uint64_t bytes) {
    if (bytes > left_) {
      throw Error(ErrorCode::kCorrupt, path_, "what it holds takes more memory than a file of this size may");
    }
    left_ -= bytes;
  }

 private:
  uint64_t left_;
  const std::string& path_;
};

}  // namespace ckpt::weights
