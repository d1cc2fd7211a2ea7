// A run that is stopped at any iteration and resumed in fresh objects ends with the same bits.
#include <gtest/gtest.h>

#include <functional>

#include "ckpt/epoch_sampler.h"
#include "libtorch/state_helpers.h"
#include "support/temp_dir.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::load_state;
using test::save_state;
using test::SmallNet;
using test::TempDir;
using torch::optim::OptimizerParamGroup;

using MakeOptimizer = std::function<std::unique_ptr<torch::optim::Optimizer>(SmallNet&)>;

template <class Optimizer, class Options>
MakeOptimizer one_group(Options options) {
  return [options](SmallNet& net) { return std::make_unique<Optimizer>(net->parameters(), options); };
}

template <class Optimizer, class Options>
MakeOptimizer two_groups(Options options) {
  return [options](SmallNet& net) {
    std::vector<OptimizerParamGroup> groups;
    groups.emplace_back(net->conv->parameters(), std::make_unique<Options>(options));
    Options slower = options;
    slower.lr(options.lr() / 3);
    std::vector<torch::Tensor> rest = net->norm->parameters();
    for (const torch::Tensor& parameter : net->fc->parameters()) rest.push_back(parameter);
    groups.emplace_back(rest, std::make_unique<Options>(slower));
    return std::make_unique<Optimizer>(groups, options);
  };
}

struct Case {
  const char* name;
  MakeOptimizer make;
};

std::vector<Case> cases() {
  using namespace torch::optim;
  return {
      {"SGD", one_group<SGD>(SGDOptions(0.05))},
      {"SGDMomentum", two_groups<SGD>(SGDOptions(0.05).momentum(0.9).nesterov(true).weight_decay(0.01))},
      {"Adam", one_group<Adam>(AdamOptions(0.01).betas({0.8, 0.95}).eps(1e-7).weight_decay(0.02))},
      {"AdamAmsgrad", two_groups<Adam>(AdamOptions(0.01).amsgrad(true))},
      {"AdamW", two_groups<AdamW>(AdamWOptions(0.01).amsgrad(true).weight_decay(0.1))},
      {"RMSprop", one_group<RMSprop>(RMSpropOptions(0.01))},
      {"RMSpropCentered", two_groups<RMSprop>(RMSpropOptions(0.01).centered(true).momentum(0.9).alpha(0.9))},
      {"Adagrad", two_groups<Adagrad>(AdagradOptions(0.05).lr_decay(0.01).initial_accumulator_value(0.1))},
      {"LBFGS", one_group<LBFGS>(LBFGSOptions(0.1).max_iter(4).history_size(3))},
      {"LBFGSStrongWolfe", one_group<LBFGS>(LBFGSOptions(0.5).max_iter(3).line_search_fn("strong_wolfe"))},
  };
}

// All objects of one run.
struct TrainingRun {
  explicit TrainingRun(const MakeOptimizer& make) : optimizer(make(net)), schedule(*optimizer, 2, 0.5) {
    state.add_module("model", *net).add_optimizer("optimizer", *optimizer).add_scheduler("schedule", schedule);
  }

  void step() {
    const torch::Tensor x = torch::randn({4, 1, 6, 6});
    const torch::Tensor target = torch::randint(3, {4}, torch::kLong);
    optimizer->step([&] {
      optimizer->zero_grad();
      torch::Tensor loss = torch::nn::functional::cross_entropy(net->forward(x), target);
      loss.backward();
      return loss;
    });
    schedule.step();
    ++state.iteration;
  }

  SmallNet net;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  torch::optim::StepLR schedule;
  TrainingState state;
};

class OptimizerResume : public testing::TestWithParam<size_t> {};

TEST_P(OptimizerResume, IsBitIdenticalAtEveryIteration) {
  constexpr size_t kIterations = 5;
  const Case which = cases()[GetParam()];
  const TempDir dir;
  const auto path = [&](size_t i) { return dir / ("state" + std::to_string(i)); };
  torch::manual_seed(1);
  TrainingRun whole(which.make);
  for (size_t i = 0; i < kIterations; ++i) {
    save_state(whole.state, path(i));
    whole.step();
  }
  save_state(whole.state, path(kIterations));
  for (size_t stopped = 0; stopped < kIterations; ++stopped) {
    torch::manual_seed(1000 + stopped);
    TrainingRun resumed(which.make);
    if (stopped % 2 == 1) resumed.step();  // also into objects that already have a state
    load_state(resumed.state, path(stopped));
    ASSERT_EQ(resumed.state.iteration, stopped);
    while (resumed.state.iteration < kIterations) resumed.step();
    EXPECT_TRUE(identical(*whole.net, *resumed.net)) << "stopped at " << stopped;
    save_state(resumed.state, dir / "resumed");
    EXPECT_EQ(test::read_all(dir / "resumed"), test::read_all(path(kIterations))) << "stopped at " << stopped;
  }
}

