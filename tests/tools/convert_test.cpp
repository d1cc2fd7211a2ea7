#include <gtest/gtest.h>

#include "program.h"
#include "weights_files.h"

namespace ckpt::test {
namespace {

class Convert : public ::testing::Test {
 protected:
  void SetUp() override {
    write_floats(in_,
                 {{"body.bias", {{2}, {1, 2}}}, {"body.weight", {{2, 2}, {3, 4, 5, 6}}}, {"head.weight", {{1}, {7}}}});
  }
  TempDir dir_;
  std::string in_ = dir_ / "in.safetensors";
  using Tensors = std::map<std::string, std::vector<float>>;
};

TEST_F(Convert, WritesEveryFormatAndReadsItBack) {
  const Tensors expected = floats_in(in_);
  for (const auto& [name, to] : std::map<std::string, std::string>{
           {"o.pt", "torch"}, {"o.pth", "torch"}, {"o.bin", "torch"}, {"o.safetensors", "safetensors"}}) {
    const Outcome outcome = ckpt({"convert", "--json", in_, dir_ / name});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.json(), (nlohmann::json{{"schema", 1},
                                              {"outputs", {dir_ / name}},
                                              {"format", to},
                                              {"tensors", 3},
                                              {"bytes", 28},
                                              {"skipped", nlohmann::json::array()}}));
    EXPECT_EQ(floats_in(dir_ / name), expected) << name;
  }
  ASSERT_EQ(ckpt({"convert", in_, dir_ / "a.pt", "--to", "archive"}).code, 0);
  EXPECT_EQ(floats_in(dir_ / "a.pt"), expected);
  EXPECT_EQ(ckpt({"inspect", "--json", dir_ / "a.pt"}).json().at("format"), "archive");
  EXPECT_EQ(ckpt({"inspect", "--json", dir_ / "o.pt"}).json().at("format"), "torch");
}

TEST_F(Convert, PrintsThePathAloneOnStdout) {
  const Outcome outcome = ckpt({"convert", in_, dir_ / "o.pt"});
  EXPECT_EQ(outcome.out, (dir_ / "o.pt") + "\n");
  EXPECT_TRUE(outcome.err.starts_with("wrote 3 tensors, 28 B in ")) << outcome.err;
}

TEST_F(Convert, IsDeterministic) {
  for (const char* name : {"1.pt", "2.pt", "1.safetensors", "2.safetensors"}) {
    ASSERT_EQ(ckpt({"convert", in_, dir_ / name}).code, 0);
  }
  EXPECT_EQ(read_all(dir_ / "1.safetensors"), read_all(dir_ / "2.safetensors"));
  // The name of a torch file's top folder is no part of this: it is the same in all.
  EXPECT_EQ(read_all(dir_ / "1.pt"), read_all(dir_ / "2.pt"));
}

TEST_F(Convert, RenamesAndExcludesInOrder) {
  const Outcome outcome = ckpt({"convert", "--json", in_, dir_ / "o.safetensors", "--rename", "^body\\.=backbone.",
                                "--rename", "back(.*)\\.=\\1/", "--exclude", "^head"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(floats_in(dir_ / "o.safetensors"), (Tensors{{"bone/bias", {1, 2}}, {"bone/weight", {3, 4, 5, 6}}}));
  EXPECT_EQ(outcome.json().at("skipped").at(0).at("name"), "head.weight");
}

TEST_F(Convert, TwoNamesThatMeetAreAMismatch) {
  const Outcome outcome =
      ckpt({"convert", "--json", in_, dir_ / "o.safetensors", "--rename", "body\\.(bias|weight)=x"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_EQ(outcome.error().at("code"), "mismatch");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "o.safetensors"));
}

TEST_F(Convert, ChangesTheDtypeOfFloatingTensors) {
  ASSERT_EQ(ckpt({"convert", in_, dir_ / "o.safetensors", "--dtype", "bf16"}).code, 0);
  const nlohmann::json json = ckpt({"inspect", "--json", dir_ / "o.safetensors"}).json();
  for (const auto& tensor : json.at("tensors")) {
    EXPECT_EQ(tensor.at("dtype"), "bfloat16");
  }
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "p.safetensors", "--dtype", "int8"}).code, 2);
}

TEST_F(Convert, ShardsBySize) {
  const Outcome outcome = ckpt({"convert", "--json", in_, dir_ / "m.safetensors", "--max-shard-size", "16B"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_GE(outcome.json().at("outputs").size(), 3u);
  const std::string index = dir_ / "m.safetensors.index.json";
  EXPECT_EQ(ckpt({"inspect", "--json", index}).json().at("format"), "safetensors-index");
  EXPECT_EQ(floats_in(index), floats_in(in_));
  for (const char* size : {"0", "5XB", "GB", "-1", "99999999999GB"}) {
    EXPECT_EQ(ckpt({"convert", in_, dir_ / "n.safetensors", "--max-shard-size", size}).code, 2) << size;
  }
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "n.pt", "--max-shard-size", "1GB"}).code, 2);
}

TEST_F(Convert, NeedsForceToReplaceAFileOfAnotherKind) {
  write_all(dir_ / "notes.pt", "my notes");
  const Outcome refused = ckpt({"convert", in_, dir_ / "notes.pt"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(read_all(dir_ / "notes.pt"), "my notes");
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "notes.pt", "--force"}).code, 0);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "notes.pt"}).code, 0) << "it is of the kind now";
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "notes.pt", "--to", "safetensors"}).code, 1);
}

