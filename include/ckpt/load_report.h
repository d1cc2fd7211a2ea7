// What a load may leave out, and what it did.
//
// Names in a training state are `<part>/<name>`, as optimizers refer to parameters: "model/conv1.weight". A part as a
// whole (an optimizer, a scheduler) is named by itself: "optimizer". Of weights alone they are plain: "conv1.weight".
//
// Thread rule: values.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace ckpt {

struct LoadOptions {
  /// true: every name must be on both sides and fit, else Error(kMismatch) lists all problems and nothing is touched.
  /// false: what fits is loaded, the rest is reported.
  bool strict = true;

  /// The parts to load; empty: all, with the progress and the generators. With parts named, "ckpt" stands for the
  /// progress (epoch, iteration, metrics, best metric, metadata) and "rng" for the random number generators.
  std::vector<std::string> parts = {};

  /// Name in the file -> name of the live object. A key that ends in '.' or '/' stands for all names that begin with
  /// it: {"model/backbone.", "model/encoder."}, {"model/", "teacher/"}. The longest key that fits is taken, once.
  std::map<std::string, std::string> rename = {};

  /// RE2 regular expressions (linear time; no back references, no look-around), matched anywhere in the live name
  /// unless anchored: {"^model/fc\\."}. What one of them matches is neither loaded nor reported, on either side.
  std::vector<std::string> exclude = {};
};

struct LoadReport {
  struct Mismatch {
    std::string name;
    std::string expected;  ///< what the live object is: "float32 [10, 64]"
    std::string actual;    ///< what the file holds
  };

  std::vector<std::string> loaded;
  std::vector<std::string> missing;     ///< live, and not in the file
  std::vector<std::string> unexpected;  ///< in the file, and not live
  std::vector<Mismatch> mismatched;
  /// What was passed over even where `strict`: generators of CUDA devices that this machine lacks.
  std::vector<std::string> notes;
};

}  // namespace ckpt
