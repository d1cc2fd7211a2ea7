// Averagers as a part of a TrainingState.
#include <gtest/gtest.h>

#include "ckpt/averager.h"
#include "ckpt/checkpoint_manager.h"
#include "ckpt/python_checkpoint.h"
#include "core/format/archive.h"
#include "core/run/names.h"
#include "libtorch/state_helpers.h"
#include "libtorch/weights_helpers.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::mentions;

/// A model, its optimizer and its averages, trained by steps that depend on their number alone.
struct Training {
  explicit Training(const AveragerOptions& options = {.decay = 0.8, .start = 2, .every = 3})
      : optimizer(model->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9)), averager(*model, options) {
    model->drop->options.p(0);
    state.add_module("model", *model).add_averager("ema", averager).add_optimizer("optimizer", optimizer);
  }
  void train(int steps) {
    for (int i = 0; i < steps; ++i) {
      torch::Tensor data = torch::arange(8 * 36).to(torch::kFloat32).mul(0.37 * ++state.iteration).sin();
      optimizer.zero_grad();
      model->forward(data.reshape({8, 1, 6, 6})).pow(2).mean().backward();
      optimizer.step();
      averager.update();
    }
  }
  test::SmallNet model;
  torch::optim::SGD optimizer;
  Averager averager;
  TrainingState state;
};

bool same_averages(const Averager& a, const Averager& b) {
  const StateDict x = a.state_dict(), y = b.state_dict();
  if (x.size() != y.size() || a.calls() != b.calls() || a.updates() != b.updates()) return false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i].first != y[i].first || !identical(x[i].second, y[i].second)) return false;
  }
  return true;
}

TEST(AveragerState, GoesOnToTheSameBitsAsAnUninterruptedRun) {
  const test::TempDir folder;
  for (const AveragerOptions& options : {AveragerOptions{.decay = 0.8, .start = 2, .every = 3},
                                         AveragerOptions{.schedule = warmed_up(0.99)}, AveragerOptions{.every = 2}}) {
    const std::string path = folder.path() + "/state.pt";
    torch::manual_seed(1);
    Training whole(options);
    whole.train(7);
    test::save_state(whole.state, path);
    whole.train(9);
    torch::manual_seed(2);
    Training resumed(options);
    test::load_state(resumed.state, path);
    resumed.train(9);
    EXPECT_TRUE(identical(*whole.model, *resumed.model));
    EXPECT_TRUE(same_averages(whole.averager, resumed.averager));
    EXPECT_EQ(resumed.averager.calls(), 16U);
  }
}

TEST(AveragerState, KeepsFloat32AveragesOfAHalfPrecisionModel) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/state.pt";
  torch::manual_seed(1);
  torch::nn::Linear model(4, 3), other(4, 3);
  model->to(torch::kBFloat16);
  other->to(torch::kBFloat16);
  Averager ema(*model, {.decay = 0.9}), restored(*other, {.decay = 0.9});
  ema.update();
  test::fill(*model, 3);
  ema.update();
  TrainingState state, to;
  state.add_module("model", *model).add_averager("ema", ema);
  to.add_module("model", *other).add_averager("ema", restored);
  test::save_state(state, path);
  test::load_state(to, path);
  EXPECT_TRUE(same_averages(ema, restored));
  EXPECT_EQ(restored.state_dict().front().second.scalar_type(), torch::kFloat32);
}

TEST(AveragerState, IsFoundAsAveragedWeightsEverywhere) {
  const test::TempDir folder;
  torch::manual_seed(1);
  Training run;
  run.train(12);
  CheckpointManager manager(folder.path() + "/run", {.weights_copy = true});
  const std::string checkpoint = manager.save(run.state).path;
  const StateDict averages = run.averager.state_dict();

  const auto expect_averages = [&](const ModelState& found) {
    EXPECT_EQ(found.tensors().size(), averages.size());
    for (const auto& [name, average] : averages) EXPECT_TRUE(identical(found.tensor(name), average)) << name;
  };
  expect_averages(ModelState::open(manager.run(), {.ema = true}));
  expect_averages(ModelState::open(checkpoint, {.key = "ema"}));
  EXPECT_TRUE(identical(ModelState::open(manager.run()).tensor("fc.weight"), run.model->fc->weight));
  EXPECT_TRUE(ModelState::open(manager.run(), {.ema = true}).find("fc.weight")->is_parameter);
  EXPECT_FALSE(ModelState::open(manager.run(), {.ema = true}).find("norm.running_mean")->is_parameter);
  const ModelState copy = ModelState::open(checkpoint + "/weights.safetensors");
  EXPECT_TRUE(identical(copy.tensor("ema.fc.weight"),
                        averages.back().first == "fc.bias" ? averages[averages.size() - 2].second : at::Tensor()));

  save_python_checkpoint(run.state, folder.path() + "/python.pt");
  expect_averages(ModelState::open(folder.path() + "/python.pt", {.ema = true}));

  // Plain LibTorch reads the part into a model, empty children and all.
  test::SmallNet plain;
  torch::serialize::InputArchive file, part;
  file.load_from(checkpoint + "/state.pt");
  file.read("ema", part);
  plain->load(part);
  EXPECT_TRUE(identical(plain->fc->weight, averages[averages.size() - 2].second));
  EXPECT_TRUE(plain->fc->weight.requires_grad());

  // And a state with a module of that name.
  test::SmallNet model, ema;
  TrainingState state;
  state.add_module("model", *model).add_module("ema", *ema);
  manager.load(12, state, {.parts = {"model", "ema"}});
  EXPECT_TRUE(identical(*ema, *plain));
}

