// Loading weights into live tensors: all or nothing, everything wrong told at once, and what WeightLoadOptions allow.
#include <gtest/gtest.h>

#include "libtorch/weights_helpers.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::mentions;
using test::SmallNet;
using test::TempDir;
using test::write_safetensors;

using Names = std::vector<std::string>;

TEST(ModelLoad, GivesAModuleTheValuesOfAFile) {
  const TempDir dir;
  SmallNet saved, live;
  test::fill(*saved->norm, 5);  // buffers, an integer among them
  write_safetensors(dir / "w", state_dict(*saved));
  const LoadReport report = ModelState::open(dir / "w").load_into(*live);
  EXPECT_TRUE(identical(*saved, *live));
  EXPECT_EQ(report.loaded.size(), 9u);
  EXPECT_TRUE(report.missing.empty() && report.unexpected.empty() && report.mismatched.empty());
  EXPECT_TRUE(live->conv->weight.requires_grad() && live->conv->weight.is_leaf());
}

TEST(ModelLoad, TouchesNothingWhenItFailsAndTellsAllProblems) {
  const TempDir dir;
  SmallNet saved(3), live(5);
  StateDict stored = state_dict(*saved);
  stored.emplace_back("extra", torch::ones({2, 2}));
  write_safetensors(dir / "w", stored);
  live->register_parameter("scale", torch::ones({2}));
  live->norm->to(torch::kDouble);
  const auto before = test::copies(test::tensors_of(*live));
  const Error error = error_of([&] { ModelState::open(dir / "w").load_into(*live); });
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_EQ(error.path(), dir / "w");
  for (const char* expected :
       {"\"fc.weight\": expected float32 [5, 64], found float32 [3, 64]",
        "\"norm.weight\": expected float64 [4], found float32 [4]", "\"scale\": expected float32 [2], not in the file",
        "\"extra\": not expected, the file has float32 [2, 2]"}) {
    EXPECT_TRUE(mentions(error.details(), expected)) << expected;
  }
  EXPECT_EQ(error.details().size(), 9u);  // fc 2, norm 5, scale, extra
  const auto after = test::tensors_of(*live);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(identical(before[i], after[i])) << i;
}

TEST(ModelLoad, TakesTheNamesThatBothHaveWhenNotStrict) {
  const TempDir dir;
  write_safetensors(dir / "w", {{"a", torch::ones({2})}, {"b", torch::ones({2})}});
  const auto weights = ModelState::open(dir / "w");
  const torch::Tensor b = torch::zeros({2}), c = torch::zeros({2});
  const LoadReport report = weights.load_into({{"b", b}, {"c", c}}, {.strict = false});
  EXPECT_EQ(report.loaded, Names{"b"});
  EXPECT_EQ(report.missing, Names{"c"});
  EXPECT_EQ(report.unexpected, Names{"a"});
  EXPECT_EQ(b.sum().item<float>(), 2.0f);
  EXPECT_EQ(c.sum().item<float>(), 0.0f);
  // A shape that differs is no question of names.
  const torch::Tensor wide = torch::zeros({3});
  EXPECT_EQ(error_of([&] { weights.load_into({{"b", wide}}, {.strict = false}); }).code(), ErrorCode::kMismatch);
}

TEST(ModelLoad, LeavesOutWhatIsExcludedAndWhatMayBeMissing) {
  const TempDir dir;
  SmallNet saved(3), live(5);
  test::fill(*live, 7);
  live->register_parameter("scale", torch::ones({2}));
  write_safetensors(dir / "w", state_dict(*saved));
  const auto weights = ModelState::open(dir / "w");
  const LoadReport report = weights.load_into(*live, {.exclude = {"^fc\\."}, .may_be_missing = {"scale"}});
  EXPECT_TRUE(identical(saved->conv->weight, live->conv->weight));
  EXPECT_EQ(live->fc->weight.sum().item<float>(), 7.0f * 5 * 64);
  EXPECT_EQ(report.loaded.size(), 7u);
  EXPECT_EQ(report.missing, Names{"scale"});
  EXPECT_TRUE(report.mismatched.empty() && report.unexpected.empty());
  for (const WeightLoadOptions& bad :
       {WeightLoadOptions{.exclude = {"("}}, WeightLoadOptions{.may_be_missing = {"["}},
        WeightLoadOptions{.rename = {{"*", ""}}}, WeightLoadOptions{.rename = {{"a", "\\1"}}}}) {
    EXPECT_EQ(error_of([&] { weights.load_into(*live, bad); }).code(), ErrorCode::kInvalid);
  }
}

