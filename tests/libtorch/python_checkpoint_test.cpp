// Runs that go on in the other language. tests/data/python_checkpoints.py trains the same network in Python; what it
// wrote is in tests/data/python_checkpoints, and where CKPT_TEST_PYTHON names an interpreter with torch, Python trains
// and loads here, too.
#include "ckpt/python_checkpoint.h"

#include <gtest/gtest.h>

#include <functional>

#include "ckpt/epoch_sampler.h"
#include "core/format/archive_writer.h"
#include "core/format/torch_file.h"
#include "core/weights/python_checkpoint.h"
#include "core/weights/state_tree.h"
#include "core/weights/training_files.h"
#include "libtorch/bridge/tensor_reader.h"
#include "libtorch/state_helpers.h"
#include "support/python.h"
#include "support/temp_dir.h"

namespace ckpt {
namespace {

using test::error_of;
using test::mentions;
using test::TempDir;

constexpr int kSteps = 3;  // as in the script
const std::string kGolden = CKPT_TEST_DATA "/python_checkpoints";

struct NetImpl : torch::nn::Module {
  NetImpl() {
    conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 2, 3).bias(false)));
    norm = register_module("norm", torch::nn::BatchNorm2d(2));
    relu = register_module("relu", torch::nn::ReLU());
    fc = register_module("fc", torch::nn::Linear(18, 3));
  }
  torch::Tensor forward(torch::Tensor x) { return fc(relu(norm(conv(x))).flatten(1)); }
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::ReLU relu{nullptr};
  torch::nn::Linear fc{nullptr};
};
TORCH_MODULE(Net);

using Optimizer = std::unique_ptr<torch::optim::Optimizer>;
using MakeOptimizer = std::function<Optimizer(Net&)>;

// The options are all wrong: those of the file must come in their place.
template <class Kind, class Options>
MakeOptimizer one_group(Options options) {
  return [options](Net& net) { return std::make_unique<Kind>(net->parameters(), options); };
}

template <class Kind, class Options>
MakeOptimizer two_groups(Options options) {
  return [options](Net& net) {
    std::vector<torch::optim::OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<torch::Tensor>{net->conv->weight, net->fc->weight},
                        std::make_unique<Options>(options));
    groups.emplace_back(std::vector<torch::Tensor>{net->norm->weight, net->norm->bias, net->fc->bias},
                        std::make_unique<Options>(options));
    return std::make_unique<Kind>(groups, options);
  };
}

struct Case {
  const char* name;
  MakeOptimizer make;
};

const std::vector<Case>& cases() {
  using namespace torch::optim;  // NOLINT: twelve names of it
  static const std::vector<Case> kCases{
      {"sgd", one_group<SGD>(SGDOptions(1))},
      {"sgd_momentum", two_groups<SGD>(SGDOptions(1))},
      {"sgd_dampening", one_group<SGD>(SGDOptions(1))},
      {"adam", one_group<Adam>(AdamOptions(1))},
      {"adam_amsgrad", one_group<Adam>(AdamOptions(1))},
      {"adamw", two_groups<AdamW>(AdamWOptions(1))},
      {"rmsprop", one_group<RMSprop>(RMSpropOptions(1))},
      {"rmsprop_centered", one_group<RMSprop>(RMSpropOptions(1))},
      {"adagrad", one_group<Adagrad>(AdagradOptions(1))},
      {"lbfgs", one_group<LBFGS>(LBFGSOptions(1))},
      {"lbfgs_first", one_group<LBFGS>(LBFGSOptions(1))},
      {"lbfgs_wolfe", one_group<LBFGS>(LBFGSOptions(1))},
  };
  return kCases;
}

const Case& adam() { return cases()[3]; }

/// The tensors below a key of a file of Python's.
std::map<std::string, torch::Tensor> tensors_in(const std::string& path, const std::string& key) {
  const format::TorchFile file = format::TorchFile::open(io::File::open(path));
  const format::PickleNode node = key.empty() ? file.root() : file.find(file.root(), key);
  std::map<std::string, torch::Tensor> tensors;
  std::vector<bridge::TensorRead> reads;
  for (const format::NamedTensor& named : format::tensors_below(file, node).tensors) {
    const auto dtype = named.stored.dtype == DType::kInt64 ? torch::kInt64 : torch::kFloat32;
    tensors[named.name] = torch::empty(named.stored.shape, dtype);
    reads.push_back({named.stored, tensors[named.name]});
  }
  bridge::read_tensors(file.file(), reads, 1);
  return tensors;
}

