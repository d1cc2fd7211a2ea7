// ManagerOptions::average_best.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "ckpt/averager.h"
#include "ckpt/checkpoint_manager.h"
#include "core/run/names.h"
#include "libtorch/state_helpers.h"
#include "libtorch/weights_helpers.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::identical;
using test::mentions;

const ManagerOptions kTwoBest = {.keep = {.last = 1, .metric = "accuracy"}, .average_best = 2};

/// A run whose checkpoint at iteration i has weights of i, and averages of i + 0.5.
struct Made {
  explicit Made(const test::TempDir& folder) : run(folder.path() + "/run") {
    state.add_module("model", *model).add_module("ema", *ema);
  }
  void at(uint64_t iteration, double accuracy) {
    state.iteration = iteration;
    state.set_metric("accuracy", accuracy);
    const torch::NoGradGuard no_grad;
    model->weight.fill_(static_cast<double>(iteration));
    ema->weight.fill_(static_cast<double>(iteration) + 0.5);
  }
  double averaged(const std::string& file = "weights.safetensors") const {
    return ModelState::open(run + "/averaged/" + file).tensor("weight")[0][0].item<double>();
  }
  std::string checkpoint(uint64_t iteration) const { return run + "/" + run::step_name(iteration); }

  std::string run;
  torch::nn::Linear model{torch::nn::LinearOptions(3, 2)}, ema{torch::nn::LinearOptions(3, 2)};
  TrainingState state;
};

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

fs::file_time_type written(const std::string& path) { return fs::last_write_time(path); }

TEST(AverageOfTheBest, IsThereFromTheFirstCheckpointOnAndFollows) {
  const test::TempDir folder;
  Made made(folder);
  CheckpointManager manager(made.run, kTwoBest);
  const auto expect = [&](double average) {
    EXPECT_EQ(made.averaged(), average);
    EXPECT_EQ(made.averaged("ema.safetensors"), average + 0.5);
  };
  const auto save = [&](uint64_t iteration, double accuracy) {
    made.at(iteration, accuracy);
    const CheckpointInfo info = manager.save(made.state);
    EXPECT_TRUE(info.warnings.empty()) << info.warnings.front();
  };
  save(10, 0.5);
  expect(10);
  save(20, 0.4);
  expect(15);
  save(30, 0.3);  // none of the best
  expect(15);
  save(40, 0.4);  // a tie goes to the newer
  expect(25);
  save(50, 0.9);
  expect(30);
  // What the best are made of was kept, beside the newest.
  EXPECT_TRUE(fs::exists(made.checkpoint(10)));
  EXPECT_FALSE(fs::exists(made.checkpoint(40)));
}

TEST(AverageOfTheBest, IsTheAverageOfThoseFilesByteForByte) {
  const test::TempDir folder;
  Made made(folder);
  CheckpointManager manager(made.run, kTwoBest);
  torch::manual_seed(1);
  for (const uint64_t iteration : {1, 2, 3}) {
    made.at(iteration, static_cast<double>(iteration));
    const torch::NoGradGuard no_grad;
    made.model->weight.normal_();
    manager.save(made.state);
  }
  const std::string kept = made.run + "/averaged/weights.safetensors", again = folder.path() + "/again.safetensors";
  const std::string ids = ModelState::open(kept).metadata().at("ckpt.checkpoints");
  Averager::average({made.checkpoint(3), made.checkpoint(2)}, again, {.metadata = {{"ckpt.checkpoints", ids}}});
  EXPECT_EQ(bytes_of(kept), bytes_of(again));
  Averager::average({made.run}, again, {.select = {.best = 2}, .ema = true, .metadata = {{"ckpt.checkpoints", ids}}});
  EXPECT_EQ(bytes_of(made.run + "/averaged/ema.safetensors"), bytes_of(again));
}

TEST(AverageOfTheBest, IsNotMadeAgainAfterARestartUnlessACheckpointWasReplaced) {
  const test::TempDir folder;
  Made made(folder);
  const std::string file = made.run + "/averaged/weights.safetensors";
  {
    CheckpointManager manager(made.run, kTwoBest);
    made.at(10, 0.5);
    manager.save(made.state);
  }
  const auto first = written(file);
  CheckpointManager manager(made.run, kTwoBest);
  made.at(20, 0.6);
  manager.save(made.state);
  EXPECT_NE(written(file), first);
  const auto second = written(file);
  made.at(30, 0.1);
  manager.save(made.state);
  EXPECT_EQ(written(file), second);
  made.at(20, 0.6);
  made.model->weight.data().fill_(100);
  manager.save(made.state);  // the same names, other values
  EXPECT_EQ(made.averaged(), 55);
  fs::remove(file);
  made.at(31, 0.1);
  manager.save(made.state);
  EXPECT_EQ(made.averaged(), 55);
}

