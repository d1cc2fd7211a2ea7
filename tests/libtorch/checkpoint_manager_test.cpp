#include "ckpt/checkpoint_manager.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "ckpt/error.h"
#include "ckpt/training_state.h"
#include "core/io/hooks.h"
#include "support/temp_dir.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

/// A model of one layer and what a manager needs of it.
struct Training {
  torch::nn::Linear model{4, 3};
  torch::optim::SGD optimizer{model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9)};
  TrainingState state;

  Training() { state.add_module("model", *model).add_optimizer("optimizer", optimizer); }

  void step() {
    optimizer.zero_grad();
    model->forward(torch::ones({2, 4})).pow(2).sum().backward();
    optimizer.step();
    ++state.iteration;
  }
  torch::Tensor weight() const { return model->weight.detach().clone(); }
};

ErrorCode code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error was thrown";
  return ErrorCode::kInternal;
}

void flip_byte(const std::string& path, uint64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const char byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

std::vector<uint64_t> iterations(const CheckpointManager& manager) {
  std::vector<uint64_t> found;
  for (const auto& info : manager.checkpoints()) found.push_back(info.iteration);
  return found;
}

class CheckpointManagerTest : public ::testing::Test {
 protected:
  test::TempDir dir_;
  std::string run_ = dir_.path() + "/run";
};

TEST_F(CheckpointManagerTest, AnEmptyOrAbsentRunGivesNothing) {
  Training training;
  CheckpointManager manager(run_);
  EXPECT_FALSE(manager.load_latest(training.state));
  EXPECT_FALSE(fs::exists(run_)) << "loading must not create the run";
  fs::create_directory(run_);
  EXPECT_FALSE(manager.load_latest(training.state));
  EXPECT_FALSE(manager.load(3, training.state));
  EXPECT_TRUE(manager.checkpoints().empty());
}

TEST_F(CheckpointManagerTest, WhatIsSavedIsLoaded) {
  Training saved;
  saved.step();
  saved.state.epoch = 2;
  saved.state.set_metric("accuracy", 0.5);
  saved.state.metadata["note"] = "first";
  {
    CheckpointManager manager(run_);
    const CheckpointInfo info = manager.save(saved.state);
    EXPECT_EQ(info.path, run_ + "/step-000000000001");
    EXPECT_EQ(info.iteration, 1u);
    EXPECT_GT(info.bytes, 0u);
  }
  Training loaded;
  const auto info = CheckpointManager(run_).load_latest(loaded.state);
  ASSERT_TRUE(info);
  EXPECT_TRUE(torch::equal(loaded.weight(), saved.weight()));
  EXPECT_EQ(loaded.state.iteration, 1u);
  EXPECT_EQ(loaded.state.epoch, 2u);
  EXPECT_EQ(loaded.state.metrics().at("accuracy"), 0.5);
  EXPECT_EQ(loaded.state.metadata["note"], "first");
  EXPECT_EQ(info->metrics.at("accuracy"), 0.5);
  EXPECT_TRUE(info->skipped.empty());
}

TEST_F(CheckpointManagerTest, ADamagedNewestIsPassedOverAndTheResultSaysWhy) {
  Training training;
  CheckpointManager manager(run_);
  training.step();
  manager.save(training.state);
  const torch::Tensor first = training.weight();
  training.step();
  const CheckpointInfo newest = manager.save(training.state);
  const std::string state = newest.path + "/state.pt";
  flip_byte(state, fs::file_size(state) / 2);

  Training loaded;
  const auto info = manager.load_latest(loaded.state);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->iteration, 1u);
  EXPECT_TRUE(torch::equal(loaded.weight(), first));
  ASSERT_EQ(info->skipped.size(), 1u);
  EXPECT_EQ(info->skipped[0].path, newest.path);
  EXPECT_NE(info->skipped[0].reason.find("state.pt"), std::string::npos) << info->skipped[0].reason;

  fs::resize_file(run_ + "/step-000000000001/state.pt", 100);
  EXPECT_EQ(code_of([&] { manager.load_latest(loaded.state); }), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of([&] { manager.load(2, loaded.state); }), ErrorCode::kCorrupt);
}

