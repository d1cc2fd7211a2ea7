// Loading: all or nothing, everything wrong told at once, and what LoadOptions allow.
#include <gtest/gtest.h>

#include "ckpt/epoch_sampler.h"
#include "ckpt/stateful.h"
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

template <class Net>
void train_step(Net& net, torch::optim::Optimizer& optimizer) {
  optimizer.zero_grad();
  net->forward(torch::randn({4, 1, 6, 6})).sum().backward();
  optimizer.step();
}

TEST(StateRestore, TouchesNothingWhenItFailsAndTellsAllProblems) {
  const TempDir dir;
  SmallNet saved(3);
  torch::optim::Adam adam(saved->parameters(), torch::optim::AdamOptions(0.01));
  torch::optim::StepLR schedule(adam, 2, 0.5);
  EpochSampler sampler(100, 1);
  train_step(saved, adam);
  TrainingState state;
  state.add_module("model", *saved).add_module("extra", *saved->norm).add_optimizer("optimizer", adam);
  state.add_scheduler("schedule", schedule).add_sampler("data", sampler);
  save_state(state, dir / "state.pt");

  SmallNet live(5);  // fc has another shape
  live->register_parameter("scale", torch::ones({2}));
  live->norm->to(torch::kDouble);
  torch::optim::SGD sgd(live->conv->parameters(), torch::optim::SGDOptions(0.3).momentum(0.9));
  live->conv(torch::randn({1, 1, 6, 6})).sum().backward();
  sgd.step();
  torch::optim::StepLR other_schedule(sgd, 3, 0.25);
  EpochSampler other_sampler(99, 1);
  GradScalerState scaler;
  TrainingState other;
  other.epoch = 3;
  other.iteration = 11;
  other.metadata = {{"mine", true}};
  other.add_module("model", *live).add_optimizer("optimizer", sgd).add_scheduler("schedule", other_schedule);
  other.add_sampler("data", other_sampler).add_scaler("scaler", scaler);
  save_state(other, dir / "before");

  const Error error = error_of([&] { load_state(other, dir / "state.pt"); });
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_EQ(error.path(), dir / "state.pt");
  const auto& lines = error.details();
  for (const char* expected :
       {"\"model/fc.weight\": expected float32 [5, 64], found float32 [3, 64]",
        "\"model/norm.weight\": expected float64 [4], found float32 [4]",
        "\"model/scale\": expected float32 [2], not in the file", "\"extra\": not expected",
        "\"optimizer\": expected type SGD, found type \"Adam\"", "\"schedule\": expected step_size 3, found \"2\"",
        "\"schedule\": expected gamma 0.25", "\"data\": expected 99 examples, found 100 examples",
        "\"scaler\": expected a part of kind scaler, not in the file"}) {
    EXPECT_TRUE(mentions(lines, expected)) << expected;
  }
  save_state(other, dir / "after");
  EXPECT_EQ(test::read_all(dir / "before"), test::read_all(dir / "after"));
}

TEST(StateRestore, TellsProblemsOfGroupsByName) {
  const TempDir dir;
  SmallNet net;
  torch::optim::SGD whole(net->parameters(), torch::optim::SGDOptions(0.1));
  torch::optim::SGD part(net->fc->parameters(), torch::optim::SGDOptions(0.1));
  torch::optim::SGD two({torch::optim::OptimizerParamGroup(net->conv->parameters()),
                         torch::optim::OptimizerParamGroup(net->fc->parameters())},
                        torch::optim::SGDOptions(0.1));
  const auto with = [&](torch::optim::Optimizer& optimizer) {
    TrainingState state;
    state.add_module("model", *net).add_optimizer("optimizer", optimizer);
    return state;
  };
  save_state(with(whole), dir / "whole");
  TrainingState fewer = with(part), groups = with(two);
  const auto fewer_lines = error_of([&] { load_state(fewer, dir / "whole"); }).details();
  EXPECT_TRUE(mentions(fewer_lines, "expected group 0 of 2 parameters, found 6"));
  EXPECT_TRUE(mentions(fewer_lines, "expected group 0 without \"model/conv.weight\""));
  EXPECT_TRUE(mentions(error_of([&] { load_state(groups, dir / "whole"); }).details(), "expected 2 parameter groups"));
}

