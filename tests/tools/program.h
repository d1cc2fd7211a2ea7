// Runs the built program as a script would, and makes runs for it to look at.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/run/writer.h"
#include "support/temp_dir.h"

namespace ckpt::test {

struct Outcome {
  int code = -1;  ///< exit code; 1000 + the signal where one ended it
  std::string out;
  std::string err;

  /// stdout as one strict JSON object with "schema": 1.
  nlohmann::json json() const;
  /// The member "error", checked to have all its fields.
  nlohmann::json error() const;
};

struct Surroundings {
  std::map<std::string, std::string> environment = {};  ///< besides PATH, HOME and TMPDIR; LC_ALL=C unless given
  bool terminal = false;                                ///< stdout and stderr are one terminal; all comes as `out`
  std::string directory = {};                           ///< working directory; empty: the test's
  std::string stdout_path = {};                         ///< stdout goes there
};

Outcome ckpt(const std::vector<std::string>& arguments, const Surroundings& surroundings = {});

std::vector<std::string> lines_of(const std::string& text);

/// Path of a file under tests/data.
std::string data(const std::string& name);
std::string archive(const std::string& name);  ///< under tests/data/archives

struct NewCheckpoint {
  uint64_t iteration = 0;
  uint64_t epoch = 0;
  std::map<std::string, double> metrics = {};
  std::optional<run::Monitor> monitor = std::nullopt;
  std::string state = archive("tensors-1.13.1.pt");  ///< becomes state.pt
  nlohmann::json metadata = nlohmann::json::object();
};

/// Commits one checkpoint as the library does; returns its path.
std::string add_checkpoint(const std::string& run, const NewCheckpoint& checkpoint);

/// Changes one byte of a file.
void flip_byte(const std::string& path, uint64_t offset);

/// All names below a directory with their contents, to see that nothing changed; without the text of the lock file.
std::map<std::string, std::string> everything_in(const std::string& path);

}  // namespace ckpt::test