INSTANTIATE_TEST_SUITE_P(AllOptimizers, OptimizerResume, testing::Range(size_t{0}, cases().size()),
                         [](const auto& test_info) { return std::string(cases()[test_info.param].name); });

// The same network with its layers registered, and given to the optimizer, in another order.
struct ReorderedImpl : torch::nn::Module {
  ReorderedImpl() {
    fc = register_module("fc", torch::nn::Linear(64, 3));
    norm = register_module("norm", torch::nn::BatchNorm2d(4));
    conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 4, 3)));
  }
  torch::Tensor forward(torch::Tensor x) { return fc(torch::relu(norm(conv(x))).flatten(1)); }
  torch::nn::Linear fc{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Conv2d conv{nullptr};
};

template <class Net>
void train(Net& net, torch::optim::Optimizer& optimizer, int steps) {
  torch::manual_seed(5);
  for (int i = 0; i < steps; ++i) {
    const torch::Tensor x = torch::randn({4, 1, 6, 6}), target = torch::randint(3, {4}, torch::kLong);
    optimizer.step([&] {
      optimizer.zero_grad();
      torch::Tensor loss = torch::nn::functional::cross_entropy(net.forward(x), target);
      loss.backward();
      return loss;
    });
  }
}

TEST(OptimizerByName, FollowsParametersInAnotherOrder) {
  const TempDir dir;
  SmallNet first;
  first->drop->eval();
  torch::optim::Adam adam(first->parameters(), torch::optim::AdamOptions(0.01));
  train(*first, adam, 3);
  TrainingState state;
  state.add_module("model", *first).add_optimizer("optimizer", adam);
  save_state(state, dir / "state.pt");
  ReorderedImpl second;
  torch::optim::Adam other(second.parameters(), torch::optim::AdamOptions(0.5));
  TrainingState reordered;
  reordered.add_module("model", second).add_optimizer("optimizer", other);
  load_state(reordered, dir / "state.pt");
  train(*first, adam, 2);
  train(second, other, 2);
  EXPECT_TRUE(identical(first->conv->weight, second.conv->weight));
  EXPECT_TRUE(identical(first->fc->bias, second.fc->bias));
}

TEST(OptimizerByName, PermutesTheFlatVectorsOfLbfgs) {
  const TempDir dir;
  SmallNet first;
  first->drop->eval();
  const auto options = torch::optim::LBFGSOptions(0.1).max_iter(3);
  torch::optim::LBFGS lbfgs(first->parameters(), options);
  train(*first, lbfgs, 2);
  TrainingState state;
  state.add_module("model", *first).add_optimizer("optimizer", lbfgs);
  save_state(state, dir / "state.pt");
  ReorderedImpl second;
  torch::optim::LBFGS other(second.parameters(), options);
  TrainingState reordered;
  reordered.add_module("model", second).add_optimizer("optimizer", other);
  load_state(reordered, dir / "state.pt");
  train(*first, lbfgs, 1);
  train(second, other, 1);
  // Dot products add in another order, so not to the last bit; shuffled segments would be far off.
  EXPECT_TRUE(torch::allclose(first->conv->weight, second.conv->weight, 1e-4, 1e-6));
  EXPECT_TRUE(torch::allclose(first->fc->weight, second.fc->weight, 1e-4, 1e-6));
}

TEST(OptimizerByName, RefusesAParameterOfNoModule) {
  SmallNet net;
  std::vector<torch::Tensor> parameters = net->parameters();
  parameters.push_back(torch::zeros({2}, torch::requires_grad()));
  torch::optim::SGD optimizer(parameters, 0.1);
  TrainingState state;
  state.add_module("model", *net).add_optimizer("sgd", optimizer);
  const Error error = error_of([&] { training::capture(state, nullptr); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  EXPECT_NE(error.message().find("part \"sgd\": parameter 6 of group 0"), std::string::npos) << error.what();
}

class Unknown : public torch::optim::Optimizer {
 public:
  explicit Unknown(std::vector<torch::Tensor> parameters)
      : Optimizer({OptimizerParamGroup(std::move(parameters))}, std::make_unique<torch::optim::SGDOptions>(0.1)) {}
  torch::Tensor step(LossClosure) override { return {}; }
};

TEST(OptimizerByName, RefusesAnUnknownType) {
  SmallNet net;
  Unknown optimizer(net->parameters());
  TrainingState state;
  EXPECT_EQ(error_of([&] { state.add_optimizer("o", optimizer); }).code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace ckpt