TEST_F(Convert, AFailureLeavesTheOldOutput) {
  ASSERT_EQ(ckpt({"convert", in_, dir_ / "o.pt"}).code, 0);
  const std::string before = read_all(dir_ / "o.pt");
  ASSERT_EQ(ckpt({"convert", in_, dir_ / "damaged.pt"}).code, 0);
  const std::string bytes = read_all(dir_ / "damaged.pt");
  const size_t place = bytes.find(std::string("\0\0\xe0\x40", 4));  // 7.0f
  ASSERT_NE(place, std::string::npos);
  flip_byte(dir_ / "damaged.pt", place);
  const Outcome outcome = ckpt({"convert", "--json", dir_ / "damaged.pt", dir_ / "o.pt"});
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  EXPECT_EQ(read_all(dir_ / "o.pt"), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 3) << "a temporary file was left";
}

TEST_F(Convert, APythonCheckpointBecomesACheckpointOfARunAndBack) {
  const std::string python = data("python_checkpoints/adam.pt");
  const Outcome there = ckpt({"convert", "--json", python, dir_ / "run", "--to", "checkpoint"});
  ASSERT_EQ(there.code, 0) << there.err;
  EXPECT_EQ(there.json().at("outputs"), nlohmann::json{dir_ / "run/step-000000000003"});
  EXPECT_EQ(there.json().at("format"), "checkpoint");
  const auto list = ckpt({"list", "--json", dir_ / "run"}).json().at("checkpoints").at(0);
  EXPECT_EQ(list.at("epoch"), 1);
  EXPECT_EQ(list.at("metrics"), (nlohmann::json{{"best_metric", 0.875}}));
  EXPECT_EQ(ckpt({"verify", dir_ / "run"}).code, 0);
  const Outcome back = ckpt({"convert", dir_ / "run", dir_ / "back.pt", "--to", "torch"});
  ASSERT_EQ(back.code, 0) << back.err;
  for (const char* key : {"model_state_dict", "ema_state_dict", "optim_state_dict"}) {
    EXPECT_EQ(ckpt({"diff", python, dir_ / "back.pt", "--key", key}).code, 0) << key;
  }
  const auto values = ckpt({"inspect", "--json", dir_ / "back.pt"}).json().at("metadata");
  EXPECT_EQ(values.at("iterations"), 3);
  EXPECT_EQ(values.at("epoch"), 1);
  EXPECT_EQ(values.at("best_metric"), 0.875);
  EXPECT_EQ(values.at("gradient_scaler_state_dict").at("scale"), 1024.0);
  EXPECT_EQ(ckpt({"convert", python, dir_ / "run", "--to", "checkpoint", "--dtype", "f16"}).code, 2);
}

TEST_F(Convert, PlainWeightsBecomeTheModelOfACheckpoint) {
  ASSERT_EQ(ckpt({"convert", in_, dir_ / "run", "--to", "checkpoint"}).code, 0);
  EXPECT_EQ(floats_in(dir_ / "run"), floats_in(in_));
  EXPECT_EQ(ckpt({"verify", dir_ / "run"}).code, 0);
  EXPECT_EQ(ckpt({"convert", in_, in_, "--to", "checkpoint"}).code, 3) << "OUT is a file";
}

TEST_F(Convert, WeightsOfAnyFormatBecomeACheckpointWithEachWarningOnce) {
  for (const char* name : {"pt2/net.pt2", "torch/shapes-legacy.pt", "torch/traced.pt", "torch/foreign.pt"}) {
    const Outcome outcome = ckpt({"convert", "--json", data(name), dir_ / "run", "--to", "checkpoint"});
    ASSERT_EQ(outcome.code, 0) << name << ": " << outcome.err;
    EXPECT_EQ(ckpt({"diff", data(name), dir_ / "run"}).code, 0) << name;
    const nlohmann::json warnings = outcome.json().value("warnings", nlohmann::json::array());
    EXPECT_EQ(warnings.size(), std::string_view(name) == "torch/foreign.pt" ? 1u : 0u) << warnings;
  }
}

TEST_F(Convert, NamesAllThatTheTargetCannotHold) {
  const Outcome outcome = ckpt({"convert", "--json", data("torch/dtypes.pt"), dir_ / "o.safetensors"});
  EXPECT_EQ(outcome.code, 7) << outcome.err;
  const std::string details = outcome.error().at("details").dump();
  EXPECT_NE(details.find("complex128"), std::string::npos) << details;
  EXPECT_EQ(ckpt({"convert", data("torch/dtypes.pt"), dir_ / "o.safetensors", "--exclude", "complex(32|128)"}).code, 0);
  EXPECT_EQ(ckpt({"diff", data("torch/dtypes.pt"), dir_ / "o.safetensors"}).code, 1) << "two are left out";
}

TEST_F(Convert, TellsWhatIsWrong) {
  EXPECT_EQ(ckpt({"convert", dir_ / "absent", dir_ / "o.pt"}).code, 3);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "no/o.pt"}).code, 3);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "o.xyz"}).code, 2);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "o.pt", "--to", "onnx"}).code, 2);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "o.pt", "--exclude", "("}).code, 1);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "o.pt", "--rename", "noequals"}).code, 2);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "o.pt", "--key", "model"}).code, 6);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "o.pt", "--ema"}).code, 6);
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "o.pt", "--exclude", "."}).code, 6) << "nothing is left";
  std::filesystem::create_directory(dir_ / "folder.pt");
  EXPECT_EQ(ckpt({"convert", in_, dir_ / "folder.pt"}).code, 3);
}

}  // namespace
}  // namespace ckpt::test