struct Inputs {
  explicit Inputs(const std::string& folder) {
    const auto tensors = tensors_in(folder + "/inputs.pt", "");
    x = tensors.at("x");
    target = tensors.at("target");
  }
  torch::Tensor x, target;
};

/// All objects of one run.
struct TrainingRun {
  explicit TrainingRun(const Case& which) : is_adam(std::string(which.name) == "adam"), optimizer(which.make(net)) {
    state.add_module("model", *net).add_module("ema", *ema).add_optimizer("optimizer", *optimizer);
    if (is_adam) state.add_scaler("scaler", scaler);
  }

  void train(const Inputs& inputs, int steps) {
    for (int i = 0; i < steps; ++i, ++state.iteration) {
      // LBFGS gets all samples at once: from batch to batch it turns a last bit into 1e-3, with Python alone, too.
      const bool whole = dynamic_cast<torch::optim::LBFGS*>(optimizer.get()) != nullptr;
      const auto step = static_cast<int64_t>(state.iteration);
      const torch::Tensor x = whole ? inputs.x.flatten(0, 1) : inputs.x[step];
      const torch::Tensor target = whole ? inputs.target.flatten() : inputs.target[step];
      optimizer->step([&] {
        optimizer->zero_grad();
        torch::Tensor loss = torch::nn::functional::cross_entropy(net->forward(x), target);
        loss.backward();
        return loss;
      });
      const torch::NoGradGuard no_grad;
      const auto averaged = ema->parameters(), live = net->parameters();
      for (size_t p = 0; p < live.size(); ++p) averaged[p].mul_(0.9).add_(live[p], 0.1);
    }
  }

  Net net, ema;
  bool is_adam;
  Optimizer optimizer;
  GradScalerState scaler;
  TrainingState state;
};

/// The largest difference of any tensor, as a part of that tensor's largest value.
double difference(torch::nn::Module& module, const std::map<std::string, torch::Tensor>& expected) {
  double largest = 0;
  size_t compared = 0;
  const auto compare = [&](const std::string& name, const torch::Tensor& tensor) {
    const torch::Tensor wanted = expected.at(name).to(torch::kFloat64);
    const double scale = std::max(wanted.abs().max().item<double>(), 1e-30);
    const double most = (tensor.detach().to(torch::kFloat64) - wanted).abs().max().item<double>();
    EXPECT_FALSE(std::isnan(most)) << name;
    largest = std::max(largest, most / scale);
    ++compared;
  };
  for (const auto& item : module.named_parameters()) compare(item.key(), item.value());
  for (const auto& item : module.named_buffers()) compare(item.key(), item.value());
  EXPECT_EQ(compared, expected.size());
  return largest;
}

constexpr double kSame = 1e-6;

// A checkpoint of Python's after kSteps steps, with "expected": the weights after as many more.
void expect_goes_on(const Case& which, const std::string& folder) {
  const std::string path = folder + "/" + which.name + ".pt";
  const Inputs inputs(folder);
  TrainingRun run(which);
  const LoadReport report = load_python_checkpoint(run.state, path);
  EXPECT_TRUE(mentions(report.notes, "\"expected\"")) << "a key that is not known is told";
  EXPECT_EQ(run.state.iteration, uint64_t{kSteps});
  EXPECT_EQ(run.state.epoch, 1u);
  EXPECT_EQ(run.state.best_metric, 0.875);
  EXPECT_EQ(run.state.metrics().at("best_metric"), 0.875);
  if (run.is_adam) {
    EXPECT_EQ(run.scaler.scale, 1024);
    EXPECT_EQ(run.scaler.growth_interval, 100);
    EXPECT_EQ(run.scaler.growth_tracker, 7);
  }
  run.train(inputs, kSteps);
  EXPECT_LE(difference(*run.net, tensors_in(path, "expected")), kSame) << which.name;
  EXPECT_LE(difference(*run.ema, tensors_in(path, "expected_ema")), kSame) << which.name;
}

class PythonCheckpoint : public testing::TestWithParam<size_t> {
 protected:
  const Case& which() const { return cases()[GetParam()]; }
  std::string golden() const { return kGolden + "/" + which().name + ".pt"; }
};

TEST_P(PythonCheckpoint, GoesOnInCppAsInPython) { expect_goes_on(which(), kGolden); }

