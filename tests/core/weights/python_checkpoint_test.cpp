#include "core/weights/python_checkpoint.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>

#include "core/base/json.h"
#include "core/format/torch_writer.h"
#include "core/io/block_writer.h"
#include "core/weights/state_tree.h"
#include "support/temp_dir.h"

namespace ckpt::weights {
namespace {

using format::Archive;
using format::ArchiveFile;
using format::PickleValue;
using format::TorchFile;
using nlohmann::json;
using test::TempDir;

const std::string kGolden = CKPT_TEST_DATA "/python_checkpoints/";
using Shape = std::vector<int64_t>;
using Names = std::vector<std::vector<std::string>>;

TorchFile open(const std::string& path) { return TorchFile::open(io::File::open(path)); }

struct State {
  ArchiveFile tree;
  std::vector<std::string> warnings;

  const Archive& part(const std::string& name) const { return *tree.root().nested(name); }
  json description(const std::string& name) const {
    return parse_json(*part(name).get<std::string>("description"), "");
  }
};

State state_of(const std::string& path, const PythonOptions& options = {}) {
  std::vector<std::string> warnings;
  ArchiveFile tree = training_state_of(open(path), options, warnings);
  return {std::move(tree), std::move(warnings)};
}

Names parameters(const State& state) {
  Names names;
  const json description = state.description("optimizer");
  for (const json& group : description["groups"]) names.push_back(group["parameters"]);
  return names;
}

bool mention(const std::vector<std::string>& lines, const std::string& text) {
  for (const std::string& line : lines) {
    if (line.find(text) != std::string::npos) return true;
  }
  return false;
}

// ---- files made here

using Items = std::vector<std::pair<std::string, PickleValue>>;

PickleValue dict(Items items) {
  PickleValue::Dict made;
  for (auto& [key, value] : items) made.items.emplace_back(PickleValue{key}, std::move(value));
  return {std::move(made)};
}
PickleValue list(std::vector<PickleValue> items) { return {PickleValue::List{std::move(items)}}; }
PickleValue none() { return {PickleValue::None()}; }

/// A model of a few tensors and an optimizer over them, each piece open to change.
struct Made {
  std::vector<format::TensorToWrite> tensors;
  std::deque<std::vector<std::byte>> memory;
  Items model, sgd{{"lr", {0.5}},           {"momentum", {0.9}},   {"dampening", {int64_t{0}}},
                   {"weight_decay", {0.0}}, {"nesterov", {false}}, {"maximize", {false}}};
  Items adam{{"lr", {0.5}},        {"betas", {PickleValue::Tuple{{{0.9}, {0.99}}}}},
             {"eps", {1e-8}},      {"weight_decay", {int64_t{0}}},
             {"amsgrad", {false}}, {"decoupled_weight_decay", {false}}};
  Items top{{"iterations", {int64_t{5}}}, {"epoch", {int64_t{1}}}, {"best_metric", none()}};

  PickleValue tensor(Shape shape, float value = 0) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    const std::vector<float> values(count, value);
    const auto bytes = std::as_bytes(std::span(values));
    memory.emplace_back(bytes.begin(), bytes.end());
    tensors.push_back({"", DType::kFloat32, std::move(shape), ByteView(memory.back()), false, -1});
    return {PickleValue::Tensor{tensors.size() - 1}};
  }

  PickleValue buffer(Shape shape) { return dict({{"momentum_buffer", tensor(std::move(shape))}}); }
  PickleValue moments(Shape shape) {
    return dict({{"step", tensor({}, 3)}, {"exp_avg", tensor(shape)}, {"exp_avg_sq", tensor(shape)}});
  }

  static PickleValue group(Items options, std::vector<int64_t> indices) {
    std::vector<PickleValue> items;
    for (const int64_t index : indices) items.push_back({index});
    options.emplace_back("params", list(std::move(items)));
    return dict(std::move(options));
  }

  static PickleValue optimizer(std::vector<PickleValue> groups, std::vector<std::pair<int64_t, PickleValue>> states) {
    PickleValue::Dict state;
    for (auto& [index, value] : states) state.items.emplace_back(PickleValue{index}, std::move(value));
    return dict({{"state", {std::move(state)}}, {"param_groups", list(std::move(groups))}});
  }

