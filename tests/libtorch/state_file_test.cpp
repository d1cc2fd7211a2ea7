// state.pt as a file: names, kinds of tensors, and plain LibTorch on either side.
#include <gtest/gtest.h>

#include <ctime>

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

struct Named : torch::nn::Module {
  torch::Tensor& parameter(const std::string& name) { return register_parameter(name, torch::randn({2, 3})); }
  torch::Tensor& buffer(const std::string& name, torch::Tensor value) {
    return register_buffer(name, std::move(value));
  }
  void child(const std::string& name, const std::shared_ptr<Named>& module) { register_module(name, module); }
};

std::shared_ptr<Named> awkward_names() {
  auto root = std::make_shared<Named>();
  const std::vector<std::string> names = {"a\"b",   "in",      "class",  "None", "True",     "with blank",
                                          "back\\", "line\nx", "tab\t",  "100%", "%41",      "'single'",
                                          "größe",  "重み",    "1st",    "a/b",  "training", "forward",
                                          "self",   "float",   "Tensor", "x",    "import",   "lambda"};
  for (const std::string& name : names) root->parameter(name);
  for (const std::string name : {"in", "def", "q\"uote", "plain", "重"}) {
    auto child = std::make_shared<Named>();
    child->parameter("a\"b");
    child->buffer("return", torch::arange(5));
    root->child(name + "_child", child);
    root->child(name == "plain" ? "del" : name + "\"", child);
  }
  return root;
}

TEST(StateFile, KeepsAwkwardNames) {
  const TempDir dir;
  auto saved = awkward_names();
  TrainingState state;
  state.add_module("in", *saved);  // a part may be a keyword too
  save_state(state, dir / "state.pt");
  auto loaded = awkward_names();
  ASSERT_FALSE(identical(*saved, *loaded));
  TrainingState other;
  other.add_module("in", *loaded);
  load_state(other, dir / "state.pt");
  EXPECT_TRUE(identical(*saved, *loaded));
  torch::serialize::InputArchive archive;
  EXPECT_NO_THROW(archive.load_from(dir / "state.pt"));
}

TEST(StateFile, IsReadByPlainLibTorch) {
  const TempDir dir;
  SmallNet saved, loaded;
  torch::optim::AdamW optimizer(saved->parameters(), torch::optim::AdamWOptions(0.01));
  saved->forward(torch::randn({2, 1, 6, 6})).sum().backward();
  optimizer.step();
  TrainingState state;
  state.add_module("model", *saved).add_optimizer("optimizer", optimizer);
  save_state(state, dir / "state.pt");

  torch::serialize::InputArchive file, part;
  file.load_from(dir / "state.pt");
  file.read("model", part);
  loaded->load(part);
  EXPECT_TRUE(identical(*saved, *loaded));
  EXPECT_TRUE(loaded->conv->weight.requires_grad());
}

TEST(StateFile, TakesWhatPlainLibTorchSaved) {
  const TempDir dir;
  SmallNet saved, loaded, ema;
  torch::save(saved, dir / "model.pt");
  torch::optim::SGD optimizer(loaded->parameters(), 0.1);
  for (const char* name : {"model", "net"}) {
    for (torch::Tensor& tensor : loaded->parameters()) tensor.data().zero_();
    TrainingState state;
    state.iteration = 7;
    state.add_module(name, *loaded).add_optimizer("optimizer", optimizer);
    if (std::string(name) == "model") state.add_module("ema", *ema);
    const LoadReport report = load_state(state, dir / "model.pt");
    EXPECT_TRUE(identical(*saved, *loaded));
    EXPECT_EQ(report.loaded.size(), 9u);
    EXPECT_EQ(state.iteration, 7u);
  }
  TrainingState two;
  two.add_module("a", *loaded).add_module("b", *ema);
  EXPECT_EQ(error_of([&] { load_state(two, dir / "model.pt"); }).code(), ErrorCode::kMismatch);
}

TEST(StateFile, HasTheSameBytesForTheSameState) {
  const TempDir dir;
  SmallNet model;
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(0.01).amsgrad(true));
  model->forward(torch::randn({2, 1, 6, 6})).sum().backward();
  optimizer.step();
  TrainingState state;
  state.add_module("model", *model).add_optimizer("optimizer", optimizer);
  state.metadata = {{"note", "größe \"x\""}};
  state.set_metric("accuracy", 0.1);
  save_state(state, dir / "a");
  save_state(state, dir / "b");
  StagingBuffer staging;
  save_state(state, dir / "c", &staging);
  EXPECT_EQ(test::read_all(dir / "a"), test::read_all(dir / "b"));
  EXPECT_EQ(test::read_all(dir / "a"), test::read_all(dir / "c"));
}

