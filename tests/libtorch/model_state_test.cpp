// ModelState: what it tells of a file, and reading tensors from it.
#include <gtest/gtest.h>

#include "libtorch/weights_helpers.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::SmallNet;
using test::TempDir;
using test::write_safetensors;

std::vector<std::string> names_of(const StateDict& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) names.push_back(name);
  return names;
}

const torch::Tensor& at(const StateDict& tensors, const std::string& name) {
  for (const auto& item : tensors) {
    if (item.first == name) return item.second;
  }
  throw std::out_of_range(name);
}

TEST(ModelState, TellsWhatIsInAFile) {
  const TempDir dir;
  write_safetensors(dir / "w", {{"a", torch::ones({2, 3})}, {"b.c", torch::ones({4}, torch::kBFloat16)}},
                    {{"format", "pt"}});
  const auto weights = ModelState::open(dir / "w");
  EXPECT_EQ(weights.format(), Format::kSafetensors);
  EXPECT_EQ(weights.path(), dir / "w");
  EXPECT_EQ(weights.metadata().at("format"), "pt");
  ASSERT_EQ(weights.tensors().size(), 2u);
  const TensorInfo* info = weights.find("b.c");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->dtype, "bfloat16");
  EXPECT_EQ(info->shape, std::vector<int64_t>{4});
  EXPECT_EQ(info->strides, std::vector<int64_t>{1});
  EXPECT_EQ(info->bytes, 8u);
  EXPECT_EQ(info->file, dir / "w");
  EXPECT_TRUE(weights.contains("a"));
  EXPECT_FALSE(weights.contains("c"));
}

TEST(ModelState, ReadsOneTensorOrPartOfOne) {
  const TempDir dir;
  const torch::Tensor a = torch::randn({40, 30, 5}), flags = torch::rand({100}) > 0.5, scalar = torch::tensor(3.5);
  write_safetensors(dir / "w", {{"a", a}, {"flags", flags}, {"scalar", scalar}, {"empty", torch::empty({0, 3})}});
  const auto weights = ModelState::open(dir / "w");
  EXPECT_TRUE(identical(weights.tensor("a"), a));
  EXPECT_TRUE(identical(weights.tensor("flags"), flags));
  EXPECT_TRUE(identical(weights.tensor("scalar"), scalar));
  EXPECT_TRUE(identical(weights.tensor("empty"), torch::empty({0, 3})));
  EXPECT_TRUE(identical(weights.slice("a", 0, 3, 9), a.narrow(0, 3, 6)));
  EXPECT_TRUE(identical(weights.slice("a", 1, 29, 30), a.narrow(1, 29, 1)));
  EXPECT_TRUE(identical(weights.slice("a", 2, 1, 4), a.narrow(2, 1, 3)));
  EXPECT_TRUE(identical(weights.slice("a", 2, 2, 2), a.narrow(2, 2, 0)));
  EXPECT_EQ(error_of([&] { weights.tensor("b"); }).code(), ErrorCode::kNotFound);
  EXPECT_EQ(error_of([&] { weights.slice("b", 0, 0, 1); }).code(), ErrorCode::kNotFound);
  for (const auto& [dim, begin, end] :
       std::vector<std::array<int64_t, 3>>{{3, 0, 1}, {-1, 0, 1}, {0, -1, 2}, {0, 3, 2}, {0, 0, 41}, {2, 5, 6}}) {
    EXPECT_EQ(error_of([&] { weights.slice("a", dim, begin, end); }).code(), ErrorCode::kInvalid)
        << dim << begin << end;
  }
  EXPECT_EQ(error_of([&] { weights.slice("scalar", 0, 0, 1); }).code(), ErrorCode::kInvalid);
}

