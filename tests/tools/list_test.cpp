#include <gtest/gtest.h>

#include <limits>

#include "program.h"

namespace ckpt::test {
namespace {

const run::Monitor kAccuracy{"accuracy", Mode::kMax};

/// Three checkpoints, the second the best.
std::string three_in(const std::string& run) {
  add_checkpoint(run,
                 {.iteration = 500, .epoch = 1, .metrics = {{"accuracy", 0.5}, {"loss", 2}}, .monitor = kAccuracy});
  add_checkpoint(run,
                 {.iteration = 1000, .epoch = 2, .metrics = {{"accuracy", 0.9}, {"loss", 1}}, .monitor = kAccuracy});
  add_checkpoint(run, {.iteration = 1500, .epoch = 3, .metrics = {{"accuracy", 0.75}}, .monitor = kAccuracy});
  return run;
}

TEST(List, ShowsATableNewestFirstWithMarksAndTheMonitoredMetric) {
  TempDir dir;
  const Outcome outcome = ckpt({"list", three_in(dir / "run")}, {.environment = {{"LC_ALL", "C.UTF-8"}}});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  const auto lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 5u) << outcome.out;
  EXPECT_EQ(lines[0], "accuracy (max)  ▁█▅  last 0.75, best 0.9 at iteration 1000");
  for (const char* heading : {"iteration", "epoch", "accuracy", "loss", "size", "age", "state"}) {
    EXPECT_NE(lines[1].find(heading), std::string::npos) << heading;
  }
  EXPECT_LT(lines[1].find("accuracy"), lines[1].find("loss"));  // the monitored one first
  EXPECT_TRUE(lines[2].ends_with("good   latest")) << lines[2];
  EXPECT_NE(lines[2].find("1500"), std::string::npos);
  EXPECT_NE(lines[2].find(" -"), std::string::npos);  // no loss
  EXPECT_TRUE(lines[3].ends_with("good   best")) << lines[3];
  EXPECT_TRUE(lines[4].ends_with("good")) << lines[4];
}

TEST(List, UsesPlainCharactersOutsideUtf8) {
  TempDir dir;
  const Outcome outcome = ckpt({"list", three_in(dir / "run")});
  for (const char c : outcome.out) EXPECT_LT(static_cast<unsigned char>(c), 0x80);
  EXPECT_EQ(lines_of(outcome.out)[0], "accuracy (max)  _#+  last 0.75, best 0.9 at iteration 1000");
}

TEST(List, GivesEveryFieldInJson) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  const auto rows = ckpt({"list", "--json", run}).json().at("checkpoints");
  ASSERT_EQ(rows.size(), 3u);
  const nlohmann::json first{{"path", run + "/step-000000001500"},
                             {"iteration", 1500},
                             {"epoch", 3},
                             {"metrics", {{"accuracy", 0.75}}},
                             {"bytes", std::filesystem::file_size(run + "/step-000000001500/state.pt")},
                             {"state", "good"},
                             {"latest", true},
                             {"best", false}};
  nlohmann::json found = rows[0];
  EXPECT_GE(found.at("bytes"), first.at("bytes"));  // the manifest may count
  found["bytes"] = first.at("bytes");
  EXPECT_EQ(found, first);
  EXPECT_EQ(rows[1].at("best"), true);
  EXPECT_EQ(rows[1].at("latest"), false);
  EXPECT_EQ(rows[2].at("iteration"), 500);
}

TEST(List, SpellsNumbersThatJsonLacks) {
  TempDir dir;
  const double infinity = std::numeric_limits<double>::infinity();
  add_checkpoint(dir / "run", {.iteration = 1,
                               .metrics = {{"a", std::nan("")}, {"b", infinity}, {"c", -infinity}},
                               .monitor = run::Monitor{"a", Mode::kMax}});
  const auto row = ckpt({"list", "--json", dir / "run"}).json().at("checkpoints").at(0);
  EXPECT_EQ(row.at("metrics"), (nlohmann::json{{"a", "NaN"}, {"b", "Infinity"}, {"c", "-Infinity"}}));
  EXPECT_EQ(row.at("best"), false);
  const Outcome text = ckpt({"list", dir / "run"});
  EXPECT_NE(text.out.find("-Infinity"), std::string::npos);
}