TEST(AverageOfTheBest, IsMadeByAsynchronousSavesFromAveragersToo) {
  const test::TempDir folder;
  Made made(folder);
  Averager swa(*made.model);
  TrainingState state;
  state.add_module("model", *made.model).add_averager("ema", swa);
  CheckpointManager manager(made.run, kTwoBest);
  for (const uint64_t iteration : {1, 2, 3}) {
    made.at(iteration, 0);
    swa.update();
    state.iteration = iteration;
    state.set_metric("accuracy", static_cast<double>(iteration));
    manager.save_async(state);
  }
  manager.wait();
  EXPECT_EQ(made.averaged(), 2.5);
  EXPECT_EQ(made.averaged("ema.safetensors"), (1.5 + 2) / 2);
}

TEST(AverageOfTheBest, FailsAsAWarningOfASaveThatSucceeds) {
  const test::TempDir folder;
  Made made(folder);
  CheckpointManager manager(made.run, kTwoBest);
  made.at(10, 0.5);
  manager.save(made.state);
  made.at(20, 0.6);
  made.model->weight.data()[1][2] = std::numeric_limits<float>::quiet_NaN();
  const CheckpointInfo info = manager.save(made.state);
  EXPECT_EQ(info.iteration, 20U);
  EXPECT_EQ(info.warnings.size(), 1U);
  EXPECT_TRUE(mentions(info.warnings, "weights.safetensors was not renewed"));
  EXPECT_TRUE(mentions(info.warnings, "NaN or infinite"));
  EXPECT_EQ(made.averaged(), 10);                     // as it was
  EXPECT_EQ(made.averaged("ema.safetensors"), 15.5);  // its own affair

  fs::remove_all(made.run + "/averaged");
  std::ofstream(made.run + "/averaged") << "in the way";
  made.at(20, 0.6);
  const SaveHandle handle = manager.save_async(made.state);
  handle.wait();
  EXPECT_EQ(handle.status(), SaveStatus::kWritten);
  fs::remove(made.run + "/averaged");
  made.at(30, 0.1);
  manager.save(made.state);  // made up for
  EXPECT_EQ(made.averaged(), 15);
}

TEST(AverageOfTheBest, IsInNobodysWay) {
  const test::TempDir folder;
  Made made(folder);
  {
    CheckpointManager manager(made.run, kTwoBest);
    made.at(10, 0.5);
    manager.save(made.state);
    std::ofstream(made.run + "/averaged/weights.safetensors.tmp-0123456789abcdef0123456789abcdef")
        << "of a dead writer";
    made.at(20, 0.5);
    manager.save(made.state);
    EXPECT_EQ(manager.checkpoints().size(), 2U);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(made.run + "/averaged"), {}), 2);
  CheckpointManager plain(made.run);
  TrainingState state;
  torch::nn::Linear model(3, 2), ema(3, 2);
  state.add_module("model", *model).add_module("ema", *ema);
  EXPECT_EQ(plain.load_latest(state)->iteration, 20U);
  plain.save(state);
  EXPECT_EQ(made.averaged(), 15);  // without the option it stays
}

TEST(AverageOfTheBest, NeedsOptionsThatKeepTheBest) {
  const auto refused = [](const ManagerOptions& options) {
    return error_of([&] { CheckpointManager("run", options); }).code() == ErrorCode::kInvalid;
  };
  EXPECT_TRUE(refused({.average_best = 2}));
  EXPECT_TRUE(refused({.keep = {.metric = "accuracy"}, .average_best = 0}));
  EXPECT_TRUE(refused({.keep = {.best = 1, .metric = "accuracy"}, .average_best = 2}));
  EXPECT_FALSE(refused({.keep = {.best = 2, .metric = "accuracy"}, .average_best = 2}));
}

TEST(AverageOfTheBest, IsLeftOutWithoutTheMetric) {
  const test::TempDir folder;
  Made made(folder);
  CheckpointManager manager(made.run, kTwoBest);
  made.state.iteration = 1;
  EXPECT_TRUE(manager.save(made.state).warnings.empty());
  EXPECT_FALSE(fs::exists(made.run + "/averaged"));
}

}  // namespace
}  // namespace ckpt
