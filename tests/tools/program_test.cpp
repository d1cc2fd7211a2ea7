#include "program.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

namespace ckpt::test {
namespace {

const std::vector<std::string> kCommands{"save", "load", "list", "verify", "prune", "inspect"};

TEST(Program, PrintsHelpWithoutArgumentsAndOnRequest) {
  const Outcome bare = ckpt({});
  EXPECT_EQ(bare.code, 0);
  EXPECT_EQ(bare.err, "");
  for (const std::string& command : kCommands) EXPECT_NE(bare.out.find("\n  " + command), std::string::npos) << command;
  EXPECT_EQ(ckpt({"--help"}).out, bare.out);
  EXPECT_EQ(ckpt({"-h"}).out, bare.out);
  EXPECT_EQ(ckpt({"--json", "--help"}).out, bare.out);
}

TEST(Program, HelpOfEachCommandHasExamplesAndExitCodes) {
  for (const std::string& command : kCommands) {
    const Outcome help = ckpt({command, "--help"});
    EXPECT_EQ(help.code, 0) << command;
    EXPECT_EQ(help.err, "") << command;
    for (const std::string& text : {std::string("Examples:"), std::string("Exit codes:"), "ckpt " + command,
                                    std::string("--json"), std::string("--quiet")}) {
      EXPECT_NE(help.out.find(text), std::string::npos) << command << ": " << text;
    }
    EXPECT_EQ(ckpt({command, "--json", "--help"}).out, help.out) << command;
  }
}

TEST(Program, TellsItsVersion) {
  const Outcome text = ckpt({"--version"});
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(text.out.starts_with("ckpt 0.")) << text.out;
  EXPECT_NE(text.out.find("LibTorch "), std::string::npos);
  EXPECT_NE(text.out.find("safetensors"), std::string::npos);
  for (const auto& arguments : {std::vector<std::string>{"--version", "--json"}, {"--json", "--version"}}) {
    const auto json = ckpt(arguments).json();
    EXPECT_TRUE(json.contains("ckpt") && json.contains("libtorch") && json.contains("formats"));
  }
}

TEST(Program, UsageErrorsAreOneLineAndExitCodeTwo) {
  TempDir dir;
  const std::vector<std::vector<std::string>> mistakes{
      {"lst"},
      {""},
      {"--verbose", "list", "x"},
      {"--json"},
      {"list"},
      {"list", "a", "b"},
      {"list", "a", "--nonsense"},
      {"verify"},
      {"load", "x", "--part", "model"},
      {"load", "x", "--part", "weights", "--out", "x.pt"},
      {"load", "x", "--out", "x.onnx"},
      {"load", "x", "--part", "optimizer", "--out", "x.safetensors"},
      {"load", "x", "--part", "all", "--out", "x.safetensors"},
      {"load", "x", "--which", "newest"},
      {"load", "x", "--which", "-1"},
      {"load", "x", "--which", "99999999999999999999"},
      {"load", "x", "--which", "best", "--which", "best"},
      {"prune", "x", "--keep-last", "0"},
      {"prune", "x", "--keep-last", "-1"},
      {"prune", "x", "--keep-last", "1.5"},
      {"prune", "x", "--keep-last", ""},
      {"prune", "x", "--keep-last", "18446744073709551616"},
      {"prune", "x", "--keep-every", "0"},
      {"prune", "x", "--keep-hours", "-1"},
      {"prune", "x", "--keep-hours", "nan"},
      {"prune", "x", "--keep-best", "3"},
      {"prune", "x", "--keep-best", "3", "--monitor", "loss"},
      {"prune", "x", "--monitor", "loss", "--mode", "min"},
      {"prune", "x", "--keep-best", "3", "--monitor", "loss", "--mode", "least"},
      {"save", "x"},
      {"save", "x", "--model", "m.pt"},
      {"save", "x", "--iteration", "1"},
      {"save", "x", "--model", "m.pt", "--iteration", "-1"},
      {"save", "x", "--model", "m.pt", "--iteration", "1e3"},
      {"save", "x", "--model", "m.pt", "--iteration", "9223372036854775808"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--epoch", "-2"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--metric", "loss"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--metric", "=1"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--metric", "loss=low"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--metric", "loss="},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--metric", "loss=1", "--metric", "loss=2"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--meta", "note"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--meta", "a=1", "--meta", "a=2"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--wait", "-1"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--wait", "inf"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--optimizer-type", "adam"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--optimizer", "o.pt", "--optimizer-type", "lion"},
      {"save", "x", "--model", "m.pt", "--iteration", "1", "--keep-best", "2"},
  };
  for (const auto& arguments : mistakes) {
    std::string shown;
    for (const std::string& argument : arguments) shown += " '" + argument + "'";
    const Outcome text = ckpt(arguments, {.directory = dir.path()});
    EXPECT_EQ(text.code, 2) << shown << text.err;
    EXPECT_EQ(lines_of(text.err).size(), 1u) << shown << text.err;
    EXPECT_TRUE(text.err.starts_with("ckpt: ")) << shown << text.err;
    if (arguments != std::vector<std::string>{"--json"}) {
      EXPECT_EQ(text.out, "") << shown;
    }

    std::vector<std::string> with_json = arguments;
    with_json.push_back("--json");
    const Outcome json = ckpt(with_json, {.directory = dir.path()});
    EXPECT_EQ(json.code, 2) << shown;
    EXPECT_EQ(json.error().at("code"), "usage") << shown;
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Program, SuggestsTheNearestCommand) {
  EXPECT_NE(ckpt({"lsit"}).err.find("did you mean \"list\"?"), std::string::npos);
  EXPECT_NE(ckpt({"inspct", "x"}).err.find("did you mean \"inspect\"?"), std::string::npos);
  EXPECT_EQ(ckpt({"frobnicate"}).err.find("did you mean"), std::string::npos);
}

TEST(Program, AbsentPathsAreNotFoundForEveryReader) {
  TempDir dir;
  for (const char* command : {"load", "list", "verify", "prune", "inspect"}) {
    const Outcome outcome = ckpt({command, dir / "absent", "--json"});
    EXPECT_EQ(outcome.code, 6) << command;
    EXPECT_EQ(outcome.error().at("code"), "not_found") << command;
    EXPECT_EQ(outcome.error().at("path"), dir / "absent") << command;
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Program, PrintsHostileNamesSafely) {
  const Outcome outcome = ckpt({"list", "no\x1b[31m\nsuch \xff run"});
  EXPECT_EQ(outcome.code, 6);
  EXPECT_EQ(lines_of(outcome.err).size(), 1u);
  EXPECT_EQ(outcome.err.find('\x1b'), std::string::npos);
  EXPECT_EQ(outcome.err.find('\xff'), std::string::npos);
  const Outcome command = ckpt({"li\x1b[31mst\n"});
  EXPECT_EQ(command.code, 2);
  EXPECT_EQ(lines_of(command.err).size(), 1u);
  EXPECT_EQ(command.err.find('\x1b'), std::string::npos);
  const Outcome flag = ckpt({"list", "x", "--a\x1b[31m\nb"});
  EXPECT_EQ(flag.code, 2);
  EXPECT_EQ(lines_of(flag.err).size(), 1u);
  EXPECT_EQ(flag.err.find('\x1b'), std::string::npos);
  // In JSON the object stays strict, whatever the bytes.
  EXPECT_EQ(ckpt({"list", "no\x1b\nsuch \xff run", "--json"}).error().at("code"), "not_found");
}

TEST(Program, TakesLongPathsBlanksAndUnicode) {
  TempDir dir;
  const std::string run = dir / "a run \xc3\xa9\xe6\xbc\xa2 'quoted' $x";
  add_checkpoint(run, {.iteration = 7});
  EXPECT_EQ(ckpt({"list", run, "--json"}).json().at("checkpoints").at(0).at("path"), run + "/step-000000000007");
  EXPECT_EQ(ckpt({"load", run}).out, run + "/step-000000000007\n");
  EXPECT_EQ(ckpt({"load", run + "///"}).out, run + "/step-000000000007\n");
  const Outcome too_long = ckpt({"list", dir / std::string(5000, 'x')});
  EXPECT_TRUE(too_long.code == 3 || too_long.code == 6) << too_long.err;
  // Relative, and a path that looks like a flag or a command.
  add_checkpoint(dir / "-run", {.iteration = 1});
  EXPECT_EQ(ckpt({"load", "--", "-run"}, {.directory = dir.path()}).out, "-run/step-000000000001\n");
  add_checkpoint(dir / "list", {.iteration = 1});
  EXPECT_EQ(ckpt({"list", "list"}, {.directory = dir.path()}).code, 0);
  EXPECT_EQ(ckpt({"load", "."}, {.directory = dir / "list"}).out, "./step-000000000001\n");
}

TEST(Program, ColoursATerminalOnlyAndNotWithNoColor) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 1, .metrics = {{"loss", 1.0}}, .monitor = run::Monitor{"loss", Mode::kMin}});
  const std::string escape = "\x1b[";
  EXPECT_EQ(ckpt({"list", run}).out.find(escape), std::string::npos);
  EXPECT_NE(ckpt({"list", run}, {.terminal = true}).out.find(escape + "1m"), std::string::npos);
  EXPECT_EQ(ckpt({"list", run}, {.environment = {{"NO_COLOR", "1"}}, .terminal = true}).out.find(escape + "1m"),
            std::string::npos);
}

TEST(Program, AClosedPipeIsNoFailureAndAFullDiskIs) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 1});
  // `sleep` holds the pipe until its reader is gone.
  const std::string command = "{ sleep 0.2; '" CKPT_PROGRAM "' list '" + run + "' 2>'" + (dir / "err") +
                              "'; echo $? >'" + (dir / "code") + "'; } | true; sleep 0.5";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read_all(dir / "err"), "");
  EXPECT_EQ(read_all(dir / "code"), "0\n");
  if (std::filesystem::exists("/dev/full")) {
    const Outcome full = ckpt({"list", run}, {.stdout_path = "/dev/full"});
    EXPECT_EQ(full.code, 3);
    EXPECT_NE(full.err.find("No space left"), std::string::npos) << full.err;
  }
}

TEST(Program, StartsFastAndWithoutLibTorch) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 1});
  // The dynamic loader says what it loads.
  for (const auto& arguments : {std::vector<std::string>{"--help"},
                                {"list", run},
                                {"load", run},
                                {"verify", run},
                                {"inspect", run},
                                {"prune", run}}) {
    const Outcome traced = ckpt(arguments, {.environment = {{"LD_DEBUG", "libs"}}});
    EXPECT_EQ(traced.code, 0) << arguments[0];
    EXPECT_NE(traced.err.find("libckpt_core"), std::string::npos);
    for (const char* library : {"libtorch", "libc10", "libckpt.so"}) {
      EXPECT_EQ(traced.err.find(library), std::string::npos) << arguments[0] << ": " << library;
    }
  }
  using std::chrono::steady_clock;
  auto best = steady_clock::duration::max();
  for (int i = 0; i < 5; ++i) {
    const auto begin = steady_clock::now();
    ASSERT_EQ(ckpt({"list", run}).code, 0);
    best = std::min(best, steady_clock::now() - begin);
  }
  // 30 ms are promised; a loaded machine and sanitizers get more.
  EXPECT_LT(std::chrono::duration<double>(best).count(), 0.3);
}

}  // namespace
}  // namespace ckpt::test