  void write(const std::string& path) {
    Items all = top;
    all.emplace_back("model_state_dict", dict(model));
    io::replace_file(path,
                     [&](io::BlockWriter& writer) { format::write_torch(writer, dict(std::move(all)), tensors); });
  }
};

class PythonCheckpoint : public testing::Test {
 protected:
  State written() {
    made.write(path);
    return state_of(path);
  }
  /// What is thrown for it; kInternal where nothing is.
  Error error() {
    try {
      written();
    } catch (const Error& thrown) {
      return thrown;
    }
    return Error(ErrorCode::kInternal, "", "nothing was thrown");
  }
  void set_optimizer(PickleValue value) { made.top.emplace_back("optim_state_dict", std::move(value)); }
  /// Two layers whose biases have one shape.
  void set_layers() {
    made.model = {{"a.weight", made.tensor({4, 2})},
                  {"a.bias", made.tensor({4})},
                  {"n.running_mean", made.tensor({4})},
                  {"b.weight", made.tensor({4, 4})},
                  {"b.bias", made.tensor({4})}};
  }

  TempDir dir;
  std::string path = dir / "checkpoint.pt";
  Made made;
};

// ---- what Python wrote

TEST_F(PythonCheckpoint, BecomesTheTreeOfAState) {
  const State state = state_of(kGolden + "adam.pt");
  EXPECT_TRUE(format::is_training_state(state.tree.root()));
  EXPECT_EQ(*state.part("ckpt").get<int64_t>("version"), 1);
  const json head = state.description("ckpt");
  EXPECT_EQ(head["parts"], json::parse(R"({"model": {"kind": "module"}, "ema": {"kind": "module"},
      "optimizer": {"kind": "optimizer"}, "scaler": {"kind": "scaler"}})"));
  EXPECT_EQ(head["iteration"], 3);
  EXPECT_EQ(head["epoch"], 1);
  EXPECT_EQ(head["best_metric"], 0.875);
  EXPECT_EQ(head["metrics"], json::parse(R"({"best_metric": 0.875})"));

  const Archive* conv = state.part("model").nested("conv");
  ASSERT_NE(conv, nullptr);
  EXPECT_EQ(conv->get<format::StoredTensor>("weight")->shape, (Shape{2, 1, 3, 3}));
  EXPECT_TRUE(conv->get<format::StoredTensor>("weight")->is_parameter);
  EXPECT_FALSE(state.part("model").nested("norm")->get<format::StoredTensor>("running_mean")->is_parameter);
  EXPECT_NE(state.part("model").nested("relu"), nullptr) << "a module without tensors is a level, too";

  const json optimizer = state.description("optimizer");
  EXPECT_EQ(optimizer["type"], "Adam");
  EXPECT_EQ(optimizer["groups"].size(), 1u);
  EXPECT_EQ(optimizer["groups"][0]["options"],
            json::parse(R"({"lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-7, "weight_decay": 0.02, "amsgrad": false})"));
  EXPECT_EQ(parameters(state)[0], (std::vector<std::string>{"model/conv.weight", "model/norm.weight", "model/norm.bias",
                                                            "model/fc.weight", "model/fc.bias"}));
  EXPECT_EQ(optimizer["state"]["model/fc.bias"], json::parse(R"({"step": 3})"));
  const Archive* moments = state.part("optimizer").nested("state")->nested("exp_avg_sq");
  EXPECT_EQ(moments->nested("model/fc")->get<format::StoredTensor>("weight")->shape, (Shape{3, 18}));
  EXPECT_EQ(state.description("scaler"), json::parse(R"({"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5,
      "growth_interval": 100, "growth_tracker": 7})"));
}

TEST_F(PythonCheckpoint, UnderstandsNumbersOfNumpyAndTensors) {
  const State state = state_of(kGolden + "odd.pt");
  const json head = state.description("ckpt");
  EXPECT_EQ(head["iteration"], 7000000000);
  EXPECT_EQ(head["epoch"], 12);
  EXPECT_EQ(head["best_metric"], double{0.1f});
  EXPECT_EQ(state.description("scaler")["growth_tracker"], 3);
  EXPECT_EQ(state.description("scaler")["growth_interval"], 2000);
  const json options = state.description("optimizer")["groups"][0]["options"];
  EXPECT_EQ(options["lr"], 0.25);
  EXPECT_EQ(options["momentum"], 0.5);
}

TEST_F(PythonCheckpoint, TakesOffWrappersAndTellsWhatItLeavesOut) {
  const State state = state_of(kGolden + "odd.pt");
  EXPECT_NE(state.part("model").nested("conv"), nullptr);
  EXPECT_NE(state.part("ema").nested("conv"), nullptr);
  EXPECT_EQ(parameters(state)[0][0], "model/conv.weight");
  EXPECT_TRUE(mention(state.warnings, "\"n_averaged\""));
  EXPECT_TRUE(mention(state.warnings, "\"args\""));
}

TEST_F(PythonCheckpoint, OfTheSixOptimizersHaveTheirTypes) {
  for (const auto& [name, type] : std::vector<std::pair<std::string, std::string>>{{"sgd", "SGD"},
                                                                                   {"adam_amsgrad", "Adam"},
                                                                                   {"rmsprop", "RMSprop"},
                                                                                   {"adagrad", "Adagrad"},
                                                                                   {"lbfgs", "LBFGS"}}) {
    EXPECT_EQ(state_of(kGolden + name + ".pt").description("optimizer")["type"], type);
  }
  const State adamw = state_of(kGolden + "adamw.pt");
  EXPECT_EQ(adamw.description("optimizer")["type"], "AdamW");
  EXPECT_EQ(parameters(adamw), (Names{{"model/conv.weight", "model/fc.weight"},
                                      {"model/norm.weight", "model/norm.bias", "model/fc.bias"}}))
      << "each shape is in one group alone";
}

TEST_F(PythonCheckpoint, OfLbfgsKeepsItsPlainFirstScale) {
  const json state = state_of(kGolden + "lbfgs_first.pt").description("optimizer")["state"]["model/conv.weight"];
  EXPECT_EQ(state["H_diag"], 1);
  EXPECT_EQ(state["n_iter"], 1);
  EXPECT_EQ(state["old_dirs"], 0);
  EXPECT_FALSE(state.contains("al"));
}

// ---- names of parameters

TEST_F(PythonCheckpoint, LeavesTheTypeOpenWhereAdamAndAdamwAreTheSame) {
  set_layers();
  made.adam.pop_back();
  set_optimizer(Made::optimizer({Made::group(made.adam, {0, 1, 2, 3})}, {}));
  EXPECT_EQ(written().description("optimizer")["type"], "unknown");
}

TEST_F(PythonCheckpoint, CountsParametersInTheOrderOfTheModelWithoutBuffers) {
  set_layers();
  set_optimizer(Made::optimizer({Made::group(made.sgd, {0, 1, 2, 3})}, {{3, made.buffer({4})}}));
  EXPECT_EQ(parameters(written()), (Names{{"model/a.weight", "model/a.bias", "model/b.weight", "model/b.bias"}}));
}

TEST_F(PythonCheckpoint, FindsTheOnesThatAreTrainedByTheirShapes) {
  set_layers();
  set_optimizer(Made::optimizer({Made::group(made.sgd, {0, 1})}, {{0, made.buffer({4, 4})}, {1, made.buffer({4})}}));
  EXPECT_EQ(parameters(written()), (Names{{"model/b.weight", "model/b.bias"}}));
}

TEST_F(PythonCheckpoint, DoesNotGuessBetweenParametersOfOneShape) {
  set_layers();
  const auto two = Made::optimizer(
      {Made::group(made.sgd, {0, 2, 1}), Made::group(made.sgd, {3})},
      {{0, made.buffer({4, 2})}, {1, made.buffer({4})}, {2, made.buffer({4, 4})}, {3, made.buffer({4})}});
  set_optimizer(two);
  EXPECT_EQ(error().code(), ErrorCode::kMismatch);
  EXPECT_NE(error().message().find("found 4 parameters in 2 groups"), std::string::npos) << error().what();
  made.top.back().second = Made::optimizer({Made::group(made.sgd, {0})}, {{0, made.buffer({4})}});
  EXPECT_EQ(error().code(), ErrorCode::kMismatch);
}

TEST_F(PythonCheckpoint, GoesByTheNamesOfALiveOptimizer) {
  set_layers();
  set_optimizer(Made::optimizer({Made::group(made.sgd, {0, 1})}, {{1, made.buffer({4})}}));
  made.write(path);
  const Names names{{"model/b.weight", "model/a.bias"}};
  EXPECT_EQ(parameters(state_of(path, {.parameter_names = names})), names);
  try {
    state_of(path, {.parameter_names = Names{{"model/b.weight"}}});
    FAIL();
  } catch (const Error& thrown) {
    EXPECT_EQ(thrown.code(), ErrorCode::kMismatch);
    EXPECT_NE(thrown.message().find("group 0: expected 1 parameters, found 2"), std::string::npos) << thrown.what();
  }
}

TEST_F(PythonCheckpoint, PrefersTheNamesInTheFile) {
  set_layers();
  made.sgd.emplace_back("param_names", list({{std::string("module.b.bias")}, {std::string("a.bias")}}));
  set_optimizer(Made::optimizer({Made::group(made.sgd, {0, 1})}, {}));
  made.write(path);
  EXPECT_EQ(parameters(state_of(path, {.parameter_names = Names{{"model/x", "model/y"}}})),
            (Names{{"model/b.bias", "model/a.bias"}}));
}

TEST_F(PythonCheckpoint, HasNoStateWhereAllIsNone) {
  set_layers();
  set_optimizer(Made::optimizer({Made::group(made.sgd, {0, 1, 2, 3})}, {{0, dict({{"momentum_buffer", none()}})}}));
  EXPECT_TRUE(written().description("optimizer")["state"].empty());
}

// ---- what does not fit

struct Misfit {
  const char* name;
  std::function<void(Made&)> change;
  ErrorCode code;
  const char* text;
};

PickleValue adam_of(Made& made, const std::function<void(Items&)>& change) {
  Items options = made.adam;
  change(options);
  return Made::optimizer({Made::group(options, {0, 1, 2, 3})}, {{0, made.moments({4, 2})}});
}
void set(Items& items, const std::string& key, PickleValue value) {
  for (auto& [name, old] : items) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  items.emplace_back(key, std::move(value));
}
std::function<void(Made&)> top(const std::string& key, std::function<PickleValue(Made&)> value) {
  return [=](Made& made) { set(made.top, key, value(made)); };
}
std::function<void(Made&)> adam_option(const std::string& key, std::function<PickleValue(Made&)> value) {
  return top("optim_state_dict",
             [=](Made& made) { return adam_of(made, [&](Items& items) { set(items, key, value(made)); }); });
}
std::function<void(Made&)> adam_state(std::function<PickleValue(Made&)> state) {
  return top("optim_state_dict", [=](Made& made) {
    return Made::optimizer({Made::group(made.adam, {0, 1, 2, 3})}, {{0, state(made)}});
  });
}

std::vector<Misfit> misfits() {
  using enum ErrorCode;
  const auto text = [](Made&) { return PickleValue{std::string("much")}; };
  return {
      {"no tensors", [](Made& m) { m.model.clear(); }, kMismatch, "holds no tensors"},
      {"iterations are text", top("iterations", text), kMismatch, "iterations: expected a count"},
      {"iterations below zero", top("iterations", [](Made&) { return PickleValue{int64_t{-1}}; }), kMismatch, "count"},
      {"iterations between", top("iterations", [](Made&) { return PickleValue{1.5}; }), kMismatch, "count"},
      {"no optimizer", top("optim_state_dict", text), kMismatch, "expected an optimizer's state_dict"},
      {"no groups", top("optim_state_dict", [](Made&) { return Made::optimizer({}, {}); }), kMismatch,
       "1 to 10000 parameter groups, found 0"},
      {"maximize", adam_option("maximize", [](Made&) { return PickleValue{true}; }), kUnsupported, "maximize"},
      {"learning rate is text", adam_option("lr", text), kMismatch, "option \"lr\""},
      {"one beta", adam_option("betas", [](Made&) { return list({{0.5}}); }), kMismatch, "option \"betas\""},
      {"another optimizer",
       top("optim_state_dict",
           [](Made& m) {
             return adam_of(m, [](Items& items) {
               std::erase_if(items, [](const auto& item) { return item.first == "amsgrad"; });
             });
           }),
       kUnsupported, "expected the options of SGD"},
      {"two optimizers",
       top("optim_state_dict",
           [](Made& m) {
             return Made::optimizer({Made::group(m.adam, {0}), Made::group(m.sgd, {1})}, {});
           }),
       kMismatch, "group 1: options of another optimizer"},
      {"both Adams",
       top("optim_state_dict",
           [](Made& m) {
             Items other = m.adam;
             set(other, "decoupled_weight_decay", {true});
             return Made::optimizer({Made::group(m.adam, {0}), Made::group(other, {1})}, {});
           }),
       kUnsupported, "decoupled"},
      {"a parameter twice",
       top("optim_state_dict",
           [](Made& m) {
             return Made::optimizer({Made::group(m.adam, {0, 0})}, {});
           }),
       kMismatch, "parameter 0 is there twice"},
      {"more parameters than tensors",
       top("optim_state_dict",
           [](Made& m) {
             return Made::optimizer({Made::group(m.adam, {0, 1, 2, 3, 4, 5, 6})}, {});
           }),
       kMismatch, "expected at most"},
      {"a state of no parameter",
       top("optim_state_dict",
           [](Made& m) {
             return Made::optimizer({Made::group(m.adam, {0, 1, 2, 3})}, {{9, m.moments({4, 2})}});
           }),
       kMismatch, "a state of no parameter"},
      {"another shape", adam_state([](Made& m) {
         return m.moments({4, 3});
       }),
       kMismatch, "expected parameter 0 to be \"a.weight\" of shape [4, 2], found a state of shape [4, 3]"},
      {"no second moment", adam_state([](Made& m) {
         return dict({{"step", {int64_t{1}}}, {"exp_avg", m.tensor({4, 2})}});
       }),
       kMismatch, "has no \"exp_avg_sq\""},
      {"no step", adam_state([](Made& m) {
         return dict({{"exp_avg", m.tensor({4, 2})}, {"exp_avg_sq", m.tensor({4, 2})}});
       }),
       kMismatch, "has no \"step\""},
      {"half a step", adam_state([](Made& m) {
         return dict({{"step", m.tensor({}, 0.5f)}, {"exp_avg", m.tensor({4, 2})}, {"exp_avg_sq", m.tensor({4, 2})}});
       }),
       kMismatch, "expected a count as \"step\""},
      {"a field of another", adam_state([](Made& m) {
         return dict({{"momentum_buffer", m.tensor({4, 2})}});
       }),
       kMismatch, "Adam has no \"momentum_buffer\""},
      {"no tensor", adam_state([](Made&) {
         return dict({{"exp_avg", {1.5}}});
       }),
       kMismatch, "expected a tensor"},
      {"amsgrad without its maximum", adam_option("amsgrad", [](Made&) { return PickleValue{true}; }), kMismatch,
       "has no \"max_exp_avg_sq\""},
      {"scaler without scale",
       top("gradient_scaler_state_dict",
           [](Made&) {
             return dict({{"growth_factor", {2.0}}});
           }),
       kMismatch, "no \"scale\""},
      {"scaler of text",
       top("gradient_scaler_state_dict",
           [=](Made& m) {
             return dict({{"scale", text(m)}});
           }),
       kMismatch, "expected a number as \"scale\""},
  };
}

TEST_F(PythonCheckpoint, IsRefusedWhereItDoesNotFit) {
  for (const Misfit& misfit : misfits()) {
    made = Made();
    set_layers();
    misfit.change(made);
    const Error thrown = error();
    EXPECT_EQ(thrown.code(), misfit.code) << misfit.name << ": " << thrown.what();
    EXPECT_NE(thrown.message().find(misfit.text), std::string::npos) << misfit.name << ": " << thrown.what();
    EXPECT_EQ(thrown.path(), path) << misfit.name;
  }
}

TEST_F(PythonCheckpoint, IsNoneWhereTheTopIsAnother) {
  EXPECT_FALSE(is_python_checkpoint(open(kGolden + "inputs.pt")));
  EXPECT_TRUE(is_python_checkpoint(open(kGolden + "sgd.pt")));
  set_layers();
  made.top = {{"best_metric", none()}};
  made.write(path);
  EXPECT_FALSE(is_python_checkpoint(open(path)));
}

TEST_F(PythonCheckpoint, NeedsNoOptimizerThatIsNotAskedFor) {
  set_layers();
  set_optimizer({std::string("of another kind")});
  made.write(path);
  const State state = state_of(path, {.optimizer = false});
  EXPECT_EQ(state.description("ckpt")["parts"], json::parse(R"({"model": {"kind": "module"}})"));
}

TEST_F(PythonCheckpoint, OfAnOptimizerAloneGoesWithAModelOfAnotherFile) {
  set_layers();
  set_optimizer(Made::optimizer({Made::group(made.sgd, {0, 1, 2, 3})}, {{3, made.buffer({4})}}));
  made.write(path);
  const std::string alone = dir / "optimizer.pt";
  io::replace_file(alone,
                   [&](io::BlockWriter& writer) { format::write_torch(writer, made.top.back().second, made.tensors); });
  const TorchFile model = open(path);
  const auto tensors = format::tensors_below(model, model.find(model.root(), "model_state_dict")).tensors;
  std::vector<std::string> warnings;
  const State whole{optimizer_state_of(model, tensors, warnings), {}};
  const State part{optimizer_state_of(open(alone), tensors, warnings), {}};
  EXPECT_TRUE(warnings.empty());
  EXPECT_EQ(part.description("ckpt")["parts"], json::parse(R"({"optimizer": {"kind": "optimizer"}})"));
  EXPECT_EQ(part.description("optimizer"), whole.description("optimizer"));
  EXPECT_EQ(parameters(part)[0][3], "model/b.bias");
  EXPECT_THROW(optimizer_state_of(open(kGolden + "inputs.pt"), tensors, warnings), Error);
}

// ---- and back

/// What python_checkpoint_of makes of a state, in a file.
std::vector<std::string> write_python(const ArchiveFile& state, const std::string& path) {
  std::vector<std::string> warnings;
  std::vector<format::TensorToWrite> tensors;
  const format::ArchiveToWrite tree = archive_to_write(state, tensors);
  const PickleValue value = python_checkpoint_of(tree, state.file().path(), tensors, warnings);
  io::replace_file(path, [&](io::BlockWriter& writer) { format::write_torch(writer, value, tensors); });
  return warnings;
}

std::vector<std::byte> bytes_of(const ArchiveFile& file, const format::StoredTensor& tensor) {
  return file.file().read_at(tensor.file_offset, tensor.bytes);
}

TEST_F(PythonCheckpoint, ComesBackWithEveryValue) {
  for (const char* name : {"sgd", "sgd_momentum", "sgd_dampening", "adam", "adam_amsgrad", "adamw", "rmsprop",
                           "rmsprop_centered", "adagrad", "lbfgs", "lbfgs_first", "lbfgs_wolfe", "odd"}) {
    PythonOptions options;
    if (std::string(name) == "sgd_momentum" || std::string(name) == "adamw") {
      options.parameter_names =
          Names{{"model/conv.weight", "model/fc.weight"}, {"model/norm.weight", "model/norm.bias", "model/fc.bias"}};
    }
    const State first = state_of(kGolden + name + ".pt", options);
    EXPECT_TRUE(write_python(first.tree, path).empty()) << name;
    const State second = state_of(path, options);
    EXPECT_TRUE(second.warnings.empty()) << name << ": " << second.warnings.front();
    for (const char* part : {"ckpt", "optimizer"}) {
      EXPECT_EQ(first.description(part), second.description(part)) << name;
    }
    const auto before = format::tensors_of(first.tree.root()), after = format::tensors_of(second.tree.root());
    ASSERT_EQ(before.size(), after.size()) << name;
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(before[i].name, after[i].name) << name;
      EXPECT_EQ(bytes_of(first.tree, before[i].stored), bytes_of(second.tree, after[i].stored)) << before[i].name;
    }
  }
}