TEST(StateRestore, LoadsWhatFitsWhenNotStrict) {
  const TempDir dir;
  SmallNet saved(3), live(5);
  live->register_parameter("scale", torch::ones({2}));
  TrainingState state, other;
  state.iteration = 40;
  state.add_module("model", *saved).add_module("extra", *saved->norm);
  other.add_module("model", *live);
  save_state(state, dir / "state.pt");
  const auto fc = live->fc->weight.detach().clone();
  const LoadReport report = load_state(other, dir / "state.pt", {.strict = false});
  EXPECT_TRUE(identical(saved->conv->weight, live->conv->weight));
  EXPECT_TRUE(identical(saved->norm->running_mean, live->norm->running_mean));
  EXPECT_TRUE(identical(fc, live->fc->weight));
  EXPECT_EQ(other.iteration, 40u);
  EXPECT_EQ(report.missing, std::vector<std::string>{"model/scale"});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"extra"});
  ASSERT_EQ(report.mismatched.size(), 2u);
  EXPECT_EQ(report.mismatched[0].name, "model/fc.weight");
  EXPECT_EQ(report.mismatched[0].expected, "float32 [5, 64]");
  EXPECT_EQ(report.mismatched[0].actual, "float32 [3, 64]");
  EXPECT_EQ(report.loaded.size(), 7u + 2u);  // conv 2, norm 5, ckpt, rng
}

TEST(StateRestore, LeavesOutWhatIsExcluded) {
  const TempDir dir;
  SmallNet saved(3), live(5);
  torch::optim::Adam adam(saved->parameters(), torch::optim::AdamOptions(0.01));
  torch::optim::Adam other_adam(live->parameters(), torch::optim::AdamOptions(0.5));
  train_step(saved, adam);
  train_step(live, other_adam);
  TrainingState state, other;
  state.add_module("model", *saved).add_optimizer("optimizer", adam);
  other.add_module("model", *live).add_optimizer("optimizer", other_adam);
  save_state(state, dir / "state.pt");
  const LoadReport report = load_state(other, dir / "state.pt", {.exclude = {"^model/fc\\."}});
  EXPECT_TRUE(report.mismatched.empty() && report.missing.empty() && report.unexpected.empty());
  EXPECT_TRUE(identical(saved->conv->weight, live->conv->weight));
  EXPECT_EQ(live->fc->weight.size(0), 5);
  train_step(live, other_adam);  // the head has kept its own moments, of its own shape
  EXPECT_EQ(error_of([&] { load_state(other, dir / "state.pt", {.exclude = {"("}}); }).code(), ErrorCode::kInvalid);
}

TEST(StateRestore, ExcludesByPatternsThatTakeLinearTime) {
  const TempDir dir;
  const std::string longest = std::string(20000, 'a') + "!";
  TrainingState state, other;
  state.add_tensors("t", {{longest, torch::ones({2})}, {"b", torch::ones({2})}});
  const torch::Tensor kept = torch::zeros({2}), loaded = torch::zeros({2});
  other.add_tensors("t", {{longest, kept}, {"b", loaded}});
  save_state(state, dir / "state.pt");
  const LoadReport report = load_state(other, dir / "state.pt", {.parts = {"t"}, .exclude = {"^t/(a+)+!$"}});
  EXPECT_EQ(report.loaded, std::vector<std::string>{"t/b"});
  EXPECT_EQ(kept.sum().item<float>(), 0.0f);
  EXPECT_EQ(loaded.sum().item<float>(), 2.0f);
  for (const char* pattern : {"(a)\\1", "(?=a)", "["}) {  // what RE2 has not
    EXPECT_EQ(error_of([&] { load_state(other, dir / "state.pt", {.exclude = {pattern}}); }).code(),
              ErrorCode::kInvalid)
        << pattern;
  }
}

