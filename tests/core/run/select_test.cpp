#include <atomic>
#include <limits>
#include <thread>

#include "ckpt/error.h"
#include "run_testing.h"

namespace ckpt::run {
namespace {

using namespace testing;

class SelectTest : public RunTest {
 protected:
  std::optional<Selection> selected(const Wanted& wanted = {}) const {
    return select(io::Directory::open(run()), wanted, 1);
  }

  Error refused(const Wanted& wanted = {}) const {
    try {
      selected(wanted);
    } catch (const Error& error) {
      return error;
    }
    return {ErrorCode::kInternal, "", "not refused"};
  }

  void flip(uint64_t iteration, size_t at = 100) const {
    std::string text = read_all(step(iteration) / "state.bin");
    text.at(at) = static_cast<char>(text.at(at) ^ 4);
    write_all(step(iteration) / "state.bin", text);
  }
};

const Wanted kBest{.which = Which::kBest};
Wanted iteration(uint64_t wanted) { return {.which = Which::kIteration, .iteration = wanted}; }

TEST_F(SelectTest, AnEmptyRunHasNothing) {
  fs::create_directories(run_);
  EXPECT_FALSE(selected());
  EXPECT_FALSE(selected(kBest));
  EXPECT_FALSE(selected(iteration(1)));
  fs::create_directories(run_ / temporary_name(1));
  EXPECT_FALSE(selected());
}

TEST_F(SelectTest, LatestIsTheOneCommittedLast) {
  RunWriter writer(run());
  for (uint64_t i : {1, 3, 2}) save(writer, {.iteration = i});
  const std::optional<Selection> found = selected();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->checkpoint.iteration, 2u);
  EXPECT_EQ(found->checkpoint.path, step(2).string());
  EXPECT_TRUE(found->passed_over.empty());
  EXPECT_EQ(selected(iteration(3))->checkpoint.iteration, 3u);
  EXPECT_FALSE(selected(iteration(4)));
}

TEST_F(SelectTest, WhatIsNotGoodIsPassedOverWithItsReason) {
  RunWriter writer(run());
  for (uint64_t i : {1, 2, 3, 4}) save(writer, {.iteration = i});
  flip(2);
  fs::resize_file(step(3) / "state.bin", 1);
  write_all(step(4) / "MANIFEST.json", "{}");
  fs::create_directories(step(5));
  const std::optional<Selection> found = selected();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->checkpoint.iteration, 1u);
  std::vector<std::string> paths;
  for (const PassedOver& one : found->passed_over) {
    paths.push_back(one.path);
    EXPECT_FALSE(one.reason.empty());
  }
  EXPECT_EQ(paths, (std::vector<std::string>{step(5), step(4), step(3), step(2)}));
  EXPECT_EQ(found->passed_over[0].reason, "has no MANIFEST.json");
  EXPECT_NE(found->passed_over[3].reason.find("state.bin"), std::string::npos) << found->passed_over[3].reason;

  // Without reading, the flipped one passes.
  EXPECT_EQ(selected({.verify = false})->checkpoint.iteration, 2u);
}

TEST_F(SelectTest, NothingGoodIsCorruptAndListsAll) {
  RunWriter writer(run());
  for (uint64_t i : {1, 2}) save(writer, {.iteration = i});
  flip(1);
  flip(2);
  const Error error = refused();
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error.details().size(), 2u);
  EXPECT_EQ(refused(iteration(1)).code(), ErrorCode::kCorrupt);
  EXPECT_EQ(refused(iteration(1)).details().size(), 1u);
  fs::remove_all(step(1));
  fs::remove_all(step(2));
  fs::create_directories(step(3));
  EXPECT_EQ(refused().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(refused(kBest).code(), ErrorCode::kCorrupt);
  EXPECT_EQ(refused(iteration(3)).code(), ErrorCode::kCorrupt);
}

TEST_F(SelectTest, BestGoesByTheStoredMonitor) {
  RunWriter writer(run());
  save(writer, {.iteration = 1, .accuracy = 0.9});
  EXPECT_EQ(refused(kBest).code(), ErrorCode::kNotFound);
  save(writer, {.iteration = 2, .accuracy = 0.3}, {}, kAccuracy);
  save(writer, {.iteration = 3});
  EXPECT_EQ(selected(kBest)->checkpoint.iteration, 1u);
  save(writer, {.iteration = 4, .accuracy = 0.9});
  EXPECT_EQ(selected(kBest)->checkpoint.iteration, 4u);
  save(writer, {.iteration = 5}, {}, Monitor{"accuracy", Mode::kMin});
  EXPECT_EQ(selected(kBest)->checkpoint.iteration, 2u);
}

TEST_F(SelectTest, ADamagedBestIsPassedOverForTheNextBest) {
  RunWriter writer(run());
  const double accuracies[] = {0.5, 0.9, 0.7, 0.1};
  for (uint64_t i = 0; i < 4; ++i) save(writer, {.iteration = i, .accuracy = accuracies[i]}, {}, kAccuracy);
  flip(1);
  const std::optional<Selection> found = selected(kBest);
  EXPECT_EQ(found->checkpoint.iteration, 2u);
  ASSERT_EQ(found->passed_over.size(), 1u);
  EXPECT_EQ(found->passed_over[0].path, step(1).string());
}

TEST_F(SelectTest, NoneEverHadTheMetric) {
  RunWriter writer(run());
  save(writer, {.iteration = 1}, {}, kAccuracy);
  save(writer, {.iteration = 2, .accuracy = std::numeric_limits<double>::quiet_NaN()});
  fs::create_directories(step(3));
  EXPECT_FALSE(selected(kBest));
}

// --- while a writer is at work ---

TEST_F(SelectTest, AReaderDuringRotationAlwaysGetsAWholeCheckpoint) {
  RunWriter writer(run());
  save(writer, {.iteration = 0}, {.last = 1});
  std::atomic<bool> stop = false;
  std::thread rotation([&] {
    for (uint64_t i = 1; !stop; ++i) save(writer, {.iteration = i}, {.last = 1});
  });
  uint64_t last = 0;
  int distinct = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  try {
    while (std::chrono::steady_clock::now() < until) {
      const std::optional<Selection> found = selected();
      if (!found || found->checkpoint.state != State::kGood || !found->passed_over.empty() ||
          found->checkpoint.iteration < last) {
        ADD_FAILURE() << (found ? found->checkpoint.path : "nothing");
        break;
      }
      distinct += found->checkpoint.iteration > last;
      last = found->checkpoint.iteration;
    }
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
  }
  stop = true;
  rotation.join();
  EXPECT_GT(distinct, 3);
}

TEST_F(SelectTest, AReaderDuringReplacementGetsTheOldOrTheNewOne) {
  RunWriter writer(run());
  save(writer, {.iteration = 1, .version = 0});
  std::atomic<bool> stop = false;
  std::thread replacement([&] {
    for (uint32_t i = 1; !stop; ++i) save(writer, {.iteration = 1, .version = i});
  });
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  uint64_t last = 0;
  try {
    while (std::chrono::steady_clock::now() < until) {
      const std::optional<Selection> found = selected();
      if (!found || !found->passed_over.empty() || found->checkpoint.manifest->sequence < last) {
        ADD_FAILURE() << (found ? found->checkpoint.path : "nothing");
        break;
      }
      last = found->checkpoint.manifest->sequence;
    }
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
  }
  stop = true;
  replacement.join();
  EXPECT_GT(last, 3u);
}

}  // namespace
}  // namespace ckpt::run