TEST(List, AnEmptyRunHasNoRows) {
  TempDir dir;
  std::filesystem::create_directory(dir / "run");
  const Outcome text = ckpt({"list", dir / "run"});
  EXPECT_EQ(text.code, 0);
  EXPECT_EQ(text.out, "");
  EXPECT_EQ(ckpt({"list", dir / "run", "--quiet"}).err, "");
  EXPECT_EQ(ckpt({"list", dir / "run", "--json"}).json(),
            (nlohmann::json{{"schema", 1}, {"checkpoints", nlohmann::json::array()}}));
}

TEST(List, TellsDamagedAndPartialFromGood) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  std::filesystem::resize_file(run + "/step-000000001500/state.pt", 100);
  std::filesystem::create_directory(run + "/step-000000002000");
  flip_byte(run + "/step-000000000500/MANIFEST.json", 30);

  const Outcome outcome = ckpt({"list", "--json", run});
  EXPECT_EQ(outcome.code, 0);
  std::map<uint64_t, nlohmann::json> rows;
  const auto json = outcome.json();
  for (const auto& row : json.at("checkpoints")) rows[row.at("iteration")] = row;
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[2000].at("state"), "partial");
  EXPECT_TRUE(rows[2000].at("epoch").is_null());
  EXPECT_EQ(rows[1500].at("state"), "damaged");
  EXPECT_EQ(rows[1500].at("latest"), false);
  EXPECT_EQ(rows[1000].at("state"), "good");
  EXPECT_EQ(rows[1000].at("latest"), true);
  EXPECT_EQ(rows[500].at("state"), "damaged");
  const Outcome text = ckpt({"list", run});
  EXPECT_NE(text.out.find("state.pt"), std::string::npos) << text.out;  // the reason
}

TEST(List, SeesAFlippedByteOnlyWhenAskedToRead) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  flip_byte(run + "/step-000000001000/state.pt", 2000);
  EXPECT_EQ(ckpt({"list", "--json", run}).json().at("checkpoints").at(1).at("state"), "good");
  const auto rows = ckpt({"list", "--json", "--verify", run}).json().at("checkpoints");
  EXPECT_EQ(rows.at(1).at("state"), "damaged");
  EXPECT_EQ(rows.at(1).at("best"), false);
  EXPECT_EQ(rows.at(0).at("best"), true);  // the best of those that are left
  EXPECT_EQ(ckpt({"list", "--verify", run}).code, 0);
}

TEST(List, RefusesWhatIsNoRun) {
  TempDir dir;
  const std::string checkpoint = add_checkpoint(dir / "run", {.iteration = 1});
  EXPECT_EQ(ckpt({"list", checkpoint}).code, 6);
  EXPECT_EQ(ckpt({"list", checkpoint + "/state.pt"}).code, 6);
}

TEST(List, PrintsHostileMetricNamesSafely) {
  TempDir dir;
  const std::string name = "a\x1b[2J\n\"b";
  add_checkpoint(dir / "run", {.iteration = 1, .metrics = {{name, 1}}, .monitor = run::Monitor{name, Mode::kMin}});
  const Outcome text = ckpt({"list", dir / "run"});
  EXPECT_EQ(text.out.find('\x1b'), std::string::npos);
  EXPECT_EQ(lines_of(text.out).size(), 3u);
  EXPECT_EQ(ckpt({"list", dir / "run", "--json"}).json().at("checkpoints").at(0).at("metrics").at(name), 1);
}

TEST(List, DoesNotChangeTheRun) {
  TempDir dir;
  const std::string run = three_in(dir / "run");
  const auto before = everything_in(run);
  ckpt({"list", "--verify", run});
  ckpt({"verify", run});
  ckpt({"inspect", run});
  ckpt({"load", run});
  ckpt({"prune", run, "--keep-last", "1", "--dry-run"});
  EXPECT_TRUE(everything_in(run) == before);
}

}  // namespace
}  // namespace ckpt::test