TEST(StateRestore, GivesTiedTensorsTheOneValueThatIsStored) {
  const TempDir dir;
  const torch::Tensor values = torch::randn({3, 4});
  const auto save = [&](const std::string& name, const torch::Tensor& a, const torch::Tensor& b) {
    TrainingState state;
    state.add_tensors("t", {{"a", a}, {"b", b}});
    save_state(state, dir / name);
  };
  save("tied", values, values);
  save("equal", values, values.clone());
  save("different", values, torch::randn({3, 4}));
  for (const char* name : {"tied", "equal"}) {
    const torch::Tensor live = torch::zeros({3, 4});
    TrainingState state;
    state.add_tensors("t", {{"a", live}, {"b", live}});
    load_state(state, dir / name);
    EXPECT_TRUE(identical(live, values)) << name;
  }
  const torch::Tensor live = torch::zeros({3, 4});
  TrainingState state;
  state.add_tensors("t", {{"a", live}, {"b", live}});
  EXPECT_TRUE(mentions(error_of([&] { load_state(state, dir / "different"); }).details(),
                       "\"t/b\": expected the same values as \"t/a\" (tied), found values of its own"));
  EXPECT_EQ(live.abs().sum().item<float>(), 0.0f);
}

TEST(StateRestore, FollowsTheNameMap) {
  const TempDir dir;
  SmallNet saved, live;
  torch::optim::Adam adam(saved->parameters(), torch::optim::AdamOptions(0.01));
  torch::optim::Adam other_adam(live->parameters(), torch::optim::AdamOptions(0.5));
  train_step(saved, adam);
  TrainingState state, other;
  state.add_module("model", *saved).add_optimizer("optimizer", adam);
  struct Outer : torch::nn::Module {
    explicit Outer(SmallNet& net) { register_module("backbone", net); }
  } outer(live);
  other.add_module("net", outer).add_optimizer("adam", other_adam);
  save_state(state, dir / "state.pt");
  load_state(other, dir / "state.pt", {.rename = {{"model/", "net/backbone."}, {"optimizer", "adam"}}});
  EXPECT_TRUE(identical(*saved, *live));
  torch::manual_seed(3);
  train_step(saved, adam);
  torch::manual_seed(3);
  train_step(live, other_adam);
  EXPECT_TRUE(identical(*saved, *live));
}

TEST(StateRestore, LoadsTheNamedPartsAlone) {
  const TempDir dir;
  SmallNet saved, live;
  torch::optim::SGD sgd(saved->parameters(), 0.1), other_sgd(live->parameters(), 0.7);
  TrainingState state, other;
  state.iteration = 5;
  state.add_module("model", *saved).add_optimizer("optimizer", sgd);
  other.add_module("model", *live).add_optimizer("optimizer", other_sgd);
  save_state(state, dir / "state.pt");
  load_state(other, dir / "state.pt", {.parts = {"model"}});
  EXPECT_TRUE(identical(*saved, *live));
  EXPECT_EQ(other.iteration, 0u);
  EXPECT_EQ(other_sgd.param_groups()[0].options().get_lr(), 0.7);
  load_state(other, dir / "state.pt", {.parts = {"ckpt"}});
  EXPECT_EQ(other.iteration, 5u);
  EXPECT_EQ(error_of([&] { load_state(other, dir / "state.pt", {.parts = {"ema"}}); }).code(), ErrorCode::kInvalid);
}

struct Wrapper : torch::nn::Module {
  Wrapper(const std::string& name, const std::shared_ptr<torch::nn::Module>& inner) { register_module(name, inner); }
};

