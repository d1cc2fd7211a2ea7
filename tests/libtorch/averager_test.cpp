#include "ckpt/averager.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "libtorch/state_helpers.h"
#include "libtorch/weights_helpers.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::mentions;

const std::string kGolden = std::string(CKPT_TEST_DATA) + "/averages/averages.safetensors";
constexpr int kGoldenSteps = 6;

/// The model of make_averages.py.
torch::nn::Sequential golden_model() {
  return torch::nn::Sequential(torch::nn::Conv2d(1, 3, 3), torch::nn::BatchNorm2d(3), torch::nn::ReLU(),
                               torch::nn::Flatten(), torch::nn::Linear(3 * 4 * 4, 2), torch::nn::BatchNorm1d(2));
}

at::Tensor named(const StateDict& tensors, const std::string& name) {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return tensor;
  }
  throw std::out_of_range(name);
}

/// Runs the updates of make_averages.py and compares with what Python made of them.
void expect_golden(const std::string& kind, const AveragerOptions& options) {
  const ModelState golden = ModelState::open(kGolden, {.whole = true});
  torch::nn::Sequential model = golden_model();
  Averager averager(*model, options);
  for (int step = 0; step < kGoldenSteps; ++step) {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : state_dict(*model)) {
      tensor.detach().copy_(golden.tensor(std::to_string(step) + "." + name));
    }
    EXPECT_TRUE(averager.update());
  }
  const StateDict averages = averager.state_dict();
  EXPECT_EQ(averages.size(), 14U);
  for (const auto& [name, average] : averages) {
    const at::Tensor expected = golden.tensor(kind + "." + name);
    ASSERT_EQ(average.scalar_type(), expected.scalar_type()) << name;
    if (average.is_floating_point()) {
      EXPECT_TRUE(at::allclose(average, expected, 1e-6, 1e-7)) << kind << " " << name;
    } else {
      EXPECT_TRUE(identical(average, at::full_like(expected, kGoldenSteps - 1))) << name;  // the newest
    }
  }
}

TEST(Averager, IsWhatPythonMakesOfTheSameUpdates) {
  expect_golden("ema", {.decay = 0.9});
  expect_golden("swa", {});
  expect_golden("ema_buffers", {.decay = 0.9, .average_buffers = true});
}

/// A module of one parameter.
struct OneImpl : torch::nn::Module {
  explicit OneImpl(const torch::Tensor& value) : weight(register_parameter("weight", value)) {}
  torch::Tensor weight;
  void set(double value) {
    const torch::NoGradGuard no_grad;
    weight.fill_(value);
  }
};
TORCH_MODULE(One);

double average_of(const Averager& averager) { return averager.state_dict().front().second[0].item<double>(); }

TEST(Averager, FollowsExactSumsInDouble) {
  One model(torch::zeros({3}, torch::kFloat64));
  Averager ema(*model, {.decay = 0.75}), swa(*model);
  double expected = 0, sum = 0;
  for (int i = 0; i < 50; ++i) {
    const double value = std::sin(i) * 10;
    model->set(value);
    ema.update();
    swa.update();
    expected = i == 0 ? value : 0.75 * expected + 0.25 * value;
    sum += value;
  }
  EXPECT_NEAR(average_of(ema), expected, 1e-13);
  EXPECT_NEAR(average_of(swa), sum / 50, 1e-13);
  EXPECT_EQ(ema.state_dict().front().second.scalar_type(), torch::kFloat64);
}

TEST(Averager, MovesInHalfPrecision) {
  for (const auto type : {torch::kBFloat16, torch::kFloat16}) {
    One model(torch::ones({5000}, type));
    Averager ema(*model, {.decay = 0.999});
    ema.update();
    model->set(2);
    double expected = 1;
    for (int i = 0; i < 1000; ++i) {
      ema.update();
      expected = 0.999 * expected + 0.001 * 2;
    }
    const at::Tensor average = ema.state_dict().front().second;
    EXPECT_EQ(average.scalar_type(), torch::kFloat32);
    EXPECT_NEAR(average[0].item<double>(), expected, 1e-4);
    EXPECT_TRUE(at::all(average == average[0]).item<bool>());  // the last ones, too
    EXPECT_GT(expected, 1.6);
  }
}