TEST_F(CheckpointManagerTest, WithoutVerificationSizesAreStillChecked) {
  Training training;
  CheckpointManager manager(run_, {.verify = false});
  manager.save(training.state);
  training.step();
  const CheckpointInfo newest = manager.save(training.state);
  fs::resize_file(newest.path + "/state.pt", fs::file_size(newest.path + "/state.pt") - 1);
  const auto info = manager.load_latest(training.state);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->iteration, 0u);
  EXPECT_EQ(info->skipped.size(), 1u);
}

TEST_F(CheckpointManagerTest, SavesEveryNIterationsEpochsAndOnceWhereTheyMeet) {
  Training training;
  CheckpointManager manager(run_, {.save_every = {.iterations = 3, .epochs = 1}});
  std::vector<uint64_t> saved;
  for (int i = 1; i <= 8; ++i) {
    training.step();
    if (i % 4 == 0) ++training.state.epoch;
    if (manager.save_if_due(training.state)) saved.push_back(training.state.iteration);
    EXPECT_FALSE(manager.save_if_due(training.state)) << "one save serves both";
  }
  manager.wait();
  EXPECT_EQ(saved, (std::vector<uint64_t>{3, 4, 6, 8}));
  EXPECT_EQ(iterations(manager), (std::vector<uint64_t>{8, 6, 4, 3}));
}

TEST_F(CheckpointManagerTest, SavesAfterSoManySeconds) {
  Training training;
  CheckpointManager manager(run_, {.save_every = {.seconds = 0.05}});
  training.step();
  EXPECT_FALSE(manager.save_if_due(training.state));
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_TRUE(manager.save_if_due(training.state));
  EXPECT_FALSE(manager.save_if_due(training.state));
}

TEST_F(CheckpointManagerTest, TheScheduleGoesOnFromTheLoadedIteration) {
  {
    Training training;
    training.state.iteration = 5;
    CheckpointManager(run_).save(training.state);
  }
  Training training;
  CheckpointManager manager(run_, {.save_every = {.iterations = 5}});
  ASSERT_TRUE(manager.load_latest(training.state));
  EXPECT_FALSE(manager.save_if_due(training.state));
  for (int i = 0; i < 4; ++i) {
    training.step();
    EXPECT_FALSE(manager.save_if_due(training.state)) << training.state.iteration;
  }
  training.step();
  EXPECT_TRUE(manager.save_if_due(training.state));
}

TEST_F(CheckpointManagerTest, KeepsTheBestOfAllAndTheNewest) {
  Training training;
  CheckpointManager manager(run_, {.keep = {.last = 1, .best = 2, .metric = "accuracy", .mode = Mode::kMax}});
  const double values[] = {0.9, 0.1, 0.8, 0.2, 0.3, std::numeric_limits<double>::quiet_NaN()};
  for (const double value : values) {
    training.step();
    training.state.set_metric("accuracy", value);
    manager.save(training.state);
  }
  EXPECT_EQ(iterations(manager), (std::vector<uint64_t>{6, 3, 1}));
  EXPECT_EQ(training.state.best_metric, 0.9);
  EXPECT_EQ(fs::read_symlink(run_ + "/best"), "step-000000000001");
  EXPECT_EQ(fs::read_symlink(run_ + "/latest"), "step-000000000006");

  Training loaded;
  const auto best = manager.load_best(loaded.state);
  ASSERT_TRUE(best);
  EXPECT_EQ(best->iteration, 1u);
}

