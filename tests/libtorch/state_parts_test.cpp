// The parts of a state that are no weights: generators, schedulers, samplers, scalers, custom objects, numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "ckpt/epoch_sampler.h"
#include "ckpt/stateful.h"
#include "libtorch/bridge/version.h"
#include "libtorch/state_helpers.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::load_state;
using test::mentions;
using test::save_state;
using test::SmallNet;
using test::TempDir;

TEST(StateParts, RestoresTheGenerator) {
  const TempDir dir;
  torch::manual_seed(17);
  torch::randn({3});  // half a pair of normal numbers is kept in the generator too
  TrainingState state;
  save_state(state, dir / "state.pt");
  const torch::Tensor next = torch::randn({5});
  torch::manual_seed(99);
  load_state(state, dir / "state.pt");
  EXPECT_TRUE(identical(torch::randn({5}), next));
}

TEST(StateParts, KeepsNumbersToTheLastBit) {
  const TempDir dir;
  TrainingState state;
  state.epoch = 3;
  state.iteration = (uint64_t{1} << 53) + 1;
  state.best_metric = 0.1 + 0.2;
  state.metadata = {{"name", "a \"quoted\" größe"}, {"list", {1, 2.5, nullptr}}, {"big", UINT64_MAX}};
  state.set_metric("accuracy", 1.0 / 3);
  state.set_metric("loss", std::nan(""));
  state.set_metric("tiny", -5e-324);
  state.set_metric("inf", -std::numeric_limits<double>::infinity());
  save_state(state, dir / "state.pt");
  TrainingState other;
  other.set_metric("stale", 1);
  load_state(other, dir / "state.pt");
  EXPECT_EQ(other.epoch, 3u);
  EXPECT_EQ(other.iteration, (uint64_t{1} << 53) + 1);
  EXPECT_EQ(other.best_metric, 0.1 + 0.2);
  EXPECT_EQ(other.metadata, state.metadata);
  auto metrics = other.metrics();
  EXPECT_EQ(metrics.size(), 4u);
  EXPECT_EQ(metrics["accuracy"], 1.0 / 3);
  EXPECT_TRUE(std::isnan(metrics["loss"]));
  EXPECT_EQ(metrics["tiny"], -5e-324);
  EXPECT_EQ(metrics["inf"], -std::numeric_limits<double>::infinity());
}

TEST(StateParts, DropsAMetricOfAnEarlierIteration) {
  TrainingState state;
  state.iteration = 10;
  state.set_metric("accuracy", 0.5);
  EXPECT_EQ(training::capture(state, nullptr).head().metrics.at("accuracy"), 0.5);
  ++state.iteration;
  EXPECT_TRUE(training::capture(state, nullptr).head().metrics.empty());
  state.set_metric("loss", 2);
  EXPECT_EQ(state.metrics(), (std::map<std::string, double>{{"loss", 2}}));
}

TEST(StateParts, RestoresTheScaler) {
  const TempDir dir;
  GradScalerState scaler{1024, 3, 0.25, 7, 5}, fresh;
  TrainingState state, other;
  state.add_scaler("scaler", scaler);
  other.add_scaler("scaler", fresh);
  save_state(state, dir / "state.pt");
  load_state(other, dir / "state.pt");
  EXPECT_EQ(fresh.scale, 1024);
  EXPECT_EQ(fresh.growth_factor, 3);
  EXPECT_EQ(fresh.backoff_factor, 0.25);
  EXPECT_EQ(fresh.growth_interval, 7);
  EXPECT_EQ(fresh.growth_tracker, 5);
}

#if CKPT_HAS_PLATEAU_SCHEDULER
TEST(StateParts, RestoresReduceLROnPlateau) {
  const TempDir dir;
  SmallNet net;
  using Plateau = torch::optim::ReduceLROnPlateauScheduler;
  struct Run {
    explicit Run(SmallNet& model, float factor = 0.5)
        : sgd(model->parameters(), 1.0), plateau(sgd, Plateau::min, factor, 1, 1e-4, Plateau::rel, 1) {
      state.add_module("model", *model).add_optimizer("optimizer", sgd).add_scheduler("plateau", plateau);
    }
    double step(float loss) {
      plateau.step(loss);
      return sgd.param_groups()[0].options().get_lr();
    }
    torch::optim::SGD sgd;
    Plateau plateau;
    TrainingState state;
  };
  const std::vector<float> losses = {1.0f, 0.5f, 0.6f, 0.7f, 0.8f, 0.55f, 0.9f, 0.9f, 0.4f, 0.5f, 0.5f, 0.5f};
  Run whole(net);
  std::vector<double> rates;
  for (size_t i = 0; i < losses.size(); ++i) {
    save_state(whole.state, dir / std::to_string(i));
    rates.push_back(whole.step(losses[i]));
  }
  EXPECT_LT(rates.back(), 0.5);
  for (size_t stopped = 0; stopped < losses.size(); ++stopped) {
    Run resumed(net);
    load_state(resumed.state, dir / std::to_string(stopped));
    for (size_t i = stopped; i < losses.size(); ++i) EXPECT_EQ(resumed.step(losses[i]), rates[i]) << stopped;
  }
  Run other(net, 0.25f);
  EXPECT_TRUE(mentions(error_of([&] { load_state(other.state, dir / "0"); }).details(), "expected factor 0.25"));
}
#endif

// An optimizer of one's own: momentum by parameter name, and a count.
class Custom : public Stateful {
 public:
  explicit Custom(std::vector<torch::Tensor> all) : parameters(std::move(all)), momentum(parameters.size()) {}