TEST(ModelLoad, RenamesByRulesInOrder) {
  const TempDir dir;
  write_safetensors(dir / "w", {{"enc.0.gamma", torch::full({2}, 1.0)}, {"enc.1.gamma", torch::full({2}, 2.0)}});
  const auto weights = ModelState::open(dir / "w");
  const torch::Tensor a = torch::zeros({2}), b = torch::zeros({2});
  weights.load_into({{"layers.0.weight", a}, {"layers.1.weight", b}},
                    {.rename = {{"^enc\\.(\\d+)", "blocks.\\1"}, {"^blocks", "layers"}, {"gamma$", "weight"}}});
  EXPECT_EQ(a.sum().item<float>(), 2.0f);
  EXPECT_EQ(b.sum().item<float>(), 4.0f);
  const Error error = error_of([&] { weights.load_into({{"x", a}}, {.rename = {{"^.*$", "x"}}}); });
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_EQ(error.tensor(), "x");
}

TEST(ModelLoad, SkipsOtherShapesOnRequestAlone) {
  const TempDir dir;
  SmallNet saved(3), live(5);
  write_safetensors(dir / "w", state_dict(*saved));
  const torch::Tensor fc = live->fc->weight.detach().clone();
  const LoadReport report = ModelState::open(dir / "w").load_into(*live, {.skip_shape_mismatch = true});
  EXPECT_TRUE(identical(saved->conv->weight, live->conv->weight));
  EXPECT_TRUE(identical(fc, live->fc->weight));
  ASSERT_EQ(report.mismatched.size(), 2u);
  EXPECT_EQ(report.mismatched[0].name, "fc.weight");
  EXPECT_EQ(report.mismatched[0].expected, "float32 [5, 64]");
  EXPECT_EQ(report.mismatched[0].actual, "float32 [3, 64]");
  EXPECT_EQ(report.loaded.size(), 7u);
}

TEST(ModelLoad, ConvertsDtypesOnRequestAlone) {
  const TempDir dir;
  const torch::Tensor wide = torch::randn({1000, 700}, torch::kDouble), half = wide.to(torch::kHalf);
  const torch::Tensor ints = torch::arange(50), flags = torch::arange(50).remainder(3) == 0;
  write_safetensors(dir / "w", {{"wide", wide}, {"half", half}, {"ints", ints}, {"flags", flags}});
  const auto weights = ModelState::open(dir / "w");
  const torch::Tensor a = torch::zeros({1000, 700}), b = torch::zeros({700, 1000}, torch::kBFloat16).t();
  const torch::Tensor c = torch::zeros({50}), d = torch::zeros({50}, torch::kInt);
  const StateDict live = {{"wide", a}, {"half", b}, {"ints", c}, {"flags", d}};
  EXPECT_EQ(error_of([&] { weights.load_into(live); }).details().size(), 4u);
  EXPECT_EQ(a.abs().sum().item<float>(), 0.0f);
  weights.load_into(live, {.convert_dtype = true});
  EXPECT_TRUE(identical(a, wide.to(torch::kFloat)));
  EXPECT_TRUE(identical(b, half.to(torch::kBFloat16)));
  EXPECT_TRUE(identical(c, ints.to(torch::kFloat)));
  EXPECT_TRUE(identical(d, flags.to(torch::kInt)));
  const torch::Tensor whole = torch::zeros({1000, 700}, torch::kLong), bools = torch::zeros({50}, torch::kBool);
  EXPECT_EQ(error_of([&] {
              weights.load_into({{"wide", whole}, {"ints", bools}}, {.strict = false, .convert_dtype = true});
            })
                .details()
                .size(),
            2u);
}

TEST(ModelLoad, GivesTiedTensorsOneValue) {
  const TempDir dir;
  const torch::Tensor values = torch::randn({3, 4});
  write_safetensors(dir / "one", {{"embed", values}});
  write_safetensors(dir / "equal", {{"embed", values}, {"head", values.clone()}});
  write_safetensors(dir / "different", {{"embed", values}, {"head", torch::randn({3, 4})}});
  for (const char* name : {"one", "equal"}) {
    const torch::Tensor live = torch::zeros({3, 4});
    ModelState::open(dir / name).load_into({{"embed", live}, {"head", live}});
    EXPECT_TRUE(identical(live, values)) << name;
  }
  const torch::Tensor live = torch::zeros({3, 4});
  const Error error = error_of([&] {
    ModelState::open(dir / "different").load_into({{"embed", live}, {"head", live}});
  });
  EXPECT_TRUE(mentions(error.details(), "expected the same values as \"embed\" (tied)"));
  EXPECT_EQ(live.abs().sum().item<float>(), 0.0f);
}

