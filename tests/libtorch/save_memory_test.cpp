#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>
#include <string>

#include "ckpt/checkpoint_manager.h"
#include "ckpt/training_state.h"
#include "support/temp_dir.h"

#if defined(__linux__)

namespace ckpt {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kState = 512 * kMiB;
constexpr uint64_t kAllowed = 64 * kMiB;

/// A line of /proc/self/status, in bytes.
uint64_t memory(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stoull(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

class SaveMemory : public ::testing::Test {
 protected:
  SaveMemory() {
    for (int i = 0; i < 4; ++i) {
      tensors_.emplace_back("weight" + std::to_string(i), torch::full({int64_t{kState / 16}}, 0.5));
    }
    state_.add_tensors("model", tensors_);
  }

  /// How far the peak during `body` lay above what was used before.
  template <class Body>
  uint64_t growth(Body body) {
    const uint64_t before = memory("VmRSS");
    reset_peak();
    body();
    return memory("VmHWM") - before;
  }

  test::TempDir dir_;
  std::vector<std::pair<std::string, at::Tensor>> tensors_;
  TrainingState state_;
};

TEST_F(SaveMemory, ASynchronousSaveNeedsNoCopyOfTheState) {
  CheckpointManager manager(dir_.path() + "/run", {.weights_copy = true});
  EXPECT_LE(growth([&] { manager.save(state_); }), kAllowed);
}

TEST_F(SaveMemory, AnAsynchronousSaveNeedsOneCopyAndReusesIt) {
  CheckpointManager manager(dir_.path() + "/run", {.keep = {.last = 1}});
  EXPECT_LE(growth([&] { manager.save_async(state_).wait(); }), kState + kAllowed);
  EXPECT_LE(growth([&] {
              for (int i = 0; i < 3; ++i) {
                ++state_.iteration;
                manager.save_async(state_).wait();
              }
            }),
            kAllowed);
}

TEST_F(SaveMemory, ALoadReadsStraightIntoTheLiveTensors) {
  CheckpointManager manager(dir_.path() + "/run");
  manager.save(state_);
  EXPECT_LE(growth([&] { manager.load_latest(state_); }), kAllowed);
}

}  // namespace
}  // namespace ckpt

#endif