TEST_P(PythonCheckpoint, ComesBackAsItWasWritten) {
  const TempDir dir;
  const Inputs inputs(kGolden);
  TrainingRun first(which()), second(which());
  load_python_checkpoint(first.state, golden());
  const std::vector<std::string> left_out = save_python_checkpoint(first.state, dir / "next.pt");
  EXPECT_TRUE(left_out.empty()) << left_out.front();
  const LoadReport report = load_python_checkpoint(second.state, dir / "next.pt");
  EXPECT_EQ(report.notes, std::vector<std::string>{"the file has no states of random number generators"});
  EXPECT_EQ(second.state.best_metric, 0.875);
  save_python_checkpoint(second.state, dir / "again.pt");
  EXPECT_TRUE(test::read_all(dir / "next.pt") == test::read_all(dir / "again.pt"));
  first.train(inputs, kSteps);
  second.train(inputs, kSteps);
  EXPECT_TRUE(test::identical(*first.net, *second.net));
  EXPECT_TRUE(test::identical(*first.ema, *second.ema));
}

// What C++ made of it is kept by ckpt's own checkpoints, too.
TEST_P(PythonCheckpoint, SurvivesAStateFile) {
  const TempDir dir;
  const Inputs inputs(kGolden);
  TrainingRun first(which()), second(which());
  load_python_checkpoint(first.state, golden());
  first.train(inputs, 1);
  test::save_state(first.state, dir / "state.pt");
  test::load_state(second.state, dir / "state.pt");
  first.train(inputs, 2);
  second.train(inputs, 2);
  EXPECT_TRUE(test::identical(*first.net, *second.net));
}

// `ckpt convert --to checkpoint`: a state.pt without LibTorch, which plain LibTorch reads the model from.
TEST_P(PythonCheckpoint, BecomesAStateFile) {
  const TempDir dir;
  TrainingRun first(which()), second(which());
  load_python_checkpoint(first.state, golden());
  test::save_state(first.state, dir / "live.pt");  // for its names: the optimizer's parameters are the live ones
  std::vector<format::TensorToWrite> tensors;
  const format::ArchiveFile live = format::ArchiveFile::open(dir / "live.pt");
  const format::ArchiveToWrite tree = weights::archive_to_write(live, tensors);
  io::replace_file(dir / "state.pt", [&](io::BlockWriter& writer) { format::write_archive(writer, tree, tensors); });
  test::load_state(second.state, dir / "state.pt");
  EXPECT_TRUE(test::identical(*first.net, *second.net));
  test::save_state(second.state, dir / "again.pt");
  EXPECT_TRUE(test::read_all(dir / "live.pt") == test::read_all(dir / "again.pt"));
}

TEST(PythonCheckpointTree, HasTheLevelsThatPlainLibTorchLooksFor) {
  const TempDir dir;
  std::vector<std::string> warnings;
  std::vector<format::TensorToWrite> tensors;
  const format::ArchiveFile state =
      weights::training_state_of(format::TorchFile::open(io::File::open(kGolden + "/adam.pt")), {}, warnings);
  const format::ArchiveToWrite tree = weights::archive_to_write(state, tensors);
  io::replace_file(dir / "state.pt", [&](io::BlockWriter& writer) { format::write_archive(writer, tree, tensors); });
  Net net;
  torch::serialize::InputArchive file, part;
  file.load_from(dir / "state.pt");
  file.read("model", part);
  net->load(part);
  EXPECT_EQ(difference(*net, tensors_in(kGolden + "/adam.pt", "model_state_dict")), 0);
  TrainingRun run(adam());
  test::load_state(run.state, dir / "state.pt");
  EXPECT_TRUE(test::identical(*net, *run.net));
  EXPECT_EQ(run.optimizer->state().size(), 5u);
}