TEST(AveragerState, TakesAPlainModuleWithANote) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/state.pt", python = folder.path() + "/python.pt";
  torch::manual_seed(1);
  test::SmallNet model, ema;
  TrainingState before;
  before.add_module("model", *model).add_module("ema", *ema);
  before.iteration = 11;
  test::save_state(before, path);
  save_python_checkpoint(before, python);

  const auto expect_taken = [&](Training& run, const LoadReport& report) {
    EXPECT_TRUE(mentions(report.notes, "ema: a plain module in the file, taken as the average of 3 updates"));
    EXPECT_EQ(run.averager.calls(), 11U);
    EXPECT_EQ(run.averager.updates(), 3U);
    for (const auto& [name, average] : run.averager.state_dict()) {
      EXPECT_TRUE(identical(average, ModelState::of(*ema).tensor(name))) << name;
    }
  };
  Training run;
  expect_taken(run, test::load_state(run.state, path, {.parts = {"model", "ema"}}));
  Training second;
  expect_taken(second, load_python_checkpoint(second.state, python, {.parts = {"model", "ema"}}));

  // Not lost to the copy of a first update, however early.
  before.iteration = 0;
  test::save_state(before, path);
  Training early({.decay = 0.5});
  test::load_state(early.state, path, {.parts = {"model", "ema"}});
  EXPECT_EQ(early.averager.updates(), 1U);
}

TEST(AveragerState, RefusesWhatDoesNotFitAndStaysAsItWas) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/state.pt";
  torch::manual_seed(1);
  Training ema;
  ema.train(8);
  test::save_state(ema.state, path);

  Training swa({.every = 2});
  swa.train(4);
  const auto averages = test::copies({swa.averager.state_dict().front().second});
  const Error error = error_of([&] { test::load_state(swa.state, path); });
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_TRUE(mentions(error.details(), "\"ema\": expected an average by swa, found one by \"ema\""));
  EXPECT_TRUE(identical(swa.averager.state_dict().front().second, averages.front()));
  EXPECT_EQ(swa.averager.calls(), 4U);
  EXPECT_EQ(swa.averager.updates(), 2U);

  test::SmallNet wide(7);
  Averager other(*wide, {.decay = 0.8});
  TrainingState state;
  state.add_module("model", *ema.model).add_averager("ema", other);
  const Error shapes = error_of([&] { test::load_state(state, path, {.parts = {"ema"}}); });
  EXPECT_TRUE(mentions(shapes.details(), "\"ema/fc.weight\": expected float32 [7, 64], found float32 [3, 64]"));
  EXPECT_EQ(other.calls(), 0U);
}

TEST(AveragerState, IsNeitherSavedNorLoadedWhileSwappedIn) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/state.pt";
  torch::manual_seed(1);
  Training run;
  run.train(8);
  test::save_state(run.state, path);
  const auto averaged = run.averager.swap_in();
  EXPECT_EQ(error_of([&] { test::save_state(run.state, path); }).code(), ErrorCode::kInvalid);
  const Error error = error_of([&] { test::load_state(run.state, path); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  EXPECT_NE(error.message().find("swapped in"), std::string::npos);
}

TEST(AveragerState, IsSavedAsItIsAtTheCall) {
  const test::TempDir folder;
  torch::manual_seed(1);
  Training run;
  run.train(8);
  const auto averages = test::copies({run.averager.state_dict().front().second});
  CheckpointManager manager(folder.path() + "/run");
  const SaveHandle handle = manager.save_async(run.state);
  run.train(6);
  handle.wait();
  const ModelState saved = ModelState::open(handle.path(), {.ema = true});
  EXPECT_TRUE(identical(saved.tensor(run.averager.state_dict().front().first), averages.front()));
  Training resumed;
  manager.load_latest(resumed.state);
  EXPECT_EQ(resumed.averager.calls(), 8U);
}

TEST(AveragerState, KeepsTiesAndWrappersAsAModuleDoes) {
  const test::TempDir folder;
  const std::string path = folder.path() + "/state.pt";
  torch::manual_seed(1);
  const auto inner = std::make_shared<test::SmallNetImpl>();
  test::Wrapper wrapper("module", inner);
  Averager ema(wrapper, {.decay = 0.5});
  ema.update();
  TrainingState state;
  state.add_averager("ema", ema);
  test::save_state(state, path);
  test::SmallNet plain;
  Averager unwrapped(*plain, {.decay = 0.5});
  TrainingState to;
  to.add_averager("ema", unwrapped);
  test::load_state(to, path);
  EXPECT_TRUE(same_averages(ema, unwrapped));
}

}  // namespace
}  // namespace ckpt