TEST_F(CheckpointManagerTest, ALaterSaveDoesNotCarryAnEarlierMetric) {
  Training training;
  CheckpointManager manager(run_, {.keep = {.best = 1, .metric = "accuracy"}});
  training.step();
  training.state.set_metric("accuracy", 0.7);
  manager.save(training.state);
  training.step();
  manager.save(training.state);
  const auto found = manager.checkpoints();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_TRUE(found[0].metrics.empty());
  EXPECT_EQ(found[1].metrics.at("accuracy"), 0.7);
}

TEST_F(CheckpointManagerTest, ASaveOfTheSameIterationReplaces) {
  Training training;
  CheckpointManager manager(run_);
  training.step();
  manager.save_async(training.state);
  training.state.set_metric("accuracy", 0.25);
  manager.save_async(training.state).wait();
  const auto found = manager.checkpoints();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].metrics.at("accuracy"), 0.25);
}

TEST_F(CheckpointManagerTest, AsynchronousSavesHoldTheValuesAtTheCall) {
  Training training;
  CheckpointManager manager(run_, {.max_pending = 3});
  std::vector<torch::Tensor> weights;
  std::vector<SaveHandle> handles;
  for (int i = 0; i < 12; ++i) {
    training.step();
    weights.push_back(training.weight());
    handles.push_back(manager.save_async(training.state));
    torch::NoGradGuard no_grad;
    training.model->weight.add_(0.125);  // what training does next
  }
  for (size_t i = 0; i < handles.size(); ++i) {
    handles[i].wait();
    EXPECT_EQ(handles[i].status(), SaveStatus::kWritten);
    Training loaded;
    ASSERT_TRUE(manager.load(handles[i].iteration(), loaded.state));
    EXPECT_TRUE(torch::equal(loaded.weight(), weights[i])) << i;
  }
}

TEST_F(CheckpointManagerTest, DestructionWaitsForPendingSaves) {
  Training training;
  {
    CheckpointManager manager(run_, {.max_pending = 4});
    for (int i = 0; i < 4; ++i) {
      training.step();
      manager.save_async(training.state);
    }
  }
  EXPECT_EQ(iterations(CheckpointManager(run_)), (std::vector<uint64_t>{4, 3, 2, 1}));
}

/// Fails every fsync while it lives.
class BrokenDisk : public io::Hook {
 public:
  BrokenDisk() : before_(io::set_hook(this)) {}
  ~BrokenDisk() override { io::set_hook(before_); }
  int before(io::Call& call) override { return call.op == io::Op::kSync ? EIO : 0; }
  void after(const io::Call&, long, int) override {}

 private:
  io::Hook* before_;
};

TEST_F(CheckpointManagerTest, AnAsynchronousErrorIsToldOnceAtTheHandle) {
  Training training;
  CheckpointManager manager(run_);
  manager.save(training.state);
  training.step();
  {
    BrokenDisk broken;
    const SaveHandle handle = manager.save_async(training.state);
    EXPECT_EQ(code_of([&] { handle.wait(); }), ErrorCode::kIo);
    EXPECT_EQ(handle.status(), SaveStatus::kFailed);
    EXPECT_NO_THROW(handle.wait());
  }
  EXPECT_NO_THROW(manager.save(training.state)) << "the run stays usable";
  EXPECT_EQ(iterations(manager), (std::vector<uint64_t>{1, 0}));
}

TEST_F(CheckpointManagerTest, AnAsynchronousErrorIsToldOnceByTheNextCall) {
  Training training;
  CheckpointManager manager(run_);
  manager.save(training.state);
  training.step();
  {
    BrokenDisk broken;
    const SaveHandle handle = manager.save_async(training.state);
    EXPECT_EQ(code_of([&] { manager.wait(); }), ErrorCode::kIo);
    EXPECT_NO_THROW(handle.wait());
  }
  EXPECT_NO_THROW(manager.save_if_due(training.state));
  EXPECT_EQ(iterations(manager), (std::vector<uint64_t>{0}));
}