  std::string type() const override { return "my::Optimizer"; }
  StatefulValues capture(const ParameterNames& names) const override {
    StatefulValues result;
    result.values = {{"steps", steps}};
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (momentum[i].defined()) result.tensors.emplace_back(*names.name_of(parameters[i]), momentum[i]);
    }
    return result;
  }
  std::vector<std::string> check(const StatefulValues& stored, const ParameterNames& names) const override {
    std::vector<std::string> problems;
    for (const auto& [name, tensor] : stored.tensors) {
      const torch::Tensor live = names.tensor_of(name);
      EXPECT_TRUE(tensor.is_meta());
      if (!live.defined() || live.sizes() != tensor.sizes()) problems.push_back("no such parameter: " + name);
    }
    return problems;
  }
  void restore(StatefulValues stored, const ParameterNames& names) override {
    steps = stored.values.at("steps").get<int>();
    for (auto& [name, tensor] : stored.tensors) {
      for (size_t i = 0; i < parameters.size(); ++i) {
        if (parameters[i].is_same(names.tensor_of(name))) momentum[i] = tensor;
      }
    }
  }

  std::vector<torch::Tensor> parameters, momentum;
  int steps = 0;
};

TEST(StateParts, RestoresCustomParts) {
  const TempDir dir;
  SmallNet saved, live;
  auto custom = std::make_shared<Custom>(saved->parameters());
  custom->steps = 12;
  for (size_t i = 0; i < 3; ++i) custom->momentum[i] = torch::randn_like(custom->parameters[i]);
  TrainingState state, other;
  state.add_module("model", *saved).add_custom("mine", custom);
  StagingBuffer staging;
  save_state(state, dir / "state.pt", &staging);
  std::vector<torch::Tensor> reversed = live->parameters();
  std::reverse(reversed.begin(), reversed.end());
  auto fresh = std::make_shared<Custom>(reversed);
  other.add_module("model", *live).add_custom("mine", fresh);
  load_state(other, dir / "state.pt");
  EXPECT_EQ(fresh->steps, 12);
  for (size_t i = 0; i < 6; ++i) EXPECT_TRUE(identical(fresh->momentum[5 - i], custom->momentum[i])) << i;

  SmallNet wider(9);
  auto misfit = std::make_shared<Custom>(wider->parameters());
  custom->momentum[5] = torch::zeros({3});
  save_state(state, dir / "state.pt");
  TrainingState wrong;
  wrong.add_module("model", *wider).add_custom("mine", misfit);
  const Error error = error_of([&] { load_state(wrong, dir / "state.pt", {.exclude = {"fc"}}); });
  EXPECT_TRUE(mentions(error.details(), "no such parameter: model/fc.bias"));
  EXPECT_EQ(misfit->steps, 0);
}

std::vector<int64_t> consume(EpochSampler& sampler, uint64_t epoch, size_t batch_size, size_t batches,
                             size_t workers = 0) {
  struct Indices : torch::data::datasets::Dataset<Indices> {
    torch::data::Example<> get(size_t index) override {
      return {torch::tensor(static_cast<int64_t>(index)), torch::tensor(0)};
    }
    torch::optional<size_t> size() const override { return 50; }
  };
  auto loader = torch::data::make_data_loader(Indices().map(torch::data::transforms::Stack<>()), sampler.from(epoch),
                                              torch::data::DataLoaderOptions(batch_size).workers(workers));
  std::vector<int64_t> seen;
  for (auto& batch : *loader) {
    if (batches == 0) break;
    --batches;
    for (int64_t i = 0; i < batch.data.size(0); ++i) seen.push_back(batch.data[i].item<int64_t>());
    sampler.consumed(1);
  }
  return seen;
}

TEST(EpochSampler, ResumesInsideAnEpochWithAnyNumberOfWorkers) {
  const TempDir dir;
  EpochSampler whole(50, 7);
  const std::vector<int64_t> first = consume(whole, 0, 8, 100), second = consume(whole, 1, 8, 100);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 50u);
  EXPECT_NE(first, second);
  for (size_t workers : {0, 3}) {
    for (size_t stopped = 0; stopped <= 7; ++stopped) {
      EpochSampler sampler(50, 7), resumed(50, 1);
      consume(sampler, 0, 8, 100, workers);
      std::vector<int64_t> seen = consume(sampler, 1, 8, stopped, workers);
      TrainingState state, other;
      state.add_sampler("data", sampler);
      other.add_sampler("data", resumed);
      save_state(state, dir / "state.pt");
      load_state(other, dir / "state.pt");
      for (int64_t index : consume(resumed, 1, 8, 100, workers)) seen.push_back(index);
      EXPECT_EQ(seen, second) << "stopped after " << stopped << " batches, " << workers << " workers";
      EXPECT_EQ(resumed.seed(), 7u);
    }
  }
}

TEST(EpochSampler, KeepsItsPlaceWhenTheBatchSizeChanges) {
  EpochSampler whole(50, 7), changed(50, 7);
  const std::vector<int64_t> all = consume(whole, 0, 8, 100);
  std::vector<int64_t> seen = consume(changed, 0, 8, 2);
  for (int64_t index : consume(changed, 0, 5, 3)) seen.push_back(index);
  EXPECT_EQ(changed.examples_consumed(), 31u);
  for (int64_t index : consume(changed, 0, 32, 100)) seen.push_back(index);
  EXPECT_EQ(seen, all);
  EXPECT_TRUE(consume(changed, 0, 32, 100).empty()) << "the epoch is over";
}

TEST(EpochSampler, GivesTheOwnOrderWithoutShuffling) {
  EpochSampler sampler(50, 7, /*shuffle=*/false);
  const std::vector<int64_t> seen = consume(sampler, 4, 7, 100);
  ASSERT_EQ(seen.size(), 50u);
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], static_cast<int64_t>(i));
}

}  // namespace
}  // namespace ckpt
