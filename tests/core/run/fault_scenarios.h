// The saves that are made to fail, killed and cut off: a new iteration with rotation, and an iteration that is
// replaced, with and without a file system that can exchange two names.
#pragma once

#include <ostream>

#include "run_testing.h"
#include "support/fault_hook.h"

namespace ckpt::run::testing {

/// In memory where that can be had: these tests make thousands of runs, and power cuts are in a model.
inline std::string fast_directory() {
  return fs::is_directory("/dev/shm") ? std::string("/dev/shm") : ::testing::TempDir();
}

inline fs::copy_options copy_all() { return fs::copy_options::recursive | fs::copy_options::copy_symlinks; }

inline std::vector<Sample> old_samples() {
  std::vector<Sample> samples;
  for (uint64_t i = 1; i <= 3; ++i)
    samples.push_back({.iteration = i, .bytes = 300, .accuracy = 1.0 / static_cast<double>(i)});
  return samples;
}

/// Checkpoints 1, 2 and 3; 1 is the best.
inline void make_old_run(const std::string& path) {
  RunWriter writer(path);
  for (const Sample& sample : old_samples()) save(writer, sample, {}, kAccuracy);
}

struct Scenario {
  std::string name;
  Sample save;
  KeepRules rules;
  bool exchange = true;

  Committed commit(RunWriter& writer) const { return testing::save(writer, save, rules, kAccuracy); }
};

inline std::ostream& operator<<(std::ostream& out, const Scenario& scenario) { return out << scenario.name; }
inline std::string name_of(const ::testing::TestParamInfo<Scenario>& scenario) { return scenario.param.name; }

inline std::vector<Scenario> scenarios() {
  const Sample added{.iteration = 4, .bytes = 300, .accuracy = 0.1};
  const Sample again{.iteration = 3, .version = 1, .bytes = 300, .accuracy = 0.1};
  const KeepRules rules{.last = 1, .best = 1, .monitor = kAccuracy};
  return {{"New", added, {}, true},
          {"NewWithRotation", added, rules, true},
          {"ReplacedByExchange", again, {}, true},
          {"ReplacedByTwoRenames", again, rules, false}};
}

/// Hands calls on to another hook; exchanges, unless they are possible, fail as on a file system that has none.
class WithoutExchange : public io::Hook {
 public:
  WithoutExchange(io::Hook* next, bool possible) : next_(next), possible_(possible) {}
  int before(io::Call& call) override {
    return call.op == io::Op::kExchange && !possible_ ? EINVAL : next_->before(call);
  }
  void after(const io::Call& call, long result, int error) override { next_->after(call, result, error); }

 private:
  io::Hook* next_;
  const bool possible_;
};

/// The newest that a reader finds is whole: the one saved last before, or (always, where it must be) the new one.
inline void expect_old_or_new(const std::string& run, const Sample& saved, bool must_be_new) {
  std::optional<Selection> found;
  try {
    found = select_latest(run);
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
    return;
  }
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->passed_over.empty()) << found->passed_over[0].reason;
  const Sample old = old_samples().back();
  const bool is_new = holds(found->checkpoint.path, saved);
  EXPECT_TRUE(is_new || (!must_be_new && holds(found->checkpoint.path, old))) << found->checkpoint.path;
  EXPECT_EQ(found->checkpoint.iteration, is_new ? saved.iteration : old.iteration);
}

}  // namespace ckpt::run::testing