TEST_F(PythonCheckpoint, HasAllOptionsThatPythonLooksFor) {
  write_python(state_of(kGolden + "adamw.pt").tree, path);
  const TorchFile file = open(path);
  const auto groups = file.items(file.find(file.find(file.root(), "optim_state_dict"), "param_groups"));
  ASSERT_EQ(groups.size(), 2u);
  for (const char* key : {"lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "foreach", "capturable",
                          "differentiable", "fused", "decoupled_weight_decay", "params"}) {
    EXPECT_NE(file.find(groups[0], key), format::kNoNode) << key;
  }
  EXPECT_EQ(file.pickle().kind(file.find(groups[0], "betas")), format::PickleKind::kTuple);
  const auto state = file.items(file.find(file.find(file.root(), "optim_state_dict"), "state"));
  const format::StoredTensor step = file.tensor(file.find(state[1], "step"));
  EXPECT_EQ(step.dtype, DType::kFloat32);
  EXPECT_TRUE(step.shape.empty());
}

TEST_F(PythonCheckpoint, KeepsNamesWithDotsAndLibTorchsKeywords) {
  made.model = {{"a", made.tensor({1})}, {"a.b", made.tensor({2})}, {"class.in", made.tensor({3})}};
  const State first = written();
  const std::string next = dir / "next.pt";
  write_python(first.tree, next);
  const TorchFile file = open(next);
  for (const char* name : {"a", "a.b", "class.in"}) {
    EXPECT_NE(file.find(file.find(file.root(), "model_state_dict"), name), format::kNoNode) << name;
  }
}

