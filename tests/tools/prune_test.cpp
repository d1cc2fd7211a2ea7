#include <gtest/gtest.h>

#include "core/io/lock.h"
#include "core/run/names.h"
#include "program.h"

namespace ckpt::test {
namespace {

std::vector<uint64_t> iterations_in(const std::string& run) {
  std::vector<uint64_t> iterations;
  const auto json = ckpt({"list", "--json", run}).json();
  for (const auto& row : json.at("checkpoints")) iterations.push_back(row.at("iteration"));
  return iterations;
}

/// 100, 200, ... 500 with the loss falling to 300 and rising again.
std::string five_in(const std::string& run) {
  for (const auto& [iteration, loss] : std::map<uint64_t, double>{{100, 5}, {200, 3}, {300, 1}, {400, 2}, {500, 4}}) {
    add_checkpoint(run, {.iteration = iteration, .metrics = {{"loss", loss}}});
  }
  return run;
}

TEST(Prune, KeepsEverythingWithoutARule) {
  TempDir dir;
  const std::string run = five_in(dir / "run");
  const Outcome outcome = ckpt({"prune", run});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(iterations_in(run).size(), 5u);
}

TEST(Prune, AppliesEachRuleAndAllTogether) {
  TempDir dir;
  using Iterations = std::vector<uint64_t>;
  const std::vector<std::pair<std::vector<std::string>, Iterations>> cases{
      {{"--keep-last", "2"}, {500, 400}},
      {{"--keep-best", "2", "--monitor", "loss", "--mode", "min"}, {500, 400, 300}},
      {{"--keep-best", "1", "--monitor", "loss", "--mode", "max"}, {500, 100}},
      {{"--keep-every", "200"}, {500, 400, 200}},
      {{"--keep-hours", "1"}, {500, 400, 300, 200, 100}},
      {{"--keep-hours", "0.5", "--keep-last", "1"}, {500, 400, 300, 200, 100}},
      {{"--keep-last", "1", "--keep-every", "200", "--keep-best", "1", "--monitor", "loss", "--mode", "min"},
       {500, 400, 300, 200}},
      {{"--keep-best", "1", "--monitor", "absent", "--mode", "min"}, {500}},
  };
  int number = 0;
  for (const auto& [flags, kept] : cases) {
    const std::string run = five_in(dir / std::to_string(number++));
    std::vector<std::string> arguments{"prune", "--json", run};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = ckpt(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(iterations_in(run), kept) << flags[0];
    EXPECT_EQ(outcome.json().at("kept").size(), kept.size());
    EXPECT_EQ(outcome.json().at("deleted").size(), 5 - kept.size());
  }
}

TEST(Prune, DryRunOnlySays) {
  TempDir dir;
  const std::string run = five_in(dir / "run");
  const Outcome json = ckpt({"prune", run, "--keep-last", "2", "--dry-run", "--json"});
  EXPECT_EQ(json.code, 0);
  EXPECT_EQ(json.json().at("deleted").size(), 3u);
  EXPECT_EQ(json.json().size(), 3u);
  const Outcome text = ckpt({"prune", run, "--keep-last", "2", "--dry-run"});
  EXPECT_NE(text.out.find("would delete " + run + "/step-000000000100"), std::string::npos) << text.out;
  EXPECT_EQ(iterations_in(run).size(), 5u);
  const Outcome real = ckpt({"prune", run, "--keep-last", "2", "--json"});
  EXPECT_EQ(real.json(), json.json());
}

TEST(Prune, KeepsTheNewestThatVerifiesAndDamagedOnesUnlessAsked) {
  TempDir dir;
  const std::string run = five_in(dir / "run");
  flip_byte(run + "/step-000000000500/state.pt", 2000);
  std::filesystem::resize_file(run + "/step-000000000400/state.pt", 10);
  EXPECT_EQ(ckpt({"prune", run, "--keep-last", "1"}).code, 0);
  EXPECT_EQ(iterations_in(run), (std::vector<uint64_t>{500, 400, 300}));
  EXPECT_EQ(ckpt({"prune", run, "--keep-last", "1", "--damaged", "--dry-run"}).code, 0);
  EXPECT_EQ(iterations_in(run).size(), 3u);
  EXPECT_EQ(ckpt({"prune", run, "--damaged"}).code, 0);
  EXPECT_EQ(iterations_in(run), (std::vector<uint64_t>{300}));
}

TEST(Prune, IsRefusedWhileAWriterHoldsTheRun) {
  TempDir dir;
  const std::string run = five_in(dir / "run");
  const io::FileLock lock(io::Directory::open(run), run::kLockName);
  const Outcome outcome = ckpt({"prune", run, "--keep-last", "1", "--json"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(outcome.error().at("code"), "locked");
  EXPECT_NE(outcome.err.find("pid " + std::to_string(::getpid())), std::string::npos) << outcome.err;
  EXPECT_EQ(iterations_in(run).size(), 5u);
}

TEST(Prune, AnEmptyOrForeignDirectoryIsNotFoundAndStaysAsItIs) {
  TempDir dir;
  std::filesystem::create_directory(dir / "empty");
  EXPECT_EQ(ckpt({"prune", dir / "empty", "--keep-last", "1"}).code, 6);
  EXPECT_TRUE(std::filesystem::is_empty(dir / "empty"));
  const std::string checkpoint = add_checkpoint(dir / "run", {.iteration = 1});
  EXPECT_EQ(ckpt({"prune", checkpoint, "--keep-last", "1"}).code, 6);
  EXPECT_EQ(ckpt({"prune", dir / "absent", "--keep-last", "1"}).code, 6);
  EXPECT_FALSE(std::filesystem::exists(dir / "absent"));
}

}  // namespace
}  // namespace ckpt::test