// `ckpt save --optimizer`: by the names in the model, whatever file that came from.
TEST_P(PythonCheckpoint, GivesItsOptimizerToAModelFromAFile) {
  const format::TorchFile file = format::TorchFile::open(io::File::open(golden()));
  std::vector<std::string> warnings;
  const auto model = weights::ModuleState::open(golden(), "model");
  const format::ArchiveFile stored = weights::optimizer_state_of(file, model.weights().tensors(), warnings);
  const TempDir dir;
  const std::string made =
      weights::save_to_run(
          {.run = dir / "run", .head = {}, .keep = {}, .model = &model, .optimizer = &stored, .optimizer_type = ""})
          .path;
  // What a live optimizer has of it: a file may hold as a number what is a tensor there (H_diag of LBFGS).
  TrainingRun wanted(which()), restored(which());
  load_python_checkpoint(wanted.state, golden());
  test::save_state(wanted.state, dir / "wanted.pt");
  test::load_state(restored.state, made + "/state.pt", {.parts = {"model", "optimizer"}});
  test::save_state(restored.state, dir / "restored.pt");
  const auto optimizer = [](const std::string& path) {
    const format::ArchiveFile whole = format::ArchiveFile::open(path);
    const format::Archive* part = whole.root().nested("optimizer");
    std::string text = *part->get<std::string>("description");
    for (const format::NamedTensor& named : format::tensors_of(*part, true)) {
      const std::vector<std::byte> bytes = whole.file().read_at(named.stored.file_offset, named.stored.bytes);
      text += named.name + std::string(as_text(bytes));
    }
    return text;
  };
  EXPECT_TRUE(optimizer(dir / "restored.pt") == optimizer(dir / "wanted.pt"));
}

INSTANTIATE_TEST_SUITE_P(All, PythonCheckpoint, testing::Range(size_t{0}, cases().size()),
                         [](const auto& test_info) { return std::string(cases()[test_info.param].name); });

void run_script(const std::string& command, const std::string& folder) {
  test::output_of({test::python(), CKPT_TEST_DATA "/python_checkpoints.py", command, folder});
}

TEST(PythonCheckpointWithPython, GoesOnInCpp) {
  if (!test::python()) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  const TempDir dir;
  run_script("make", dir.path());
  for (const Case& which : cases()) expect_goes_on(which, dir.path());
}

TEST(PythonCheckpointWithPython, GoesOnInPython) {
  if (!test::python()) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  const TempDir dir;
  test::write_all(dir / "inputs.pt", test::read_all(kGolden + "/inputs.pt"));
  const Inputs inputs(kGolden);
  std::vector<std::unique_ptr<TrainingRun>> runs;
  for (const Case& which : cases()) {
    // The options are the file's; the state is that of a run of C++ alone (its Adagrad has one from the start).
    auto run = std::make_unique<TrainingRun>(which);
    load_python_checkpoint(run->state, kGolden + "/" + which.name + ".pt");
    if (std::string(which.name) != "adagrad") run->optimizer->state().clear();
    run->state.iteration = 0;
    run->train(inputs, kSteps);
    save_python_checkpoint(run->state, dir / (std::string(which.name) + ".in.pt"));
    run->train(inputs, kSteps);
    runs.push_back(std::move(run));
  }
  run_script("resume", dir.path());
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string out = dir / (std::string(cases()[i].name) + ".out.pt");
    EXPECT_LE(difference(*runs[i]->net, tensors_in(out, "model_state_dict")), kSame) << cases()[i].name;
    EXPECT_LE(difference(*runs[i]->ema, tensors_in(out, "ema_state_dict")), kSame) << cases()[i].name;
  }
}

std::vector<torch::Tensor> values_of(const TrainingRun& run) { return test::copies(test::tensors_of(*run.net)); }

void expect_untouched(const TrainingRun& run, const std::vector<torch::Tensor>& before) {
  const auto now = test::tensors_of(*run.net);
  for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(test::identical(now[i], before[i]));
  EXPECT_TRUE(run.optimizer->state().empty());
  EXPECT_EQ(run.state.iteration, 0u);
}

TEST(PythonCheckpointLoad, TouchesNothingWhereAByteIsWrong) {
  const TempDir dir;
  std::string bytes = test::read_all(kGolden + "/adam.pt");
  const format::TorchFile file = format::TorchFile::open(io::File::open(kGolden + "/adam.pt"));
  const auto& record = *file.zip()->find("data/0");
  bytes[record.data_offset] = static_cast<char>(bytes[record.data_offset] ^ 1);
  test::write_all(dir / "bad.pt", bytes);
  TrainingRun run(adam());
  const auto before = values_of(run);
  const Error error = error_of([&] { load_python_checkpoint(run.state, dir / "bad.pt"); });
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(error.tensor(), "model_state_dict.conv.weight") << error.what();
  expect_untouched(run, before);
}

