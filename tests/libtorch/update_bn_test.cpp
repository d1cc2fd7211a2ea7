#include "ckpt/update_bn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "ckpt/averager.h"
#include "libtorch/state_helpers.h"
#include "libtorch/weights_helpers.h"

#if TORCH_VERSION_MAJOR < 2
// LibTorch 1.13 keeps this to itself, so who derives from its norm layers must have one.
template <size_t D, typename Derived>
void torch::nn::BatchNormImplBase<D, Derived>::pretty_print(std::ostream& stream) const {
  stream << "BatchNorm" << D << "d";
}
#endif

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::mentions;

/// Means and unbiased variances over all of `rows` [N, C], in double.
std::pair<torch::Tensor, torch::Tensor> pooled_over(const std::vector<torch::Tensor>& rows) {
  const torch::Tensor all = torch::cat(rows).to(torch::kFloat64);
  return {all.mean(0), all.var(0, /*unbiased=*/true)};
}

std::vector<torch::Tensor> unequal_batches(const std::vector<int64_t>& shape) {
  torch::manual_seed(7);
  std::vector<torch::Tensor> batches;
  for (const int64_t size : {5, 2, 9}) {
    std::vector<int64_t> sizes = {size};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    batches.push_back(torch::randn(sizes) * 0.5 + static_cast<double>(size) * 10);
  }
  return batches;
}

/// [N, C, ...] as [N * ..., C].
torch::Tensor as_rows(const torch::Tensor& batch) { return batch.transpose(0, 1).flatten(1).t(); }

TEST(UpdateBn, IsWhatPythonMakesOfTheSameBatches) {
  const ModelState golden = ModelState::open(std::string(CKPT_TEST_DATA) + "/averages/batch_norm.safetensors");
  torch::nn::Sequential model(torch::nn::Conv2d(1, 3, 3), torch::nn::BatchNorm2d(3), torch::nn::ReLU(),
                              torch::nn::Flatten(), torch::nn::Linear(3 * 4 * 4, 2),
                              torch::nn::BatchNorm1d(torch::nn::BatchNorm1dOptions(2).momentum(0.3)));
  golden.load_into(*model, {.strict = false, .rename = {{"^model\\.", ""}}});
  const std::vector<torch::Tensor> batches = {golden.tensor("batch0"), golden.tensor("batch1"),
                                              golden.tensor("batch2")};
  model->eval();
  EXPECT_EQ(update_bn(*model, batches, [&](const torch::Tensor& batch) { model->forward(batch); }), 2U);
  for (const auto& [name, tensor] : state_dict(*model)) {
    EXPECT_TRUE(torch::allclose(tensor, golden.tensor("updated." + name), 1e-5, 1e-6)) << name;
  }
  EXPECT_FALSE(model->is_training());
  EXPECT_EQ(model[5]->as<torch::nn::BatchNorm1d>()->options.momentum(), 0.3);
}

TEST(UpdateBn, PoolsOverSamplesOnRequest) {
  torch::nn::BatchNorm1d norm(3);
  const auto batches = unequal_batches({3});
  update_bn(*norm, batches, [&](const torch::Tensor& batch) { norm->forward(batch); }, {.pooled = true});
  const auto [mean, var] = pooled_over(batches);
  EXPECT_TRUE(identical(norm->running_mean, mean.to(torch::kFloat32)));
  EXPECT_TRUE(torch::allclose(norm->running_var.to(torch::kFloat64), var, 1e-7, 0));
  EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), 3);

  // What the mean of variances leaves out here is most of it.
  torch::nn::BatchNorm1d other(3);
  update_bn(*other, batches, [&](const torch::Tensor& batch) { other->forward(batch); });
  EXPECT_LT(other->running_var[0].item<float>() * 10, var[0].item<double>());
  torch::Tensor means = torch::zeros({3}), vars = torch::zeros({3});
  for (const auto& batch : batches) {
    means += batch.mean(0) / 3;
    vars += batch.var(0, true) / 3;
  }
  EXPECT_TRUE(torch::allclose(other->running_mean, means, 1e-6));
  EXPECT_TRUE(torch::allclose(other->running_var, vars, 1e-5));
}

TEST(UpdateBn, PoolsManyPiecesOfOneBatch) {
  torch::nn::BatchNorm2d norm(2);
  torch::manual_seed(2);
  const std::vector<torch::Tensor> batches = {torch::randn({40, 2, 200, 150}) + 1000, torch::randn({3, 2, 200, 150})};
  update_bn(*norm, batches, [&](const torch::Tensor& batch) { norm->forward(batch); }, {.pooled = true});
  const auto [mean, var] = pooled_over({as_rows(batches[0]), as_rows(batches[1])});
  EXPECT_TRUE(torch::allclose(norm->running_mean.to(torch::kFloat64), mean, 1e-7, 0));
  EXPECT_TRUE(torch::allclose(norm->running_var.to(torch::kFloat64), var, 1e-7, 0));
}