TEST(ModelState, ReadsAllWithTiesAsOneTensor) {
  const TempDir dir;
  const torch::Tensor a = torch::randn({3, 4}), b = torch::arange(7);
  write_safetensors(dir / "w", {{"a", a}, {"b", b}}, {{"head.weight", "a"}});  // as safetensors' save_model says ties
  const auto weights = ModelState::open(dir / "w");
  ASSERT_NE(weights.find("head.weight"), nullptr);
  EXPECT_EQ(weights.find("head.weight")->tied_to, "a");
  const StateDict all = weights.state_dict();
  EXPECT_EQ(all.size(), 3u);
  EXPECT_TRUE(identical(at(all, "a"), a));
  EXPECT_TRUE(identical(at(all, "b"), b));
  EXPECT_TRUE(at(all, "head.weight").is_same(at(all, "a")));
}

TEST(ModelState, RefusesWhatIsNoFileOfWeights) {
  const TempDir dir;
  test::write_all(dir / "text", "these are no weights\n");
  test::write_all(dir / "empty", "");
  test::write_all(dir / "text.pth", "these are no weights\n");
  EXPECT_EQ(error_of([&] { ModelState::open(dir / "text"); }).code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of([&] { ModelState::open(dir / "text.pth"); }).code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of([&] { ModelState::open(dir / "empty"); }).code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of([&] { ModelState::open(dir / "absent"); }).code(), ErrorCode::kNotFound);
}

TEST(ModelState, NamesTheTensorsOfAModuleAsPythonDoes) {
  struct Net : torch::nn::Module {
    Net() {
      register_module("first", torch::nn::BatchNorm2d(2));
      register_module("skip", torch::nn::Functional(torch::relu));
      register_buffer("scale", torch::ones({1}));
      register_module("linear", torch::nn::Linear(torch::nn::LinearOptions(2, 2).bias(false)));
      register_parameter("own", torch::zeros({2}));
    }
  } net;
  EXPECT_EQ(names_of(state_dict(net)),
            (std::vector<std::string>{"own", "scale", "first.weight", "first.bias", "first.running_mean",
                                      "first.running_var", "first.num_batches_tracked", "linear.weight"}));
  const auto inner = std::make_shared<torch::nn::LinearImpl>(2, 3);
  test::Wrapper compiled("_orig_mod", inner), parallel("module", inner);
  EXPECT_EQ(names_of(state_dict(compiled)), (std::vector<std::string>{"weight", "bias"}));
  EXPECT_EQ(names_of(state_dict(parallel)), (std::vector<std::string>{"weight", "bias"}));
  EXPECT_TRUE(at(state_dict(parallel), "weight").is_same(inner->weight));
}

TEST(ModelState, RefersToLiveTensors) {
  SmallNet net;
  const auto weights = ModelState::of(*net);
  EXPECT_EQ(weights.format(), std::nullopt);
  EXPECT_EQ(weights.path(), "");
  ASSERT_NE(weights.find("norm.running_var"), nullptr);
  EXPECT_FALSE(weights.find("norm.running_var")->is_parameter);
  EXPECT_TRUE(weights.find("conv.weight")->is_parameter);
  EXPECT_EQ(weights.find("norm.num_batches_tracked")->dtype, "int64");
  EXPECT_TRUE(weights.tensor("conv.weight").is_same(net->conv->weight));
  EXPECT_TRUE(identical(weights.slice("conv.weight", 0, 1, 3), net->conv->weight.narrow(0, 1, 2)));
  const torch::Tensor tied = torch::zeros({2});
  EXPECT_EQ(ModelState::of({{"a", tied}, {"b", tied}, {"c", torch::zeros({2})}}).find("b")->tied_to, "a");

  const Error error = error_of([&] {
    ModelState::of({{"a", tied}, {"sparse", torch::eye(3).to_sparse()}, {"none", torch::Tensor()}});
  });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error.details().size(), 2u);
  EXPECT_EQ(error_of([&] { ModelState::of({{"a", tied}, {"a", tied}}); }).code(), ErrorCode::kInvalid);
}

}  // namespace
}  // namespace ckpt