TEST_F(PythonCheckpoint, RefusesALevelTooMany) {
  std::string deep = "a";
  for (int i = 0; i < 1001; ++i) deep += ".a";
  made.model = {{deep, made.tensor({1})}};
  EXPECT_EQ(error().code(), ErrorCode::kCorrupt);
}

format::ArchiveToWrite state_with(const std::string& parts) {
  const auto empty = std::make_shared<const format::ArchiveToWrite>();
  format::ArchiveToWrite head, root;
  head.members.emplace_back("description", R"({"parts": {)" + parts + R"(}, "epoch": 0, "iteration": 4, "metrics":
      {"loss": 1.5}, "best_metric": null, "metadata": {}})");
  root.members.emplace_back("ckpt", std::make_shared<const format::ArchiveToWrite>(head));
  for (const char* name : {"model", "critic", "data"}) root.members.emplace_back(name, empty);
  return root;
}

TEST_F(PythonCheckpoint, HasNoPlaceForSomeParts) {
  std::vector<format::TensorToWrite> tensors;
  std::vector<std::string> warnings;
  const auto export_of = [&](const std::string& parts) {
    try {
      python_checkpoint_of(state_with(parts), "state.pt", tensors, warnings);
    } catch (const Error& thrown) {
      return thrown;
    }
    return Error(ErrorCode::kInternal, "", "nothing was thrown");
  };
  const std::string model = R"("model": {"kind": "module"})";
  EXPECT_EQ(export_of(model + R"(, "critic": {"kind": "module"})").code(), ErrorCode::kUnsupported);
  EXPECT_EQ(export_of(model + R"(, "critic": {"kind": "custom"})").code(), ErrorCode::kUnsupported);
  EXPECT_EQ(export_of(model + R"(, "lost": {"kind": "module"})").code(), ErrorCode::kCorrupt);
  EXPECT_EQ(export_of(R"("model": 1)").code(), ErrorCode::kCorrupt);
  EXPECT_TRUE(warnings.empty());
  EXPECT_EQ(export_of(model + R"(, "data": {"kind": "sampler"})").code(), ErrorCode::kInternal);
  EXPECT_TRUE(mention(warnings, "\"data\""));
  EXPECT_TRUE(mention(warnings, "\"loss\""));
}