TEST(StateRestore, SeesThroughWrappers) {
  const TempDir dir;
  SmallNet saved, live;
  auto compiled = std::make_shared<Wrapper>("_orig_mod", saved.ptr());
  auto parallel = std::make_shared<Wrapper>("module", compiled);
  torch::optim::SGD sgd(saved->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  torch::optim::SGD other_sgd(live->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  train_step(saved, sgd);
  TrainingState wrapped, bare;
  wrapped.add_module("model", *parallel).add_optimizer("optimizer", sgd);
  bare.add_module("model", *live).add_optimizer("optimizer", other_sgd);
  save_state(wrapped, dir / "wrapped");
  load_state(bare, dir / "wrapped");
  EXPECT_TRUE(identical(*saved, *live));
  train_step(live, other_sgd);
  save_state(bare, dir / "bare");
  load_state(wrapped, dir / "bare");
  EXPECT_TRUE(identical(*saved, *live));
  torch::save(std::static_pointer_cast<torch::nn::Module>(parallel), dir / "plain");
  for (torch::Tensor& tensor : live->parameters()) tensor.data().zero_();
  load_state(bare, dir / "plain");
  EXPECT_TRUE(identical(*saved, *live));
}

TEST(StateRestore, WritesIntoLiveMemoryOfAnyForm) {
  const TempDir dir;
  const torch::Tensor plain = torch::randn({300, 200}), flags = torch::rand({50}) > 0.5;
  TrainingState state;
  state.add_tensors("t", {{"a", plain}, {"a.b", plain.t()}, {"flags", flags}, {"c.d.e", plain.narrow(1, 3, 5)}});
  save_state(state, dir / "state.pt");
  const torch::Tensor base = torch::zeros({400, 200});
  const torch::Tensor a = torch::zeros({200, 300}).t(), ab = torch::zeros({200, 300});
  const torch::Tensor live_flags = torch::zeros({50}, torch::kBool), e = base.narrow(0, 50, 300).narrow(1, 7, 5);
  TrainingState other;
  other.add_tensors("t", {{"a", a}, {"a.b", ab}, {"flags", live_flags}, {"c.d.e", e}});
  load_state(other, dir / "state.pt");
  EXPECT_TRUE(identical(a, plain));
  EXPECT_TRUE(identical(ab, plain.t()));
  EXPECT_TRUE(identical(live_flags, flags));
  EXPECT_TRUE(identical(e, plain.narrow(1, 3, 5)));
  EXPECT_EQ(base.narrow(1, 0, 7).abs().sum().item<float>(), 0.0f);

  TrainingState expanded;
  expanded.add_tensors("t", {{"a", torch::zeros({1, 200}).expand({300, 200})}});
  EXPECT_TRUE(mentions(error_of([&] {
                         load_state(expanded, dir / "state.pt", {.exclude = {"a\\.b", "flags", "c"}});
                       }).details(),
                       "expanded"));
}

TEST(StateRestore, IsNoticedByAutograd) {
  const TempDir dir;
  SmallNet net;
  TrainingState state;
  state.add_module("model", *net);
  save_state(state, dir / "state.pt");
  const torch::Tensor loss = net->fc(torch::randn({1, 64}).requires_grad_()).pow(2).sum();
  load_state(state, dir / "state.pt");
  EXPECT_ANY_THROW(loss.backward()) << "the saved weight was overwritten";
}

TEST(StateRestore, RefusesUnusablePartNames) {
  TrainingState state;
  SmallNet net;
  state.add_module("model", *net);
  for (const char* name : {"", "model", "ckpt", "rng", "a/b", "\xff"}) {
    EXPECT_EQ(error_of([&] { state.add_module(name, *net); }).code(), ErrorCode::kInvalid) << name;
  }
}

TEST(StateRestore, RefusesDamagedDescriptions) {
  const TempDir dir;
  SmallNet net;
  TrainingState state;
  state.add_module("model", *net);
  const auto write = [&](const std::string& description, int64_t version) {
    torch::serialize::OutputArchive archive, head(archive.compilation_unit());
    head.write("version", c10::IValue(version));
    head.write("description", c10::IValue(description));
    archive.write("ckpt", head);
    archive.save_to(dir / "state.pt");
  };
  const std::string rest = R"(, "metrics": {}, "best_metric": null, "metadata": {}})";
  write(R"({"parts": {}, "epoch": 1, "iteration": 2)" + rest, 1);
  EXPECT_EQ(error_of([&] { load_state(state, dir / "state.pt"); }).code(), ErrorCode::kMismatch);
  write(R"({"parts": {}, "epoch": 1, "iteration": 2)" + rest, 2);
  EXPECT_EQ(error_of([&] { load_state(state, dir / "state.pt"); }).code(), ErrorCode::kUnsupported);
  for (const char* start :
       {"", "[]", "{", R"({"epoch": 1)", R"({"parts": 3, "epoch": 1, "iteration": 2)",
        R"({"parts": {}, "epoch": -1, "iteration": 2)", R"({"parts": {}, "epoch": "x", "iteration": 2)",
        R"({"parts": {"model": {}}, "epoch": 1, "iteration": 2)",
        R"({"parts": {"model": {"kind": "module"}}, "epoch": 1, "iteration": 2)"}) {
    write(std::string(start) + (std::string_view(start).size() > 2 ? rest : ""), 1);
    EXPECT_EQ(error_of([&] { load_state(state, dir / "state.pt"); }).code(), ErrorCode::kCorrupt) << start;
  }
}

}  // namespace
}  // namespace ckpt
