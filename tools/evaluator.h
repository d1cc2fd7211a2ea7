// An external program that says how good the weights in a file are.
#pragma once

#include <string>

namespace ckpt::tool {

class Evaluator {
 public:
  /// `command` is the shell's; {} in it stands for the path, quoted. kUsage where there is no {}.
  explicit Evaluator(std::string command);

  /// Runs it and returns the number that is the last line of its output, NaN and infinities among them. kInvalid where
  /// it fails or that is no number. What it writes to stderr is shown.
  double operator()(const std::string& path) const;

 private:
  std::string command_;
};

}  // namespace ckpt::tool