TEST(ModelLoad, SeesThroughWrappersOnBothSides) {
  const TempDir dir;
  SmallNet saved, live;
  StateDict wrapped;
  for (const auto& [name, tensor] : state_dict(*saved)) wrapped.emplace_back("module._orig_mod." + name, tensor);
  write_safetensors(dir / "wrapped", wrapped);
  write_safetensors(dir / "bare", state_dict(*saved));
  ModelState::open(dir / "wrapped").load_into(*live);
  EXPECT_TRUE(identical(*saved, *live));
  test::fill(*live, 0);
  test::Wrapper parallel("module", std::make_shared<test::Wrapper>("_orig_mod", live.ptr()));
  const LoadReport report = ModelState::open(dir / "bare").load_into(parallel);
  EXPECT_TRUE(identical(*saved, *live));
  EXPECT_EQ(report.loaded.front(), "conv.weight");
  test::fill(*live, 0);
  StateDict listed;
  for (const auto& [name, tensor] : state_dict(*live)) listed.emplace_back("module." + name, tensor);
  ModelState::open(dir / "bare").load_into(listed);
  EXPECT_TRUE(identical(*saved, *live));
}

TEST(ModelLoad, WritesIntoMemoryOfAnyForm) {
  const TempDir dir;
  const torch::Tensor image = torch::randn({8, 3, 5, 7}), matrix = torch::randn({300, 200}),
                      flags = torch::rand({50}) > 0.5;
  write_safetensors(dir / "w", {{"image", image}, {"matrix", matrix}, {"flags", flags}, {"part", matrix}});
  const torch::Tensor base = torch::zeros({400, 300});
  const torch::Tensor channels_last = torch::zeros({8, 3, 5, 7}).contiguous(torch::MemoryFormat::ChannelsLast);
  const torch::Tensor swapped = torch::zeros({200, 300}).t(), part = base.narrow(0, 50, 300).narrow(1, 7, 200);
  const torch::Tensor gaps = torch::zeros({100}, torch::kBool).slice(0, 0, 100, 2);
  ModelState::open(dir / "w").load_into(
      {{"image", channels_last}, {"matrix", swapped}, {"flags", gaps}, {"part", part}});
  EXPECT_TRUE(identical(channels_last, image));
  EXPECT_TRUE(channels_last.is_contiguous(torch::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(identical(swapped, matrix));
  EXPECT_TRUE(identical(gaps, flags));
  EXPECT_TRUE(identical(part, matrix));
  EXPECT_EQ(base.narrow(1, 0, 7).abs().sum().item<float>(), 0.0f);
  EXPECT_EQ(base.narrow(0, 0, 50).abs().sum().item<float>(), 0.0f);

  const torch::Tensor expanded = torch::zeros({1, 200}).expand({300, 200});
  EXPECT_TRUE(mentions(error_of([&] {
                         ModelState::open(dir / "w").load_into({{"matrix", expanded}}, {.strict = false});
                       }).details(),
                       "expanded"));
}

TEST(ModelLoad, IsNoticedByAutograd) {
  const TempDir dir;
  SmallNet net;
  write_safetensors(dir / "w", state_dict(*net));
  const torch::Tensor loss = net->fc(torch::randn({1, 64}).requires_grad_()).pow(2).sum();
  ModelState::open(dir / "w").load_into(*net);
  EXPECT_ANY_THROW(loss.backward()) << "the saved weight was overwritten";
}

TEST(ModelLoad, CopiesFromOneModuleToAnother) {
  SmallNet from(3), to(3), other(5);
  test::fill(*from->norm, 5);
  EXPECT_EQ(copy_weights(*from, *to).loaded.size(), 9u);
  EXPECT_TRUE(identical(*from, *to));
  EXPECT_EQ(error_of([&] { copy_weights(*from, *other); }).code(), ErrorCode::kMismatch);
  copy_weights(*from, *other, {.exclude = {"^fc\\."}});
  EXPECT_TRUE(identical(from->conv->weight, other->conv->weight));
  other->to(torch::kDouble);
  copy_weights(*from, *other, {.exclude = {"^fc\\."}, .convert_dtype = true});
  EXPECT_TRUE(identical(from->conv->weight.to(torch::kDouble), other->conv->weight));

  const torch::Tensor live = torch::zeros({3});
  const torch::Tensor nan = torch::tensor({1.0f, NAN, 2.0f});
  ModelState::of({{"a", nan}, {"b", nan.clone()}}).load_into({{"a", live}, {"b", live}});
  EXPECT_TRUE(identical(live, nan));
  EXPECT_EQ(error_of([&] {
              ModelState::of({{"a", nan}, {"b", torch::ones({3})}}).load_into({{"a", live}, {"b", live}});
            }).code(),
            ErrorCode::kMismatch);
}

}  // namespace
}  // namespace ckpt
