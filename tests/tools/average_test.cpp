#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmath>
#include <set>

#include "program.h"
#include "weights_files.h"

namespace ckpt::test {
namespace {

class Average : public ::testing::Test {
 protected:
  void SetUp() override {
    write_floats(a_, {{"w", {{2}, {1, 2}}}, {"b", {{1}, {10}}}});
    write_floats(b_, {{"w", {{2}, {3, 6}}}, {"b", {{1}, {30}}}});
    write_floats(c_, {{"w", {{2}, {5, 7}}}, {"b", {{1}, {20}}}});
  }

  /// A checkpoint of run_ whose weights are one number.
  void add(uint64_t iteration, float value, double accuracy) {
    const std::string number = std::to_string(iteration);
    write_floats(dir_ / "x.safetensors", {{"w", {{1}, {value}}}});
    ASSERT_EQ(ckpt({"convert", dir_ / "x.safetensors", dir_ / "x.pt", "--to", "archive"}).code, 0);
    add_checkpoint(run_, {.iteration = iteration,
                          .metrics = {{"accuracy", accuracy}, {"loss", 1 - accuracy}},
                          .monitor = run::Monitor{"accuracy", Mode::kMax},
                          .state = dir_ / "x.pt"});
  }

  float value_of(const std::vector<std::string>& flags) {
    std::vector<std::string> words{"average", run_, "-o", out_, "--force"};
    words.insert(words.end(), flags.begin(), flags.end());
    const Outcome outcome = ckpt(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.code == 0 ? floats_in(out_).at("w").at(0) : 0;
  }

  /// A command for --greedy that runs `body` with the path as $1.
  std::string evaluator(const std::string& body) {
    const std::string path = dir_ / "evaluate.sh";
    write_all(path, "#!/bin/sh\n" + body + "\n");
    ::chmod(path.c_str(), 0755);
    return path + " {}";
  }

  TempDir dir_;
  std::string a_ = dir_ / "a.safetensors", b_ = dir_ / "b.safetensors", c_ = dir_ / "c.safetensors";
  std::string out_ = dir_ / "out.safetensors", run_ = dir_ / "run";
  using Tensors = std::map<std::string, std::vector<float>>;
};

TEST_F(Average, WritesTheMeanAndSaysOfWhat) {
  const Outcome outcome = ckpt({"average", "--json", a_, b_, "-o", out_});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(floats_in(out_), (Tensors{{"w", {2, 4}}, {"b", {20}}}));
  const nlohmann::json json = outcome.json();
  EXPECT_EQ(json.at("output"), out_);
  EXPECT_EQ(json.at("method"), "mean");
  EXPECT_EQ(json.at("tensors"), 2);
  EXPECT_EQ(json.at("decisions"), nlohmann::json::array());
  ASSERT_EQ(json.at("inputs").size(), 2u);
  EXPECT_EQ(json.at("inputs")[0].at("path"), a_);
  EXPECT_EQ(json.at("inputs")[0].at("iteration"), nullptr);
  EXPECT_EQ(json.at("inputs")[0].at("weight"), 1);
  EXPECT_EQ(json.at("inputs")[0].at("hash").get<std::string>().size(), 32u);
  EXPECT_NE(json.at("inputs")[0].at("hash"), json.at("inputs")[1].at("hash"));
  const auto metadata = ckpt({"inspect", "--json", out_}).json().at("metadata").at("ckpt.average");
  const auto provenance = nlohmann::json::parse(metadata.get<std::string>());
  EXPECT_EQ(provenance.at("method"), "mean");
  std::set<std::string> names;
  for (const auto& input : provenance.at("inputs")) names.insert(input.at("name"));
  EXPECT_EQ(names, (std::set<std::string>{"a.safetensors", "b.safetensors"}));
}

TEST_F(Average, PrintsThePathAloneOnStdout) {
  const Outcome outcome = ckpt({"average", a_, b_, c_, "-o", out_});
  EXPECT_EQ(outcome.out, out_ + "\n");
  EXPECT_TRUE(outcome.err.starts_with("averaged 3 inputs, 2 tensors, 12 B in ")) << outcome.err;
}

TEST_F(Average, TheOrderOfInputsAndTheThreadsDoNotMatter) {
  ASSERT_EQ(ckpt({"average", a_, b_, c_, "-o", out_, "--threads", "1"}).code, 0);
  ASSERT_EQ(ckpt({"average", c_, a_, b_, "-o", dir_ / "other.safetensors", "--threads", "3"}).code, 0);
  EXPECT_EQ(read_all(out_), read_all(dir_ / "other.safetensors"));
}

TEST_F(Average, WeighsAndSmooths) {
  ASSERT_EQ(ckpt({"average", a_, b_, "-o", out_, "--weights", "3,1"}).code, 0);
  EXPECT_EQ(floats_in(out_), (Tensors{{"w", {1.5, 3}}, {"b", {15}}}));
  const Outcome ema = ckpt({"average", "--json", a_, b_, "-o", out_, "--ema", "0.75"});
  ASSERT_EQ(ema.code, 0) << ema.err;
  EXPECT_EQ(floats_in(out_), (Tensors{{"w", {1.5, 3}}, {"b", {15}}}));
  EXPECT_EQ(ema.json().at("method"), "ema");
  EXPECT_EQ(ema.json().at("inputs")[1].at("weight"), 0.25);
}

TEST_F(Average, TakesTheChosenCheckpointsOfARun) {
  add(100, 1, 0.5);
  add(200, 2, 0.9);
  add(300, 4, 0.7);
  add(400, 8, 0.6);
  EXPECT_EQ(value_of({"--best", "2"}), 3);
  EXPECT_EQ(value_of({"--best", "1", "--monitor", "loss", "--mode", "max"}), 1);
  EXPECT_EQ(value_of({"--last", "2"}), 6);
  EXPECT_EQ(value_of({"--iterations", "100-300"}), 7.f / 3);
  EXPECT_EQ(value_of({"--iterations", "100,400"}), 4.5);
  EXPECT_EQ(value_of({}), 3.75);
  const Outcome outcome = ckpt({"average", "--json", run_, "-o", out_, "--best", "2", "--dry-run"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("inputs")[0].at("path"), run_ + "/step-000000000200");
  EXPECT_EQ(outcome.json().at("inputs")[0].at("iteration"), 200);
  EXPECT_EQ(outcome.json().at("inputs")[1].at("iteration"), 300);
  EXPECT_EQ(ckpt({"average", run_, "-o", out_, "--iterations", "100,150"}).code, 6);
  EXPECT_EQ(ckpt({"average", run_, "-o", out_, "--part", "ema"}).code, 6);
  EXPECT_EQ(ckpt({"average", run_, "-o", out_, "--best", "1", "--monitor", "f1", "--mode", "max"}).code, 6);
}

TEST_F(Average, ADryRunSaysAllAndWritesNothing) {
  const Outcome outcome = ckpt({"average", a_, b_, "-o", out_, "--weights", "3,1", "--dtype", "f16", "--dry-run"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find(a_), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("float32 to float16"), std::string::npos) << outcome.out;
  EXPECT_FALSE(std::filesystem::exists(out_));
}

TEST_F(Average, ListsAllThatDoesNotFit) {
  write_floats(b_, {{"w", {{3}, {3, 6, 1}}}, {"extra", {{1}, {30}}}});
  const Outcome outcome = ckpt({"average", "--json", a_, b_, "-o", out_});
  EXPECT_EQ(outcome.code, 5);
  const std::string details = outcome.error().at("details").dump();
  for (const char* name : {"w", "b", "extra"}) EXPECT_NE(details.find(name), std::string::npos) << details;
  EXPECT_FALSE(std::filesystem::exists(out_));
  write_floats(b_, {{"w", {{2}, {3, 6}}}, {"extra", {{1}, {30}}}});
  ASSERT_EQ(ckpt({"average", a_, b_, "-o", out_, "--keys", "intersect"}).code, 0);
  EXPECT_EQ(floats_in(out_), (Tensors{{"w", {2, 4}}}));
  ASSERT_EQ(ckpt({"average", a_, b_, "-o", out_, "--keys", "union"}).code, 0);
  EXPECT_EQ(floats_in(out_), (Tensors{{"w", {2, 4}}, {"b", {10}}, {"extra", {30}}}));
}

TEST_F(Average, RefusesNaNUnlessAllowed) {
  write_floats(b_, {{"w", {{2}, {3, NAN}}}, {"b", {{1}, {30}}}});
  write_all(out_, read_all(c_));
  const Outcome outcome = ckpt({"average", "--json", a_, b_, "-o", out_});
  EXPECT_EQ(outcome.code, 1);
  const std::string details = outcome.error().at("details").dump();
  EXPECT_NE(details.find("b.safetensors"), std::string::npos) << details;
  EXPECT_NE(details.find("w"), std::string::npos) << details;
  EXPECT_EQ(read_all(out_), read_all(c_));
  ASSERT_EQ(ckpt({"average", a_, b_, "-o", out_, "--allow-nonfinite"}).code, 0);
  EXPECT_EQ(floats_in(out_).at("w")[0], 2);
  EXPECT_TRUE(std::isnan(floats_in(out_).at("w")[1]));
}

TEST_F(Average, WritesEveryFormat) {
  for (const char* name : {"o.pt", "o.safetensors"}) {
    ASSERT_EQ(ckpt({"average", a_, b_, "-o", dir_ / name}).code, 0);
    EXPECT_EQ(floats_in(dir_ / name).at("w"), (std::vector<float>{2, 4})) << name;
  }
  ASSERT_EQ(ckpt({"average", a_, b_, "-o", dir_ / "arch.pt", "--to", "archive"}).code, 0);
  EXPECT_EQ(ckpt({"inspect", "--json", dir_ / "arch.pt"}).json().at("format"), "archive");
  EXPECT_EQ(floats_in(dir_ / "arch.pt").at("w"), (std::vector<float>{2, 4}));
}

TEST_F(Average, WritesACheckpointOfARun) {
  add(100, 1, 0.5);
  add(300, 2, 0.9);
  const Outcome outcome = ckpt({"average", "--json", run_, "-o", dir_ / "means", "--to", "checkpoint"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json().at("output"), dir_ / "means/step-000000000300");
  EXPECT_EQ(floats_in(dir_ / "means").at("w"), std::vector<float>{1.5});
  EXPECT_EQ(ckpt({"verify", dir_ / "means"}).code, 0);
}

TEST_F(Average, AGreedySoupKeepsWhatHelps) {
  // The metric is -|mean - 3|: b alone is the best, b and a are better, and c spoils it.
  write_floats(a_, {{"w", {{1}, {1}}}});
  write_floats(b_, {{"w", {{1}, {4}}}});
  write_floats(c_, {{"w", {{1}, {9}}}});
  const std::string command =
      evaluator("value=$('" CKPT_PROGRAM
                "' inspect --json --stats \"$1\" | sed 's/.*\"mean\":\\(-\\{0,1\\}[0-9.]*\\).*/\\1/')\n"
                "echo measured \"$1\"\n"
                "awk -v v=\"$value\" 'BEGIN { d = v - 3; print d < 0 ? d : -d }'");
  const Outcome outcome =
      ckpt({"average", "--json", a_, b_, c_, "-o", out_, "--greedy", command, "--report", dir_ / "report.json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err << outcome.out;
  const nlohmann::json json = outcome.json();
  EXPECT_EQ(json.at("method"), "greedy");
  EXPECT_EQ(json.at("metric"), -0.5);
  ASSERT_EQ(json.at("trials").size(), 5u);
  EXPECT_EQ(json.at("trials")[0], (nlohmann::json{{"inputs", {a_}}, {"metric", -2}, {"kept", false}}));
  EXPECT_EQ(json.at("trials")[1], (nlohmann::json{{"inputs", {b_}}, {"metric", -1}, {"kept", true}}));
  EXPECT_EQ(json.at("trials")[3], (nlohmann::json{{"inputs", {b_, a_}}, {"metric", -0.5}, {"kept", true}}));
  EXPECT_EQ(json.at("trials")[4].at("kept"), false);
  EXPECT_EQ(floats_in(out_).at("w"), std::vector<float>{2.5});
  EXPECT_EQ(nlohmann::json::parse(read_all(dir_ / "report.json")), json);
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

TEST_F(Average, AnEvaluatorThatFailsEndsTheSoup) {
  write_all(out_, read_all(c_));
  for (const char* body : {"exit 3", "echo nothing useful", "kill -9 $$", "true"}) {
    const Outcome outcome = ckpt({"average", "--json", a_, b_, "-o", out_, "--greedy", evaluator(body)});
    EXPECT_EQ(outcome.code, 1) << body << outcome.err;
    EXPECT_EQ(outcome.json().at("error").at("code"), "invalid");
    EXPECT_EQ(read_all(out_), read_all(c_));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 5) << "a temporary was left";
}

TEST_F(Average, MistakesInFlagsAreUsage) {
  const std::vector<std::vector<std::string>> mistakes = {
      {"--weights", "1,x"},     {"--weights", "1,-1"},
      {"--weights", "1,nan"},   {"--ema", "1"},
      {"--ema", "-0.1"},        {"--ema", "0.5", "--weights", "1,1"},
      {"--best", "0"},          {"--best", "1", "--last", "1"},
      {"--iterations", "5-3"},  {"--iterations", "1,,2"},
      {"--keys", "some"},       {"--ints", "first"},
      {"--dtype", "int8"},      {"--to", "onnx"},
      {"--part", "optimizer"},  {"--threads", "0"},
      {"--greedy", "evaluate"}, {"--monitor", "loss"},
      {"--mode", "max"},        {"--greedy", "e {}", "--ema", "0.5"}};
  for (const std::vector<std::string>& flags : mistakes) {
    std::vector<std::string> words{"average", a_, b_, "-o", out_};
    words.insert(words.end(), flags.begin(), flags.end());
    EXPECT_EQ(ckpt(words).code, 2) << flags[0] << " " << flags[1];
  }
  EXPECT_EQ(ckpt({"average", a_, b_}).code, 2);
  EXPECT_EQ(ckpt({"average", "-o", out_}).code, 2);
  EXPECT_EQ(ckpt({"average", a_, b_, "-o", dir_ / "out.xyz"}).code, 2);
  EXPECT_FALSE(std::filesystem::exists(out_));
}

TEST_F(Average, TakesMoreInputsThanFilesMayBeOpenAtFirst) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{64, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<std::string> words{"average", "-o", out_};
  words.insert(words.end(), 99, a_);
  words.push_back(b_);
  const Outcome outcome = ckpt(words);
  ::setrlimit(RLIMIT_NOFILE, &before);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(floats_in(out_).at("b").at(0), 10.2f);
}

TEST_F(Average, TellsWhatIsWrongWithAnInput) {
  EXPECT_EQ(ckpt({"average", a_, dir_ / "absent.pt", "-o", out_}).code, 3);
  write_all(dir_ / "damaged.safetensors", read_all(a_).substr(0, 90));
  EXPECT_EQ(ckpt({"average", a_, dir_ / "damaged.safetensors", "-o", out_}).code, 4);
  EXPECT_EQ(ckpt({"average", a_, b_, "-o", dir_ / "no/out.pt"}).code, 3);
  EXPECT_NE(ckpt({"average", a_, b_, "-o", out_, "--weights", "1,2,3"}).code, 0);
  write_all(out_, "my notes");
  EXPECT_EQ(ckpt({"average", a_, b_, "-o", out_}).code, 1) << "no file of weights stands there";
  EXPECT_EQ(ckpt({"average", a_, b_, "-o", out_, "--force"}).code, 0);
}

}  // namespace
}  // namespace ckpt::test