/// Holds the first fsync until it is let go.
class SlowDisk : public io::Hook {
 public:
  SlowDisk() : before_(io::set_hook(this)) {}
  ~SlowDisk() override { io::set_hook(before_); }
  int before(io::Call& call) override {
    if (call.op == io::Op::kSync) {
      reached = true;
      while (!open) std::this_thread::yield();
    }
    return 0;
  }
  void after(const io::Call&, long, int) override {}
  void wait_until_reached() const {
    while (!reached) std::this_thread::yield();
  }
  std::atomic<bool> reached{false}, open{false};

 private:
  io::Hook* before_;
};

TEST_F(CheckpointManagerTest, SkipAndReplaceSayWhatBecameOfASave) {
  for (const WhenFull policy : {WhenFull::kSkip, WhenFull::kReplace}) {
    const std::string run = run_ + (policy == WhenFull::kSkip ? "-skip" : "-replace");
    Training training;
    CheckpointManager manager(run, {.when_full = policy});
    manager.save(training.state);
    SlowDisk slow;
    training.step();
    const SaveHandle first = manager.save_async(training.state);
    slow.wait_until_reached();
    training.step();
    const SaveHandle second = manager.save_async(training.state);
    training.step();
    const SaveHandle third = manager.save_async(training.state);
    slow.open = true;
    manager.wait();
    EXPECT_EQ(first.status(), SaveStatus::kWritten);
    EXPECT_EQ(second.status(), policy == WhenFull::kSkip ? SaveStatus::kSkipped : SaveStatus::kReplaced);
    EXPECT_EQ(third.status(), policy == WhenFull::kSkip ? SaveStatus::kSkipped : SaveStatus::kWritten);
  }
}

TEST_F(CheckpointManagerTest, ASkippedSaveStaysDue) {
  Training training;
  CheckpointManager manager(run_, {.save_every = {.iterations = 1}, .when_full = WhenFull::kSkip});
  manager.save(training.state);
  {
    SlowDisk slow;
    training.step();
    manager.save_if_due(training.state);
    slow.wait_until_reached();
    training.step();
    EXPECT_EQ(manager.save_if_due(training.state)->status(), SaveStatus::kSkipped);
    slow.open = true;
    manager.wait();
  }
  EXPECT_TRUE(manager.save_if_due(training.state)) << "iteration 2 is still to be saved";
}

TEST_F(CheckpointManagerTest, ASecondWriterIsToldWhoHoldsTheRun) {
  Training training;
  CheckpointManager first(run_), second(run_);
  first.save(training.state);
  try {
    second.save(training.state);
    FAIL() << "two writers";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kLocked);
    EXPECT_NE(std::string(error.what()).find("pid " + std::to_string(::getpid())), std::string::npos) << error.what();
  }
  EXPECT_TRUE(second.load_latest(training.state)) << "readers need no lock";
}

TEST_F(CheckpointManagerTest, LoadsByIterationAndByPathOfAnyRun) {
  Training training;
  std::vector<torch::Tensor> weights;
  {
    CheckpointManager manager(run_);
    for (int i = 0; i < 3; ++i) {
      training.step();
      weights.push_back(training.weight());
      manager.save(training.state);
    }
  }
  Training loaded;
  CheckpointManager other(dir_.path() + "/other");
  const std::string second = run_ + "/step-000000000002";
  for (const std::string& path : {second, second + "/", second + "/state.pt", run_ + "/latest"}) {
    const CheckpointInfo info = other.load(path, loaded.state);
    const size_t index = path == run_ + "/latest" ? 2 : 1;
    EXPECT_TRUE(torch::equal(loaded.weight(), weights[index])) << path;
    EXPECT_EQ(info.iteration, index + 1) << path;
  }
  EXPECT_EQ(code_of([&] { other.load(run_ + "/step-000000000009", loaded.state); }), ErrorCode::kNotFound);
  EXPECT_FALSE(CheckpointManager(run_).load(9, loaded.state));
  ASSERT_TRUE(CheckpointManager(run_).load(1, loaded.state));
  EXPECT_TRUE(torch::equal(loaded.weight(), weights[0]));

  flip_byte(second + "/state.pt", fs::file_size(second + "/state.pt") / 2);
  EXPECT_EQ(code_of([&] { other.load(second, loaded.state); }), ErrorCode::kCorrupt);
}