TEST(Averager, AveragesEveryLayoutAndDtypeAlike) {
  torch::manual_seed(1);
  const auto plain = torch::rand({6, 5, 4, 3}, torch::kFloat64);
  const std::vector<torch::Tensor> forms = {
      plain.to(torch::kFloat32), plain.to(torch::kFloat32).contiguous(torch::MemoryFormat::ChannelsLast),
      plain.transpose(0, 3).contiguous().transpose(0, 3), torch::cat({plain, plain}, 1).narrow(1, 0, 5),
      torch::complex(plain, plain)};
  for (const torch::Tensor& form : forms) {
    One model(form.clone());
    model->weight.set_data(form);
    Averager ema(*model, {.decay = 0.5});
    ema.update();
    {
      const torch::NoGradGuard no_grad;
      model->weight.mul_(3);
    }
    ema.update();
    const at::Tensor average = ema.state_dict().front().second;
    const auto real = torch::is_complex(average) ? torch::real(average) : average;
    EXPECT_TRUE(at::allclose(real.to(torch::kFloat64), plain * 2, 1e-6));
    const torch::NoGradGuard no_grad;
    model->weight.div_(3);
  }
}

TEST(Averager, AveragesLargeTensorsToTheLastElement) {
  One model(torch::rand({3000001}));
  Averager ema(*model, {.decay = 0.75});
  ema.update();
  const torch::Tensor before = model->weight.detach().clone();
  model->set(2);
  ema.update();
  EXPECT_TRUE(at::allclose(ema.state_dict().front().second, before * 0.75 + 0.5, 1e-6));
}

TEST(Averager, TakesEveryNthCallFromTheStartOn) {
  One model(torch::zeros({1}));
  Averager swa(*model, {.start = 3, .every = 2});
  std::vector<int> taken;
  for (int call = 1; call <= 9; ++call) {
    model->set(call);
    if (swa.update()) taken.push_back(call);
  }
  EXPECT_EQ(taken, (std::vector<int>{5, 7, 9}));
  EXPECT_EQ(average_of(swa), 7);
  EXPECT_EQ(swa.calls(), 9U);
  EXPECT_EQ(swa.updates(), 3U);
}

