// Runs for tests: a directory that goes away, checkpoints whose bytes follow from iteration and version.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/io/file.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/run/writer.h"

namespace ckpt::run::testing {

namespace fs = std::filesystem;

inline const Monitor kAccuracy{"accuracy", Mode::kMax};

/// What a save of `iteration` writes; another version of it differs in every file, but not in its size.
struct Sample {
  uint64_t iteration = 0;
  uint32_t version = 0;
  size_t bytes = 3000;
  std::optional<double> accuracy = {};

  std::string state() const {
    std::mt19937_64 random(iteration * 1000 + version);
    std::string text(bytes, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
  }

  /// One tensor `w` of four floats, by hand.
  std::string weights() const {
    std::string header = R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string text(8, '\0');
    text[0] = static_cast<char>(header.size());
    return text + header + Sample{iteration, version, 16, {}}.state();
  }

  CheckpointHead head() const {
    CheckpointHead made{
        .iteration = iteration, .epoch = iteration / 10, .metrics = {}, .metadata = {{"version", version}}};
    if (accuracy) made.metrics["accuracy"] = *accuracy;
    return made;
  }

  std::vector<FileToWrite> files() const {
    const auto file = [](std::string name, std::string text) {
      const uint64_t expected = text.size();
      return FileToWrite{std::move(name), expected,
                         [text = std::move(text)](io::BlockWriter& writer) { writer.append(as_bytes(text)); }};
    };
    return {file("state.bin", state()), file(std::string(kWeightsName), weights())};
  }
};

inline Committed save(RunWriter& writer, const Sample& sample, const KeepRules& rules = {},
                      const std::optional<Monitor>& monitor = {}) {
  return writer.commit(sample.head(), sample.files(), rules, monitor);
}

inline std::string read_all(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

inline void write_all(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

/// Whether the checkpoint at `path` holds exactly what `sample` writes.
inline bool holds(const fs::path& path, const Sample& sample) {
  return read_all(path / "state.bin") == sample.state() && read_all(path / kWeightsName) == sample.weights();
}

inline std::optional<Selection> select_latest(const std::string& run) {
  return select(io::Directory::open(run), {}, 1);
}

/// Names in a directory, sorted.
inline std::vector<std::string> names_in(const fs::path& path) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class RunTest : public ::testing::Test {
 protected:
  explicit RunTest(const std::string& base = ::testing::TempDir()) {
    std::string pattern = base + "/ckpt-run-XXXXXX";
    if (mkdtemp(pattern.data())) root_ = pattern;
    run_ = root_ / "run";
  }
  ~RunTest() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  std::string run() const { return run_.string(); }
  fs::path step(uint64_t iteration) const { return run_ / step_name(iteration); }
  std::string link(std::string_view name) const {
    std::error_code error;
    return fs::read_symlink(run_ / name, error).string();
  }
  std::vector<uint64_t> iterations() const {
    std::vector<uint64_t> found;
    for (const std::string& name : names_in(run_)) {
      if (const std::optional<uint64_t> iteration = iteration_of(name)) found.push_back(*iteration);
    }
    return found;
  }
  std::vector<std::string> leftovers() const {
    std::vector<std::string> found;
    for (const std::string& name : names_in(run_)) {
      if (leftover_of(name) != Leftover::kNone) found.push_back(name);
    }
    return found;
  }

  fs::path root_;
  fs::path run_;
};

}  // namespace ckpt::run::testing