TEST(PythonCheckpointLoad, TouchesNothingWhereTheOptimizerIsAnother) {
  TrainingRun run(cases()[0]);
  run.state.add_scaler("scaler", run.scaler);
  const auto before = values_of(run);
  const Error error = error_of([&] { load_python_checkpoint(run.state, kGolden + "/adam.pt"); });
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_TRUE(mentions(error.details(), "type SGD")) << error.what();
  expect_untouched(run, before);
}

TEST(PythonCheckpointLoad, TakesPartsOfAnyNameByTheirKind) {
  Net net, ema;
  torch::optim::Adam optimizer(net->parameters(), torch::optim::AdamOptions(1));
  GradScalerState scaler;
  TrainingState state;
  state.add_module("model", *net).add_module("ema", *ema).add_optimizer("adam", optimizer).add_scaler("amp", scaler);
  load_python_checkpoint(state, kGolden + "/adam.pt");
  EXPECT_EQ(scaler.growth_tracker, 7);
  EXPECT_EQ(optimizer.state().size(), net->parameters().size());
  EXPECT_EQ(static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(), 0.01);
}

TEST(PythonCheckpointLoad, LeavesPartsWithoutAPlaceAsTheyAre) {
  TrainingRun run(adam());
  EpochSampler sampler(100, 5);
  torch::optim::StepLR schedule(*run.optimizer, 2);
  run.state.add_sampler("data (1)", sampler).add_scheduler("schedule", schedule);
  const LoadReport report = load_python_checkpoint(run.state, kGolden + "/adam.pt");
  EXPECT_TRUE(mentions(report.notes, "part \"data (1)\" stays as it is")) << report.notes.front();
  EXPECT_TRUE(mentions(report.notes, "part \"schedule\" stays as it is"));
  const Error asked = error_of([&] {
    load_python_checkpoint(run.state, kGolden + "/adam.pt", {.parts = {"model", "schedule"}});
  });
  EXPECT_EQ(asked.code(), ErrorCode::kMismatch);
  const TempDir dir;
  const auto left_out = save_python_checkpoint(run.state, dir / "next.pt");
  EXPECT_EQ(left_out.size(), 2u);
}

TEST(PythonCheckpointLoad, LoadsTheWeightsAloneWhereAskedTo) {
  Net net;
  TrainingState state;
  state.add_module("model", *net);
  EXPECT_EQ(error_of([&] { load_python_checkpoint(state, kGolden + "/adam.pt"); }).code(), ErrorCode::kMismatch);
  load_python_checkpoint(state, kGolden + "/adam.pt", {.parts = {"model"}});
  EXPECT_LE(difference(*net, tensors_in(kGolden + "/adam.pt", "model_state_dict")), 0);
  EXPECT_EQ(state.iteration, 0u);
}

TEST(PythonCheckpointLoad, RefusesOtherFiles) {
  TrainingRun run(adam());
  EXPECT_EQ(error_of([&] { load_python_checkpoint(run.state, kGolden + "/inputs.pt"); }).code(), ErrorCode::kMismatch);
  EXPECT_EQ(error_of([&] { load_python_checkpoint(run.state, kGolden + "/absent.pt"); }).code(), ErrorCode::kNotFound);
}

TEST(PythonCheckpointSave, RefusesWhatHasNoPlaceAndLeavesTheFile) {
  const TempDir dir;
  test::write_all(dir / "next.pt", "old");
  TrainingRun run(adam());
  Net other;
  run.state.add_module("critic", *other);
  const Error error = error_of([&] { save_python_checkpoint(run.state, dir / "next.pt"); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_NE(error.message().find("\"critic\""), std::string::npos) << error.what();
  EXPECT_EQ(test::read_all(dir / "next.pt"), "old");
}

TEST(PythonCheckpointSave, KeepsTiesTied) {
  const TempDir dir;
  struct TiedImpl : torch::nn::Module {
    TiedImpl() {
      in = register_parameter("in_weight", torch::randn({3, 2}));
      register_parameter("out_weight", in);
    }
    torch::Tensor in;
  } tied;
  TrainingState state;
  state.add_module("model", tied);
  save_python_checkpoint(state, dir / "tied.pt");
  const format::TorchFile file = format::TorchFile::open(io::File::open(dir / "tied.pt"));
  const auto below = format::tensors_below(file, file.root()).tensors;
  ASSERT_EQ(below.size(), 2u);
  EXPECT_EQ(below[0].stored.file_offset, below[1].stored.file_offset);
}

}  // namespace
}  // namespace ckpt