TEST(Averager, TakesTheDecayFromASchedule) {
  EXPECT_DOUBLE_EQ(warmed_up(0.999)(1), 2.0 / 11);
  EXPECT_DOUBLE_EQ(warmed_up(0.999)(100000), 0.999);
  One model(torch::zeros({1}, torch::kFloat64));
  std::vector<uint64_t> asked;
  Averager ema(*model, {.schedule = [&](uint64_t updates) {
    asked.push_back(updates);
    return 1.0 / static_cast<double>(updates + 1);
  }});
  double expected = 0;
  for (int i = 1; i <= 4; ++i) {
    model->set(i);
    ema.update();
    expected = i == 1 ? 1 : expected / i + i * (1 - 1.0 / i);
  }
  EXPECT_EQ(asked, (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_NEAR(average_of(ema), expected, 1e-14);
}

TEST(Averager, KeepsNoGraphAndTheModelsGradients) {
  One model(torch::ones({2}));
  Averager ema(*model, {.decay = 0.5});
  model->weight.sum().backward();
  const torch::Tensor gradient = model->weight.grad();
  ema.update();
  ema.update();
  EXPECT_FALSE(ema.state_dict().front().second.requires_grad());
  { const auto averaged = ema.swap_in(); }
  EXPECT_TRUE(model->weight.requires_grad());
  EXPECT_TRUE(model->weight.is_leaf());
  EXPECT_TRUE(model->weight.grad().is_same(gradient));
}

struct TiedImpl : torch::nn::Module {
  TiedImpl() {
    first = register_module("first", torch::nn::Linear(4, 4));
    second = register_module("second", torch::nn::Linear(4, 4));
    second->weight = second->register_parameter("tied", first->weight);
  }
  torch::nn::Linear first{nullptr}, second{nullptr};
};
TORCH_MODULE(Tied);

TEST(Averager, AveragesTiedParametersOnce) {
  Tied model;
  Averager ema(*model, {.decay = 0.5});
  test::fill(*model, 1);
  ema.update();
  test::fill(*model, 3);
  ema.update();
  const StateDict averages = ema.state_dict();
  EXPECT_TRUE(named(averages, "second.tied").is_same(named(averages, "first.weight")));
  EXPECT_EQ(named(averages, "first.weight")[0][0].item<float>(), 2);
}

TEST(Averager, FollowsTheModelToAnotherDtype) {
  One model(torch::ones({4}));
  Averager ema(*model, {.decay = 0.5});
  ema.update();
  model->set(2);
  ema.update();
  model->to(torch::kFloat64);
  ema.update();
  EXPECT_EQ(ema.state_dict().front().second.scalar_type(), torch::kFloat64);
  EXPECT_EQ(average_of(ema), 1.75);
  model->to(torch::kBFloat16);
  EXPECT_EQ(ema.state_dict().front().second.scalar_type(), torch::kFloat32);
  EXPECT_EQ(average_of(ema), 1.75);
}

TEST(Averager, RefusesAModelThatHasChanged) {
  test::SmallNet model;
  Averager ema(*model, {.decay = 0.5});
  ema.update();
  const auto before = test::copies({named(ema.state_dict(), "fc.weight")});
  test::fill(*model, 7);
  model->register_parameter("scale", torch::ones({1}));
  model->fc->weight.set_data(torch::ones({3, 5}));
  const Error error = error_of([&] { ema.update(); });
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_EQ(error.details().size(), 2U);
  EXPECT_TRUE(mentions(error.details(), "\"scale\": not known when the Averager was made"));
  EXPECT_TRUE(mentions(error.details(), "\"fc.weight\": expected the shape of float32 [3, 64], found float32 [3, 5]"));
  EXPECT_EQ(ema.updates(), 1U);
  model->unregister_module("fc");
  EXPECT_TRUE(mentions(error_of([&] { ema.update(); }).details(), "\"fc.bias\": is no longer in the module"));
}

TEST(Averager, RefusesOptionsThatMakeNoSense) {
  One model(torch::ones({1}));
  const auto refused = [&](const AveragerOptions& options) {
    return error_of([&] { Averager(*model, options); }).code() == ErrorCode::kInvalid;
  };
  EXPECT_TRUE(refused({.decay = 1.0}));
  EXPECT_TRUE(refused({.decay = -0.1}));
  EXPECT_TRUE(refused({.decay = std::numeric_limits<double>::quiet_NaN()}));
  EXPECT_TRUE(refused({.decay = 0.5, .schedule = warmed_up(0.9)}));
  EXPECT_TRUE(refused({.every = 0}));
  Averager ema(*model, {.schedule = [](uint64_t) { return 1.5; }});
  EXPECT_TRUE(ema.update());
  EXPECT_EQ(error_of([&] { ema.update(); }).code(), ErrorCode::kInvalid);
  EXPECT_EQ(ema.updates(), 1U);
  Averager throwing(*model, {.schedule = [](uint64_t) -> double { throw std::domain_error("mine"); }});
  EXPECT_TRUE(throwing.update());
  EXPECT_THROW(throwing.update(), std::domain_error);
}

TEST(Averager, CopiesIntoAnotherModelRounded) {
  One model(torch::ones({3})), other(torch::zeros({3}, torch::kBFloat16));
  Averager ema(*model, {.decay = 0.5});
  model->set(1.0 + 1.0 / 1024);
  ema.update();
  ema.copy_to(*other);
  EXPECT_EQ(other->weight[0].item<float>(), 1.0F);
  EXPECT_TRUE(other->weight.requires_grad());
  One wrong(torch::zeros({4}));
  EXPECT_EQ(error_of([&] { ema.copy_to(*wrong); }).code(), ErrorCode::kMismatch);
}

TEST(SwappedAverages, GiveEveryBitBackAndTheOptimizerGoesOn) {
  torch::manual_seed(3);
  test::SmallNet model, twin;
  copy_weights(*model, *twin);
  model->drop->options.p(0);
  twin->drop->options.p(0);
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  torch::optim::SGD twins(twin->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  const auto step = [&](test::SmallNet& net, torch::optim::SGD& by, const torch::Tensor& data) {
    by.zero_grad();
    net->forward(data).pow(2).mean().backward();
    by.step();
  };
  Averager ema(*model, {.decay = 0.5});
  for (int i = 0; i < 5; ++i) {
    const torch::Tensor data = torch::randn({8, 1, 6, 6});
    step(model, optimizer, data);
    step(twin, twins, data);
    ema.update();
    const auto before = test::copies(test::tensors_of(*model));
    try {
      const auto averaged = ema.swap_in();
      EXPECT_TRUE(identical(model->fc->weight, named(ema.state_dict(), "fc.weight")));
      EXPECT_EQ(i == 0, identical(model->fc->weight, before[4]));  // the first update copies
      model->forward(data);                                        // in training mode: changes the statistics
      throw std::runtime_error("evaluation failed");
    } catch (const std::runtime_error&) {
    }
    const auto after = test::tensors_of(*model);
    for (size_t t = 0; t < after.size(); ++t) EXPECT_TRUE(identical(after[t], before[t]));
  }
  EXPECT_TRUE(identical(*model, *twin));
}

TEST(SwappedAverages, AreRoundedAndKeepTheModelsDtype) {
  One model(torch::full({3}, 0.1, torch::kBFloat16));
  Averager ema(*model, {.decay = 0.75});
  ema.update();
  model->set(0.3);
  ema.update();
  const torch::Tensor before = model->weight.detach().clone();
  {
    const auto averaged = ema.swap_in();
    EXPECT_TRUE(identical(model->weight, ema.state_dict().front().second.to(torch::kBFloat16)));
  }
  EXPECT_TRUE(identical(model->weight, before));
}

TEST(SwappedAverages, AreSwappedInOnce) {
  One model(torch::ones({1}));
  Averager ema(*model, {.decay = 0.5});
  ema.update();
  model->set(5);
  auto averaged = ema.swap_in();
  EXPECT_EQ(error_of([&] { static_cast<void>(ema.swap_in()); }).code(), ErrorCode::kInvalid);
  EXPECT_EQ(error_of([&] { ema.update(); }).code(), ErrorCode::kInvalid);
  EXPECT_EQ(model->weight.item<float>(), 1);
  auto moved = std::move(averaged);
  moved.restore();
  moved.restore();
  EXPECT_EQ(model->weight.item<float>(), 5);
  EXPECT_TRUE(ema.update());
  const auto again = ema.swap_in();
  EXPECT_EQ(model->weight.item<float>(), 3);
}

TEST(SwappedAverages, OutliveTheAverager) {
  One model(torch::ones({1}));
  auto ema = std::make_unique<Averager>(*model, AveragerOptions{.decay = 0.5});
  ema->update();
  model->set(5);
  {
    const auto averaged = ema->swap_in();
    ema.reset();
    EXPECT_EQ(model->weight.item<float>(), 1);
  }
  EXPECT_EQ(model->weight.item<float>(), 5);
}

}  // namespace
}  // namespace ckpt