struct MyNormImpl : torch::nn::BatchNorm2dImpl {  // a subclass
  using BatchNorm2dImpl::BatchNorm2dImpl;
};
/// A class of the same template, which is no BatchNorm1d, 2d or 3d.
struct OwnNormImpl : torch::nn::BatchNormImplBase<2, OwnNormImpl> {
  using BatchNormImplBase<2, OwnNormImpl>::BatchNormImplBase;
  void _check_input_dim(const torch::Tensor&) override {}
};
/// A module of one's own with nothing in common but the buffers.
struct FreeNormImpl : torch::nn::Module {
  FreeNormImpl() {
    mean = register_buffer("running_mean", torch::zeros({2}));
    var = register_buffer("running_var", torch::ones({2}));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return torch::batch_norm(x, {}, {}, mean, var, is_training(), 0.01, 1e-5, false);
  }
  torch::Tensor mean, var;
};
struct AllNormsImpl : torch::nn::Module {
  AllNormsImpl() {
    one = register_module("one", torch::nn::BatchNorm1d(2));
    two = register_module("two", torch::nn::BatchNorm2d(2));
    three = register_module("three", torch::nn::BatchNorm3d(2));
    mine = register_module("mine", std::make_shared<MyNormImpl>(2));
    own = register_module("own", std::make_shared<OwnNormImpl>(2));
    free = register_module("free", std::make_shared<FreeNormImpl>());
    none = register_module("none", torch::nn::BatchNorm2d(torch::nn::BatchNorm2dOptions(2).track_running_stats(false)));
  }
  void forward(const torch::Tensor& x) {  // [N, 2, H, W]
    one->forward(x.flatten(2));
    two->forward(x);
    three->forward(x.unsqueeze(2));
    mine->forward(x);
    own->forward(x);
    free->forward(x);
    none->forward(x);
  }
  torch::nn::BatchNorm1d one{nullptr};
  torch::nn::BatchNorm2d two{nullptr}, none{nullptr};
  torch::nn::BatchNorm3d three{nullptr};
  std::shared_ptr<MyNormImpl> mine;
  std::shared_ptr<OwnNormImpl> own;
  std::shared_ptr<FreeNormImpl> free;
};
TORCH_MODULE(AllNorms);

TEST(UpdateBn, ReachesEveryKindOfBatchNorm) {
  const auto batches = unequal_batches({2, 4, 3});
  std::vector<torch::Tensor> rows;
  for (const auto& batch : batches) rows.push_back(as_rows(batch));
  const auto [mean, var] = pooled_over(rows);
  AllNorms model;
  const auto forward = [&](const torch::Tensor& batch) { model->forward(batch); };
  EXPECT_EQ(update_bn(*model, batches, forward, {.pooled = true}), 6U);
  size_t checked = 0;
  for (const auto& [name, tensor] : state_dict(*model)) {
    if (name.ends_with("running_mean")) {
      EXPECT_TRUE(torch::allclose(tensor.to(torch::kFloat64), mean, 1e-7, 0)) << ++checked << name;
    } else if (name.ends_with("running_var")) {
      EXPECT_TRUE(torch::allclose(tensor.to(torch::kFloat64), var, 1e-7, 0)) << ++checked << name;
    }
  }
}

TEST(UpdateBn, TakesInstanceNormByInstance) {
  const auto batches = unequal_batches({2, 5});
  const auto make = [] {
    return torch::nn::InstanceNorm1d(torch::nn::InstanceNorm1dOptions(2).track_running_stats(true));
  };
  torch::Tensor means, vars;  // of each instance
  torch::Tensor mean_of_means = torch::zeros({2}, torch::kFloat64);
  for (const auto& batch : batches) {
    const torch::Tensor x = batch.to(torch::kFloat64);
    means = means.defined() ? torch::cat({means, x.mean(2)}) : x.mean(2);
    vars = vars.defined() ? torch::cat({vars, x.var(2, true)}) : x.var(2, true);
    mean_of_means += x.mean(2).mean(0) / 3;
  }
  auto pooled = make(), plain = make();
  EXPECT_EQ(update_bn(*pooled, batches, [&](const auto& batch) { pooled->forward(batch); }, {.pooled = true}), 1U);
  EXPECT_TRUE(torch::allclose(pooled->running_mean.to(torch::kFloat64), means.mean(0), 1e-6));
  EXPECT_TRUE(torch::allclose(pooled->running_var.to(torch::kFloat64), vars.mean(0), 1e-6));
  update_bn(*plain, batches, [&](const auto& batch) { plain->forward(batch); });
  EXPECT_TRUE(torch::allclose(plain->running_mean.to(torch::kFloat64), mean_of_means, 1e-6));
}