std::shared_ptr<Named> all_kinds(bool filled) {
  auto module = std::make_shared<Named>();
  for (auto type : {torch::kBool, torch::kByte, torch::kChar, torch::kShort, torch::kInt, torch::kLong, torch::kHalf,
                    torch::kBFloat16, torch::kFloat, torch::kDouble, torch::kComplexFloat, torch::kComplexDouble}) {
    const torch::Tensor value = torch::randn({3, 5}).mul(50).abs().to(type);
    module->buffer(std::string("of ") + c10::toString(type), filled ? value : torch::zeros_like(value));
  }
  module->buffer("scalar", torch::full({}, filled ? 3.5 : 0.0));
  module->buffer("empty", torch::empty({0, 4}));
  module->buffer("strided", (filled ? torch::randn({4, 6}) : torch::zeros({4, 6})).t());
  module->buffer("slice", (filled ? torch::randn({1000, 6}) : torch::zeros({1000, 6})).narrow(0, 3, 2));
  module->buffer("columns", (filled ? torch::randn({7, 6}) : torch::zeros({7, 6})).narrow(1, 2, 3));
  module->buffer("conjugated", torch::conj(filled ? torch::randn({3}, torch::kComplexFloat)
                                                  : torch::zeros({3}, torch::kComplexFloat)));
  return module;
}

TEST(StateFile, KeepsAllKindsOfTensors) {
  const TempDir dir;
  auto saved = all_kinds(true);
  TrainingState state;
  state.add_module("model", *saved);
  StagingBuffer staging;
  for (StagingBuffer* buffer : {static_cast<StagingBuffer*>(nullptr), &staging}) {
    save_state(state, dir / "state.pt", buffer);
    EXPECT_LT(test::read_all(dir / "state.pt").size(), 20000u) << "a slice brought its whole storage along";
    auto loaded = all_kinds(false);
    TrainingState other;
    other.add_module("model", *loaded);
    load_state(other, dir / "state.pt");
    for (const auto& item : saved->named_buffers()) {
      EXPECT_TRUE(identical(item.value().resolve_conj(), loaded->named_buffers()[item.key()].resolve_conj()))
          << item.key();
    }
  }
}

TEST(StateFile, KeepsTies) {
  const TempDir dir;
  const auto tied = [] {
    auto module = std::make_shared<Named>();
    auto a = std::make_shared<Named>(), b = std::make_shared<Named>();
    torch::Tensor weight = a->register_parameter("weight", torch::randn({100, 100}));
    b->register_parameter("weight", weight);
    module->child("a", a);
    module->child("b", b);
    return module;
  };
  auto saved = tied(), loaded = tied();
  TrainingState state, other;
  state.add_module("model", *saved);
  other.add_module("model", *loaded);
  StagingBuffer staging;
  for (StagingBuffer* buffer : {static_cast<StagingBuffer*>(nullptr), &staging}) {
    save_state(state, dir / "state.pt", buffer);
    EXPECT_LT(test::read_all(dir / "state.pt").size(), 60000u) << "40,000 bytes were written twice";
    const auto file = format::ArchiveFile::open(dir / "state.pt");
    const format::Archive* model = file.root().nested("model");
    ASSERT_NE(model, nullptr);
    const auto tensors = format::tensors_of(*model, true);
    ASSERT_EQ(tensors.size(), 2u);
    EXPECT_EQ(tensors[0].stored.record, tensors[1].stored.record);
  }
  load_state(other, dir / "state.pt");
  EXPECT_TRUE(identical(*saved, *loaded));
  const training::Snapshot snapshot = training::capture(state, nullptr);
  const training::Weights weights = snapshot.weights();
  ASSERT_EQ(weights.tensors.size(), 1u);
  EXPECT_EQ(weights.tensors[0].name, "a.weight");
  EXPECT_EQ(weights.ties.at("b.weight"), "a.weight");
}

TEST(StateFile, HoldsTheValuesOfTheCall) {
  const TempDir dir;
  SmallNet model;
  const auto before = test::copies(test::tensors_of(*model));
  TrainingState state;
  state.add_module("model", *model);
  StagingBuffer staging;
  const training::Snapshot snapshot = training::capture(state, &staging);
  for (torch::Tensor& tensor : model->parameters()) tensor.data().fill_(9);
  for (torch::Tensor tensor : model->buffers()) tensor.fill_(9);
  io::replace_file(dir / "state.pt", [&](io::BlockWriter& writer) { snapshot.write(writer); });
  load_state(state, dir / "state.pt");
  const auto after = test::tensors_of(*model);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(identical(before[i], after[i]));
}

// Processor seconds to save and load a state of `layers` x 100 parameters: other work on the machine does not count.
double seconds_for(int layers) {
  const TempDir dir;
  auto root = std::make_shared<Named>();
  for (int i = 0; i < layers; ++i) {
    auto layer = std::make_shared<Named>();
    for (int j = 0; j < 100; ++j) layer->register_parameter("p" + std::to_string(j), torch::full({1}, i * 100.0 + j));
    root->child("layer" + std::to_string(i), layer);
  }
  torch::optim::SGD optimizer(root->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  for (torch::Tensor& parameter : root->parameters()) parameter.mutable_grad() = torch::ones_like(parameter);
  optimizer.step();
  TrainingState state;
  state.add_module("model", *root).add_optimizer("optimizer", optimizer);
  StagingBuffer staging;
  const std::clock_t start = std::clock();
  save_state(state, dir / "state.pt", &staging);
  load_state(state, dir / "state.pt");
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

TEST(StateFile, StaysLinearInTheNames) {
  const double few = seconds_for(25);
  EXPECT_LT(seconds_for(200), 20 * few) << "8 times the names; 64 times the time would be quadratic";
}

}  // namespace
}  // namespace ckpt