TEST_F(PythonCheckpoint, RefusesAStateWhoseCountsAreNone) {
  for (const char* count : {"-1", "1.5", "1e300", "18446744073709551615", "null", "\"1\"", "[]"}) {
    SCOPED_TRACE(count);
    const std::string description = R"({"parts": {}, "epoch": 0, "iteration": )" + std::string(count) +
                                    R"(, "metrics": {}, "best_metric": null, "metadata": {}})";
    const auto head = std::make_shared<Archive>();
    head->members.emplace_back("description", description);
    head->index();
    const auto root = std::make_shared<Archive>();
    root->members.emplace_back("ckpt", std::shared_ptr<const Archive>(head));
    root->index();
    const ArchiveFile state(std::make_shared<const io::File>(io::File::open(kGolden + "sgd.pt")), root);
    try {
      head_of(state);
      ADD_FAILURE();
    } catch (const Error& thrown) {
      EXPECT_EQ(thrown.code(), ErrorCode::kCorrupt) << thrown.what();
    }
    std::vector<format::TensorToWrite> tensors;
    std::vector<std::string> warnings;
    try {
      format::ArchiveToWrite tree = archive_to_write(state, tensors);
      tree.members.emplace_back("model", std::make_shared<const format::ArchiveToWrite>());
      python_checkpoint_of(tree, "state.pt", tensors, warnings);
      ADD_FAILURE();
    } catch (const Error& thrown) {
      EXPECT_EQ(thrown.code(), ErrorCode::kCorrupt) << thrown.what();
    }
  }
}

TEST_F(PythonCheckpoint, TellsWhatAManifestSays) {
  const run::CheckpointHead head = head_of(state_of(kGolden + "adam.pt").tree);
  EXPECT_EQ(head.iteration, 3u);
  EXPECT_EQ(head.epoch, 1u);
  EXPECT_EQ(head.metrics, (std::map<std::string, double>{{"best_metric", 0.875}}));
}

}  // namespace
}  // namespace ckpt::weights