TEST(UpdateBn, CountsALayerAsOftenAsItIsUsed) {
  torch::nn::BatchNorm1d norm(2);
  const auto batches = unequal_batches({2});
  update_bn(*norm, batches,
            [&](const torch::Tensor& batch) {
              norm->forward(batch);
              if (batch.size(0) == 2) norm->forward(batch + 1);
            },
            {.pooled = true});
  auto all = batches;
  all.push_back(batches[1] + 1);
  EXPECT_TRUE(torch::allclose(norm->running_var.to(torch::kFloat64), pooled_over(all).second, 1e-6));
  EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), 4);
}

TEST(UpdateBn, DoesNothingWithoutALayerThatTracks) {
  torch::nn::Sequential model(torch::nn::Linear(2, 2), torch::nn::LayerNorm(torch::nn::LayerNormOptions({2})));
  int calls = 0;
  EXPECT_EQ(update_bn(*model, std::vector<int>{1, 2}, [&](int) { ++calls; }), 0U);
  EXPECT_EQ(calls, 0);
}

TEST(UpdateBn, PutsEverythingBackAfterAnException) {
  test::SmallNet model;
  model->train();
  model->norm->eval();
  const torch::Tensor data = torch::randn({4, 1, 6, 6});
  const auto before = test::copies(test::tensors_of(*model));
  const auto expect_unchanged = [&] {
    const auto after = test::tensors_of(*model);
    for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(identical(after[i], before[i]));
    EXPECT_TRUE(model->is_training());
    EXPECT_TRUE(model->drop->is_training());
    EXPECT_FALSE(model->norm->is_training());
    EXPECT_EQ(model->norm->options.momentum(), 0.1);
  };
  int batch = 0;
  EXPECT_THROW(update_bn(*model, std::vector<int>{1, 2, 3},
                         [&](int) {
                           EXPECT_TRUE(model->norm->is_training());
                           EXPECT_FALSE(torch::GradMode::is_enabled());
                           model->forward(data);
                           if (++batch == 2) throw std::runtime_error("no more data");
                         }),
               std::runtime_error);
  expect_unchanged();
  EXPECT_TRUE(torch::GradMode::is_enabled());

  const Error none = error_of([&] { update_bn(*model, std::vector<torch::Tensor>(), [](const auto&) {}); });
  EXPECT_EQ(none.code(), ErrorCode::kInvalid);
  expect_unchanged();

  const torch::Tensor bad = torch::full({4, 1, 6, 6}, std::numeric_limits<float>::quiet_NaN());
  const Error nan = error_of([&] { update_bn(*model, std::vector{data, bad}, [&](auto& x) { model->forward(x); }); });
  EXPECT_EQ(nan.code(), ErrorCode::kInvalid);
  EXPECT_TRUE(mentions(nan.details(), "\"norm\""));
  expect_unchanged();
}

TEST(UpdateBn, RefusesStatisticsThatItCannotSee) {
  struct Hidden : torch::nn::Module {
    Hidden() {
      mean = register_buffer("running_mean", torch::full({2}, 3.0));
      var = register_buffer("running_var", torch::full({2}, 4.0));
    }
    void forward(const torch::Tensor& x) { mean.mul_(0.9).add_(x.mean(0), 0.1); }
    torch::Tensor mean, var;
  } hidden;
  const Error error =
      error_of([&] { update_bn(hidden, unequal_batches({2}), [&](const auto& x) { hidden.forward(x); }); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(hidden.mean[0].item<float>(), 3);
}

TEST(UpdateBn, LeavesLayersThatNoBatchReaches) {
  AllNorms model;
  test::fill(*model, 2);
  const auto batches = unequal_batches({2, 4, 3});
  EXPECT_EQ(update_bn(*model, batches, [&](const auto& x) { model->two->forward(x); }), 1U);
  EXPECT_EQ(model->one->running_mean[0].item<float>(), 2);
  EXPECT_EQ(model->one->num_batches_tracked.item<int64_t>(), 2);
  EXPECT_EQ(model->two->num_batches_tracked.item<int64_t>(), 3);
}

TEST(UpdateBn, ServesSwappedInAverages) {
  torch::manual_seed(4);
  test::SmallNet model;
  Averager ema(*model, {.decay = 0.5});
  ema.update();
  const auto before = test::copies(test::tensors_of(*model));
  {
    const auto averaged = ema.swap_in();
    const std::vector<torch::Tensor> batches = {torch::randn({4, 1, 6, 6}) + 5};
    update_bn(*model, batches, [&](const torch::Tensor& x) { model->forward(x); });
    EXPECT_FALSE(identical(model->norm->running_mean, before[6]));
  }
  const auto after = test::tensors_of(*model);
  for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(identical(after[i], before[i]));
}

}  // namespace
}  // namespace ckpt
