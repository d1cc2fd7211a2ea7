// `ckpt save` and `ckpt load --out x.pt` against LibTorch: what a trainer saved comes back bit for bit.
#include <ckpt/training_state.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/format/archive.h"
#include "core/format/safetensors.h"
#include "core/io/lock.h"
#include "core/run/names.h"
#include "libtorch/training/snapshot.h"
#include "program.h"

namespace ckpt::test {
namespace {

struct NetImpl : torch::nn::Module {
  NetImpl() {
    body = register_module(
        "body", torch::nn::Sequential(torch::nn::Linear(4, 3), torch::nn::ReLU(), torch::nn::BatchNorm1d(3)));
    head = register_module("head", torch::nn::Linear(3, 2));
    scale = register_parameter("scale", torch::ones({2}));
  }
  torch::Tensor forward(torch::Tensor x) { return head(body->forward(x)) * scale; }
  torch::nn::Sequential body{nullptr};
  torch::nn::Linear head{nullptr};
  torch::Tensor scale;
};
TORCH_MODULE(Net);

void step(Net& net, torch::optim::Optimizer& optimizer) {
  const auto closure = [&] {
    optimizer.zero_grad();
    torch::Tensor loss = net->forward(torch::ones({5, 4}) * torch::arange(5).unsqueeze(1)).square().sum();
    loss.backward();
    return loss;
  };
  optimizer.step(closure);
}

void expect_same_module(torch::nn::Module& a, torch::nn::Module& b) {
  const auto all = [](torch::nn::Module& module) {
    std::map<std::string, torch::Tensor> tensors;
    for (const auto& item : module.named_parameters()) tensors[item.key()] = item.value();
    for (const auto& item : module.named_buffers()) tensors[item.key()] = item.value();
    return tensors;
  };
  const auto left = all(a), right = all(b);
  ASSERT_EQ(left.size(), right.size());
  for (const auto& [name, tensor] : left) EXPECT_TRUE(tensor.equal(right.at(name))) << name;
}

/// A trained model and its optimizer, saved by plain LibTorch.
template <class Optimizer>
struct Trained {
  template <class Options>
  Trained(const TempDir& dir, const Options& options) : optimizer(net->parameters(), options) {
    for (int i = 0; i < 3; ++i) step(net, optimizer);
    torch::save(net, dir / "model.pt");
    torch::save(optimizer, dir / "optimizer.pt");
  }
  Net net;
  Optimizer optimizer;
};

LoadReport restore_latest(const std::string& run, TrainingState& state, const LoadOptions& options = {}) {
  const std::string path = lines_of(ckpt({"load", run}).out).at(0);
  return training::restore(state, format::ArchiveFile::open(path + "/state.pt"), options);
}

/// Saves with the program, restores into new objects, and trains both on: they must stay the same.
template <class Optimizer, class Options>
void round_trip(const Options& options, const Options& others, const std::string& type, bool type_needed) {
  TempDir dir;
  torch::manual_seed(3);
  Trained<Optimizer> trained(dir, options);
  std::vector<std::string> arguments{"save",        dir / "run",          "--model",     dir / "model.pt",
                                     "--optimizer", dir / "optimizer.pt", "--iteration", "3"};
  if (type_needed) arguments.insert(arguments.end(), {"--optimizer-type", type});
  const Outcome saved = ckpt(arguments);
  ASSERT_EQ(saved.code, 0) << saved.err;
  EXPECT_EQ(saved.out, dir / "run/step-000000000003\n");

  Net net;
  Optimizer optimizer(net->parameters(), others);
  TrainingState state;
  state.add_module("model", *net).add_optimizer("optimizer", optimizer);
  restore_latest(dir / "run", state);
  EXPECT_EQ(state.iteration, 3u);
  expect_same_module(*net, *trained.net);
  for (int i = 0; i < 2; ++i) {
    step(net, optimizer);
    step(trained.net, trained.optimizer);
  }
  expect_same_module(*net, *trained.net);
}

TEST(Save, ResumesSgd) {
  round_trip<torch::optim::SGD>(torch::optim::SGDOptions(0.1).momentum(0.9).nesterov(true),
                                torch::optim::SGDOptions(0.5), "sgd", false);
}
TEST(Save, ResumesAdam) {
  round_trip<torch::optim::Adam>(torch::optim::AdamOptions(0.05).amsgrad(true), torch::optim::AdamOptions(0.5), "adam",
                                 true);
}
TEST(Save, ResumesAdamW) {
  round_trip<torch::optim::AdamW>(torch::optim::AdamWOptions(0.05).weight_decay(0.1), torch::optim::AdamWOptions(0.5),
                                  "adamw", true);
}
TEST(Save, ResumesRmsprop) {
  round_trip<torch::optim::RMSprop>(torch::optim::RMSpropOptions(0.01).momentum(0.5).centered(true),
                                    torch::optim::RMSpropOptions(0.5), "rmsprop", false);
}
TEST(Save, ResumesAdagrad) {
  round_trip<torch::optim::Adagrad>(torch::optim::AdagradOptions(0.05).lr_decay(0.01),
                                    torch::optim::AdagradOptions(0.5), "adagrad", false);
}
TEST(Save, ResumesLbfgs) {
  round_trip<torch::optim::LBFGS>(torch::optim::LBFGSOptions(0.1).max_iter(4).history_size(3),
                                  torch::optim::LBFGSOptions(0.5), "lbfgs", false);
}

TEST(Save, StoresAnAmbiguousTypeAsUnknownWhichARestoreTakesWithANote) {
  TempDir dir;
  Trained<torch::optim::AdamW> trained(dir, torch::optim::AdamWOptions(0.05));
  ASSERT_EQ(
      ckpt({"save", dir / "run", "--model", dir / "model.pt", "--optimizer", dir / "optimizer.pt", "--iteration", "1"})
          .code,
      0);
  const auto inspected = ckpt({"inspect", "--json", dir / "run"}).json();
  EXPECT_EQ(inspected.at("metadata").at("state").at("optimizer").at("description").at("type"), "unknown");
  Net net;
  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(0.5));
  TrainingState state;
  state.add_module("model", *net).add_optimizer("optimizer", optimizer);
  const LoadReport report = restore_latest(dir / "run", state);
  EXPECT_FALSE(report.notes.empty());
  EXPECT_EQ(static_cast<torch::optim::AdamWOptions&>(optimizer.param_groups()[0].options()).lr(), 0.05);
}

TEST(Save, LeavesTheGeneratorsOfWhoLoadsItAlone) {
  TempDir dir;
  Net net;
  torch::save(net, dir / "model.pt");
  ASSERT_EQ(ckpt({"save", dir / "run", "--model", dir / "model.pt", "--iteration", "1"}).code, 0);
  torch::manual_seed(11);
  const torch::Tensor expected = torch::rand({4});
  torch::manual_seed(11);
  TrainingState state;
  state.add_module("model", *net);
  restore_latest(dir / "run", state);
  EXPECT_TRUE(torch::rand({4}).equal(expected));
}

TEST(Save, KeepsEverythingThatIsSaidOfIt) {
  TempDir dir;
  Net net, ema;
  torch::save(net, dir / "model.pt");
  torch::save(ema, dir / "ema.pt");
  const std::string run = dir / "run";
  const Outcome outcome = ckpt({"save",
                                run,
                                "--model",
                                dir / "model.pt",
                                "--ema",
                                dir / "ema.pt",
                                "--iteration",
                                "1200",
                                "--epoch",
                                "4",
                                "--metric",
                                "a=b=0.5",
                                "--metric",
                                "loss=NaN",
                                "--metric",
                                "up=Infinity",
                                "--meta",
                                "command=x=y",
                                "--meta",
                                "empty=",
                                "--weights-copy",
                                "--keep-last",
                                "2",
                                "--keep-best",
                                "1",
                                "--monitor",
                                "a=b",
                                "--mode",
                                "max",
                                "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto json = outcome.json();
  EXPECT_EQ(json.size(), 6u);
  EXPECT_EQ(json.at("path"), run + "/step-000000001200");
  EXPECT_EQ(json.at("iteration"), 1200);
  EXPECT_GT(json.at("bytes"), 1000);
  EXPECT_GE(json.at("seconds"), 0.0);
  EXPECT_EQ(json.at("deleted"), nlohmann::json::array());

  const auto metadata = ckpt({"inspect", "--json", run}).json().at("metadata");
  EXPECT_EQ(metadata.at("epoch"), 4);
  EXPECT_EQ(metadata.at("metrics"), (nlohmann::json{{"a=b", 0.5}, {"loss", "NaN"}, {"up", "Infinity"}}));
  EXPECT_EQ(metadata.at("metadata"), (nlohmann::json{{"command", "x=y"}, {"empty", ""}}));
  EXPECT_EQ(metadata.at("monitor"), (nlohmann::json{{"metric", "a=b"}, {"mode", "max"}}));
  EXPECT_TRUE(metadata.at("files").contains("weights.safetensors"));
  EXPECT_EQ(ckpt({"verify", run}).code, 0);
  EXPECT_EQ(ckpt({"load", run, "--which", "best"}).code, 0);
  const io::File weights = io::File::open(run + "/latest/weights.safetensors");
  EXPECT_EQ(format::read_safetensors(weights).tensors.size(), 2 * (net->parameters().size() + net->buffers().size()));

  TrainingState state;
  Net other, other_ema;
  state.add_module("model", *other).add_module("ema", *other_ema);
  restore_latest(run, state);
  EXPECT_EQ(state.epoch, 4u);
  EXPECT_EQ(state.metrics().at("a=b"), 0.5);
  EXPECT_EQ(state.metadata.at("command"), "x=y");
  expect_same_module(*other_ema, *ema);
}

TEST(Save, ReplacesAnIterationAndAppliesRetention) {
  TempDir dir;
  Net first, second;
  torch::save(first, dir / "1.pt");
  torch::save(second, dir / "2.pt");
  const std::string run = dir / "run";
  for (const char* iteration : {"1", "2", "3"}) {
    ASSERT_EQ(ckpt({"save", run, "--model", dir / "1.pt", "--iteration", iteration}).code, 0);
  }
  const auto json =
      ckpt({"save", run, "--model", dir / "2.pt", "--iteration", "2", "--keep-last", "2", "--json"}).json();
  EXPECT_EQ(json.at("deleted"), nlohmann::json{run + "/step-000000000001"});
  EXPECT_EQ(ckpt({"load", run}).out, run + "/step-000000000002\n");  // the one committed last
  TrainingState state;
  Net net;
  state.add_module("model", *net);
  restore_latest(run, state);
  expect_same_module(*net, *second);
}

TEST(Save, TakesPartsOfAStateOfItsOwn) {
  TempDir dir;
  Trained<torch::optim::SGD> trained(dir, torch::optim::SGDOptions(0.1).momentum(0.9));
  const std::string a = dir / "a", b = dir / "b";
  ASSERT_EQ(
      ckpt({"save", a, "--model", dir / "model.pt", "--optimizer", dir / "optimizer.pt", "--iteration", "1"}).code, 0);
  const std::string state_path = a + "/latest/state.pt";
  const Outcome outcome = ckpt({"save", b, "--model", state_path, "--optimizer", state_path, "--iteration", "2"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(ckpt({"save", b, "--model", state_path, "--ema", state_path, "--iteration", "3"}).code, 6);
  Net net;
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.5));
  TrainingState state;
  state.add_module("model", *net).add_optimizer("optimizer", optimizer);
  restore_latest(b, state);
  step(net, optimizer);
  step(trained.net, trained.optimizer);
  expect_same_module(*net, *trained.net);
}

TEST(Save, RefusesWhatDoesNotFit) {
  TempDir dir;
  Trained<torch::optim::SGD> trained(dir, torch::optim::SGDOptions(0.1).momentum(0.9));
  torch::nn::Linear small(2, 2);
  torch::save(small, dir / "small.pt");
  torch::save(torch::nn::ReLU(), dir / "nothing.pt");
  write_all(dir / "notes.txt", "hello");
  write_all(dir / "old.pt", std::string("\x80\x02\x8a\x0al\xfc", 6));
  write_all(dir / "empty.pt", "");
  std::filesystem::copy_file(dir / "model.pt", dir / "flipped.pt");
  flip_byte(dir / "flipped.pt", std::filesystem::file_size(dir / "flipped.pt") / 3);
  std::filesystem::copy_file(dir / "model.pt", dir / "cut.pt");
  std::filesystem::resize_file(dir / "cut.pt", 2000);

  const std::string run = dir / "run", model = dir / "model.pt", optimizer = dir / "optimizer.pt";
  struct Case {
    std::vector<std::string> flags;
    int code;
  };
  const std::vector<Case> cases{
      {{"--model", dir / "absent.pt"}, 3},
      {{"--model", dir.path()}, 3},
      {{"--model", dir / "notes.txt"}, 7},
      {{"--model", dir / "old.pt"}, 4},
      {{"--model", dir / "empty.pt"}, 4},
      {{"--model", dir / "flipped.pt"}, 4},
      {{"--model", dir / "cut.pt"}, 4},
      {{"--model", dir / "nothing.pt"}, 6},
      {{"--model", optimizer}, 5},
      {{"--model", model, "--ema", dir / "absent.pt"}, 3},
      {{"--model", model, "--optimizer", model}, 5},
      {{"--model", dir / "small.pt", "--optimizer", optimizer}, 5},
      {{"--model", model, "--optimizer", optimizer, "--optimizer-type", "adam"}, 5},
  };
  for (const Case& test : cases) {
    std::vector<std::string> arguments{"save", run, "--iteration", "1", "--json"};
    arguments.insert(arguments.end(), test.flags.begin(), test.flags.end());
    const Outcome outcome = ckpt(arguments);
    EXPECT_EQ(outcome.code, test.code) << test.flags.back() << ": " << outcome.err;
    EXPECT_FALSE(outcome.error().at("message").get<std::string>().empty());
    EXPECT_FALSE(std::filesystem::exists(run)) << test.flags.back();
  }
  EXPECT_EQ(ckpt({"save", dir / "a/b", "--model", model, "--iteration", "1"}).code, 3);  // one level only
  EXPECT_EQ(ckpt({"save", model, "--model", model, "--iteration", "1"}).code, 3);        // a file
}

TEST(Save, TakesWeightsAndOptimizersOfPython) {
  TempDir dir;
  const std::string python = data("python_checkpoints/adam.pt");
  const Outcome saved = ckpt({"save", dir / "run", "--model", python, "--optimizer", python, "--iteration", "3"});
  ASSERT_EQ(saved.code, 0) << saved.err;
  ASSERT_EQ(ckpt({"convert", python, dir / "other", "--to", "checkpoint"}).code, 0);
  EXPECT_EQ(ckpt({"diff", dir / "run", dir / "other"}).code, 0);
  const auto description = [&](const char* run) {
    return ckpt({"inspect", "--json", dir / run}).json().at("metadata").at("state").at("optimizer").at("description");
  };
  EXPECT_EQ(description("run"), description("other"));
  ASSERT_EQ(ckpt({"convert", python, dir / "w.safetensors"}).code, 0);
  EXPECT_EQ(ckpt({"save", dir / "run", "--model", dir / "w.safetensors", "--ema", python, "--iteration", "4"}).code, 0);
  EXPECT_EQ(ckpt({"diff", dir / "run", python}).code, 0);
  EXPECT_EQ(
      ckpt({"save", dir / "run", "--model", data("torch/state_dict.pt"), "--optimizer", python, "--iteration", "5"})
          .code,
      5);
}

TEST(Save, IsRefusedWhileAWriterHoldsTheRunAndWaitsWhenAsked) {
  TempDir dir;
  Net net;
  torch::save(net, dir / "model.pt");
  const std::string run = dir / "run";
  ASSERT_EQ(ckpt({"save", run, "--model", dir / "model.pt", "--iteration", "1"}).code, 0);
  auto lock = std::make_optional<io::FileLock>(io::Directory::open(run), run::kLockName);
  const Outcome refused = ckpt({"save", run, "--model", dir / "model.pt", "--iteration", "2", "--json"});
  EXPECT_EQ(refused.code, 3);
  EXPECT_EQ(refused.error().at("code"), "locked");
  EXPECT_EQ(ckpt({"save", run, "--model", dir / "model.pt", "--iteration", "2", "--wait", "0.05"}).code, 3);
  std::thread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    lock.reset();
  });
  EXPECT_EQ(ckpt({"save", run, "--model", dir / "model.pt", "--iteration", "2", "--wait", "60"}).code, 0);
  release.join();
}

TEST(Load, WritesPartsThatPlainLibTorchOpens) {
  TempDir dir;
  Trained<torch::optim::SGD> trained(dir, torch::optim::SGDOptions(0.1).momentum(0.9));
  const std::string run = dir / "run";
  ASSERT_EQ(
      ckpt({"save", run, "--model", dir / "model.pt", "--optimizer", dir / "optimizer.pt", "--iteration", "1"}).code,
      0);
  const Outcome outcome = ckpt({"load", run, "--part", "model", "--out", dir / "out.pt"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  Net net;
  torch::load(net, dir / "out.pt");
  expect_same_module(*net, *trained.net);
  // It can be saved again, and verified.
  EXPECT_EQ(ckpt({"verify", dir / "out.pt"}).code, 0);
  EXPECT_EQ(ckpt({"save", dir / "run2", "--model", dir / "out.pt", "--iteration", "1"}).code, 0);

  ASSERT_EQ(ckpt({"load", run, "--part", "optimizer", "--out", dir / "optimizer-out.pt"}).code, 0);
  EXPECT_EQ(ckpt({"inspect", "--json", dir / "optimizer-out.pt"}).json().at("format"), "archive");
  ASSERT_EQ(ckpt({"load", run, "--part", "all", "--out", dir / "all.pt"}).code, 0);
  torch::serialize::InputArchive file, part;
  file.load_from(dir / "all.pt");
  file.read("model", part);
  Net other;
  other->load(part);
  expect_same_module(*other, *trained.net);

  write_all(dir / "old.pt", "old");
  EXPECT_EQ(ckpt({"load", run, "--part", "ema", "--out", dir / "old.pt"}).code, 6);
  EXPECT_EQ(read_all(dir / "old.pt"), "old");
}

TEST(Load, ATrainingStateOfTheLibraryComesOutAsPlainWeights) {
  TempDir dir;
  Net net;
  TrainingState state;
  state.iteration = 5;
  state.add_module("model", *net);
  const training::Snapshot snapshot = training::capture(state, nullptr);
  run::RunWriter(dir / "run")
      .commit(snapshot.head(),
              {{"state.pt", snapshot.expected_bytes(), [&](io::BlockWriter& to) { snapshot.write(to); }}}, {},
              std::nullopt);
  ASSERT_EQ(ckpt({"load", dir / "run", "--out", dir / "out.pt"}).code, 0);
  Net other;
  torch::load(other, dir / "out.pt");
  expect_same_module(*other, *net);
}

}  // namespace
}  // namespace ckpt::test