TEST_F(CheckpointManagerTest, ARewoundRunGoesOnFromItsNewSaves) {
  Training training;
  {
    CheckpointManager manager(run_);
    for (int i = 0; i < 3; ++i) {
      training.step();
      manager.save(training.state);
    }
    ASSERT_TRUE(manager.load(1, training.state));
    training.step();
    manager.save(training.state);
  }
  Training loaded;
  EXPECT_EQ(CheckpointManager(run_).load_latest(loaded.state)->iteration, 2u);
}

TEST_F(CheckpointManagerTest, AFailedLoadTouchesNothing) {
  Training saved;
  CheckpointManager manager(run_);
  saved.step();
  manager.save(saved.state);
  torch::nn::Linear other(5, 3);
  TrainingState state;
  state.add_module("model", *other);
  const torch::Tensor before = other->weight.detach().clone();
  EXPECT_EQ(code_of([&] { manager.load_latest(state); }), ErrorCode::kMismatch);
  EXPECT_TRUE(torch::equal(before, other->weight));
  EXPECT_EQ(state.iteration, 0u);
}

TEST_F(CheckpointManagerTest, WritesAWeightsCopyOnRequest) {
  Training training;
  torch::nn::Linear ema(4, 3);
  training.state.add_module("ema", *ema);
  CheckpointManager manager(run_, {.weights_copy = true});
  const CheckpointInfo info = manager.save(training.state);
  std::ifstream file(info.path + "/weights.safetensors", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_NE(text.find("\"model.weight\""), std::string::npos);
  EXPECT_NE(text.find("\"ema.bias\""), std::string::npos);
  const torch::Tensor weight = training.weight();
  EXPECT_NE(text.find(std::string(static_cast<const char*>(weight.data_ptr()), weight.nbytes())), std::string::npos);
  EXPECT_TRUE(manager.load_latest(training.state));
}

TEST_F(CheckpointManagerTest, ASignalSetsTheFlagOnlyWhileAManagerAsksForIt) {
  {
    CheckpointManager manager(run_, {.stop_on_signals = true});
    EXPECT_FALSE(CheckpointManager::stop_requested());
    std::raise(SIGUSR1);
    EXPECT_TRUE(CheckpointManager::stop_requested());
  }
  {
    CheckpointManager manager(run_, {.stop_on_signals = true});
    EXPECT_FALSE(CheckpointManager::stop_requested()) << "a new run starts afresh";
    std::raise(SIGTERM);
    EXPECT_TRUE(CheckpointManager::stop_requested());
  }
  EXPECT_EQ(std::signal(SIGTERM, SIG_DFL), SIG_DFL) << "the old handler is back";
}

TEST_F(CheckpointManagerTest, OptionsThatMakeNoSenseAreRefused) {
  EXPECT_EQ(code_of([&] { CheckpointManager manager(run_, {.keep = {.best = 3}}); }), ErrorCode::kInvalid);
  EXPECT_EQ(code_of([&] { CheckpointManager manager(run_, {.keep = {.last = 0}}); }), ErrorCode::kInvalid);
  EXPECT_EQ(code_of([&] { CheckpointManager manager(run_, {.save_every = {.iterations = 0}}); }), ErrorCode::kInvalid);
  EXPECT_EQ(code_of([&] { CheckpointManager manager(run_, {.max_pending = 0}); }), ErrorCode::kInvalid);
  EXPECT_EQ(code_of([&] { CheckpointManager manager(""); }), ErrorCode::kInvalid);
}

}  // namespace
}  // namespace ckpt
