// Checkpoints and runs as inputs, and as the output.
#include <limits>

#include "average_testing.h"
#include "core/format/archive_writer.h"
#include "core/format/state_layout.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/run/writer.h"

namespace ckpt {
namespace {

using test::any_has;
using test::contains;
using test::floats;
using test::joined;
using test::longs;
using test::MadeTensor;

using Floats = std::vector<float>;
using Lines = std::vector<std::string>;
using Metrics = std::map<std::string, double>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class AverageRunsTest : public test::AverageTest {
 protected:
  /// A checkpoint whose model is `w` and the counter `n`, both `value`, and whose ema is `w` of ten times that.
  void save(uint64_t iteration, float value, const Metrics& metrics = {},
            const std::optional<run::Monitor>& monitor = {}, const std::string& run = "run") {
    const std::vector<MadeTensor> made = {floats("model.w", {value}), longs("model.n", {static_cast<int64_t>(value)}),
                                          floats("ema.w", {10 * value})};
    std::vector<format::TensorToWrite> tensors = test::to_write(made);
    const std::string description =
        R"({"parts": {"model": {"kind": "module"}, "ema": {"kind": "tensors"}}, "epoch": 0,)"
        R"("iteration": 0, "metrics": {}, "best_metric": null, "metadata": {}})";
    format::ArchiveToWrite root = format::archive_of(tensors);
    root.members.emplace_back(format::kHeadPart,
                              std::make_shared<const format::ArchiveToWrite>(format::ArchiveToWrite{
                                  {{"version", format::kStateVersion}, {"description", description}}}));
    run::RunWriter writer(dir_ / run);
    const run::FileToWrite state{std::string(run::kStateName), 100,
                                 [&](io::BlockWriter& to) { format::write_archive(to, root, tensors); }};
    writer.commit({.iteration = iteration, .metrics = metrics}, {state}, {}, monitor);
  }
  std::string step(uint64_t iteration, const std::string& run = "run") const {
    return dir_ / (run + "/" + run::step_name(iteration));
  }
  /// The values of `w` in what is chosen from the run, in its order.
  std::vector<uint64_t> chosen(const AverageSelection& select) {
    std::vector<uint64_t> iterations;
    for (const AverageInput& input : average({run_}, {.select = select}).inputs) {
      EXPECT_EQ(input.path, step(*input.iteration));
      iterations.push_back(*input.iteration);
    }
    return iterations;
  }
  void damage(uint64_t iteration) { std::filesystem::remove(step(iteration) + "/state.pt"); }

  std::string run_ = dir_ / "run";
  using Steps = std::vector<uint64_t>;
};

TEST_F(AverageRunsTest, AllCheckpointsOfARunOldestFirst) {
  save(100, 1);
  save(300, 2);
  save(200, 6);  // rewound: committed last
  EXPECT_EQ(chosen({}), (Steps{100, 300, 200}));
  EXPECT_EQ(floats_of("w"), Floats{3});
  average({run_}, {.ema_decay = 0.5});
  EXPECT_EQ(floats_of("w"), Floats{3.75});  // 1, 1.5, 3.75
}

TEST_F(AverageRunsTest, TheNewestOrThoseOfSomeIterations) {
  for (const uint64_t i : {1, 2, 3, 4, 5}) save(i * 100, static_cast<float>(i));
  save(250, 9);
  EXPECT_EQ(chosen({.last = 2}), (Steps{500, 250}));
  EXPECT_EQ(chosen({.last = 100}).size(), 6u);
  EXPECT_EQ(chosen({.range = {{200, 300}}}), (Steps{200, 300, 250}));
  EXPECT_EQ(chosen({.range = {{0, std::numeric_limits<uint64_t>::max()}}}).size(), 6u);
  EXPECT_EQ(chosen({.iterations = {400, 100, 400}}), (Steps{400, 100, 400}));
  EXPECT_EQ(floats_of("w"), Floats{3});
  average({run_}, {.weights = {3, 1}, .select = {.iterations = {400, 100}}});
  EXPECT_EQ(floats_of("w"), Floats{13.f / 4});

  const Error missing = refused({run_}, {.select = {.iterations = {400, 150, 100, 350}}});
  EXPECT_EQ(missing.code(), ErrorCode::kNotFound);
  EXPECT_TRUE(any_has(missing.details(), {"150"}) && any_has(missing.details(), {"350"})) << joined(missing.details());
  EXPECT_EQ(refused({run_}, {.select = {.range = {{600, 700}}}}).code(), ErrorCode::kNotFound);
  for (const AverageSelection& select : {AverageSelection{.last = 1, .range = {{1, 2}}}, AverageSelection{.last = 0},
                                         AverageSelection{.best = 0}, AverageSelection{.range = {{2, 1}}}}) {
    EXPECT_EQ(refused({run_}, {.select = select}).code(), ErrorCode::kInvalid);
  }
}

TEST_F(AverageRunsTest, TheBestByTheMonitoredMetricOrAnother) {
  const run::Monitor monitor{"accuracy", Mode::kMax};
  save(1, 1, {{"accuracy", 0.5}, {"loss", 3}}, monitor);
  save(2, 2, {{"accuracy", 0.9}, {"loss", 2}});
  save(3, 3, {{"accuracy", kNaN}, {"loss", 2}});
  save(4, 4, {{"accuracy", 0.7}});
  save(5, 5, {{"accuracy", 0.7}, {"loss", 5}});
  save(6, 6, {{"loss", 9}});
  EXPECT_EQ(chosen({.best = 1}), Steps{2});
  EXPECT_EQ(chosen({.best = 2}), (Steps{2, 5}));  // a tie: the newer
  EXPECT_EQ(chosen({.best = 4}), (Steps{1, 2, 4, 5}));
  EXPECT_EQ(chosen({.best = 5}), (Steps{1, 2, 3, 4, 5}));   // NaN is the worst
  EXPECT_EQ(chosen({.best = 99}), (Steps{1, 2, 3, 4, 5}));  // a missing one is none
  EXPECT_EQ(chosen({.best = 2, .metric = "loss", .mode = Mode::kMin}), (Steps{2, 3}));
  EXPECT_EQ(chosen({.best = 2, .metric = "loss", .mode = Mode::kMax}), (Steps{5, 6}));
  EXPECT_EQ(refused({run_}, {.select = {.best = 1, .metric = "f1"}}).code(), ErrorCode::kNotFound);
}

TEST_F(AverageRunsTest, NoneIsTheBestWhereNoMetricWasEverMonitored) {
  save(1, 1, {{"accuracy", 0.5}});
  EXPECT_EQ(refused({run_}, {.select = {.best = 1}}).code(), ErrorCode::kNotFound);
  EXPECT_EQ(chosen({.best = 1, .metric = "accuracy"}), Steps{1});
}

TEST_F(AverageRunsTest, DamagedOnesArePassedOverUnlessTheyAreNamed) {
  for (const uint64_t i : {1, 2, 3}) save(i, static_cast<float>(i), {{"accuracy", static_cast<double>(i)}});
  damage(2);
  const AverageReport report = average({run_});
  EXPECT_EQ(report.inputs.size(), 2u);
  EXPECT_EQ(floats_of("w"), Floats{2});
  EXPECT_EQ(report.warnings.size(), 1u);
  EXPECT_TRUE(any_has(report.warnings, {step(2)})) << joined(report.warnings);
  EXPECT_EQ(chosen({.best = 2, .metric = "accuracy"}), (Steps{1, 3}));
  EXPECT_EQ(average({run_}, {.select = {.range = {{3, 4}}}}).warnings, Lines{});

  const Error listed = refused({run_}, {.select = {.iterations = {1, 2}}});
  EXPECT_EQ(listed.code(), ErrorCode::kCorrupt) << listed.what();
  EXPECT_TRUE(contains(listed.what(), step(2))) << listed.what();
  EXPECT_EQ(refused({step(1), step(2)}).code(), ErrorCode::kCorrupt);
  damage(1);
  damage(3);
  EXPECT_EQ(refused({run_}).code(), ErrorCode::kCorrupt);
}

TEST_F(AverageRunsTest, DamageIsSeenOnTheWay) {
  save(1, 1);
  save(2, 2);
  std::string bytes = test::read_all(step(2) + "/state.pt");
  const weights::Weights weights = weights::Weights::open(step(2));
  bytes[weights.find("w")->stored.file_offset] ^= 1;
  test::write_all(step(2) + "/state.pt", bytes);
  const Error error = refused({run_});
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_TRUE(contains(error.what(), step(2))) << error.what();
  EXPECT_EQ(error.tensor(), "w");
}

TEST_F(AverageRunsTest, DamageIsSeenWhereOnlyACopyOfTheWeightsIsLeft) {
  const auto commit = [&](uint64_t iteration) {
    const std::string file = write("x.safetensors", {floats("w", {static_cast<float>(iteration)})});
    const std::string text = test::read_all(file);
    run::RunWriter writer(run_);
    writer.commit(
        {.iteration = iteration},
        {{std::string(run::kWeightsName), text.size(), [&](io::BlockWriter& to) { to.append(as_bytes(text)); }}}, {},
        {});
  };
  commit(1);
  commit(3);
  average({run_});
  EXPECT_EQ(floats_of("w"), Floats{2});
  const std::string copy = step(3) + "/weights.safetensors";
  std::string bytes = test::read_all(copy);
  bytes.back() ^= 1;
  test::write_all(copy, bytes);
  const Error error = refused({run_});
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_TRUE(contains(error.what(), step(3))) << error.what();
}

TEST_F(AverageRunsTest, TheAveragedWeightsOfEachOnRequest) {
  save(1, 1);
  save(2, 2);
  average({run_}, {.ema = true});
  EXPECT_EQ(floats_of("w"), Floats{15});
  average({run_}, {.key = "ema"});
  EXPECT_EQ(floats_of("w"), Floats{15});
}

TEST_F(AverageRunsTest, RunsCheckpointsAndFilesTogether) {
  save(1, 1);
  save(2, 2);
  save(7, 4, {}, {}, "other");
  const std::string file = write("x.safetensors", {floats("w", {5}), longs("n", {5})});
  const AverageReport report = average({file, run_, step(7, "other"), dir_ / "run/latest"}, {.select = {.last = 1}});
  ASSERT_EQ(report.inputs.size(), 4u);
  EXPECT_EQ(report.inputs[0].iteration, std::nullopt);
  EXPECT_EQ(report.inputs[1].path, step(2));
  EXPECT_EQ(report.inputs[1].iteration, 2u);
  EXPECT_EQ(report.inputs[2].iteration, 7u);
  EXPECT_EQ(report.inputs[3].path, dir_ / "run/latest");
  EXPECT_EQ(report.inputs[3].iteration, 2u);
  EXPECT_EQ(floats_of("w"), Floats{3.25});
  EXPECT_EQ(values<int64_t>("n")[0], 4);  // of the highest iteration, not of the last argument
  EXPECT_EQ(test::decisions_on(report, "n"), Lines{"newest: from " + step(7, "other")});
}

TEST_F(AverageRunsTest, OfEqualIterationsTheLastIsTheNewest) {
  save(5, 1);
  save(5, 2, {}, {}, "b");
  save(5, 3, {}, {}, "c");
  const std::string file = write("x.safetensors", {floats("w", {5}), longs("n", {9})});
  for (const Lines& inputs : {Lines{"run", "b", "c"}, Lines{"c", "run", "b"}, Lines{"run", "b"}}) {
    Lines paths;
    for (const std::string& run : inputs) paths.push_back(step(5, run));
    EXPECT_EQ(test::decisions_on(average(paths), "n"), Lines{"newest: from " + paths.back()});
    paths.push_back(file);
    EXPECT_EQ(test::decisions_on(average(paths), "n"), Lines{"newest: from " + paths[paths.size() - 2]});
  }
}

TEST_F(AverageRunsTest, AllInputsThatCannotBeReadAreTold) {
  save(1, 1);
  test::write_all(dir_ / "empty.pt", "");
  std::filesystem::create_directory(dir_ / "nothing");
  const Error none = refused({dir_ / "absent.pt"});
  EXPECT_EQ(none.code(), ErrorCode::kIo);
  EXPECT_EQ(none.path(), dir_ / "absent.pt");
  EXPECT_EQ(refused({dir_ / "nothing"}).code(), ErrorCode::kNotFound);
  EXPECT_EQ(refused({run_, dir_ / "empty.pt"}).code(), ErrorCode::kCorrupt);
  const Error all = refused({dir_ / "absent.pt", run_, dir_ / "empty.pt", dir_ / "nothing"});
  EXPECT_EQ(all.details().size(), 3u) << joined(all.details());
  for (const char* name : {"absent.pt", "empty.pt", "nothing"}) {
    EXPECT_TRUE(any_has(all.details(), {dir_ / name})) << joined(all.details());
  }
}

// --- Into a run -----------------------------------------------------------------------------------------------------

TEST_F(AverageRunsTest, TheResultCanBeACheckpoint) {
  save(1, 1, {{"accuracy", 0.5}});
  save(2, 2, {{"accuracy", 0.5}});
  out_ = dir_ / "average";
  const AverageReport report = average({run_}, {.format = Format::kCheckpoint});
  EXPECT_EQ(report.output, step(2, "average"));
  const weights::Weights weights = weights::Weights::open(out_);
  EXPECT_EQ(weights.format(), Format::kRun);
  EXPECT_EQ(test::names_of(weights), (Lines{"w", "n"}));
  EXPECT_EQ(floats_of("w"), Floats{1.5});
  EXPECT_EQ(test::names_of(weights::Weights::open(out_, {.key = "model"})), (Lines{"w", "n"}));
  const io::Directory directory = io::Directory::open(report.output);
  EXPECT_TRUE(run::verify(directory, 1).empty());
  const run::Manifest manifest = run::read_manifest(directory);
  EXPECT_EQ(manifest.iteration, 2u);
  EXPECT_TRUE(manifest.metrics.empty());
  const nlohmann::json& provenance = manifest.metadata.at(kAverageProvenance);
  EXPECT_EQ(provenance.at("method"), "mean");
  ASSERT_EQ(provenance.at("inputs").size(), 2u);
  Lines hashes, expected = {report.inputs[0].hash, report.inputs[1].hash};
  for (const auto& input : provenance.at("inputs")) hashes.push_back(input.at("hash"));
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(hashes, expected);
}

TEST_F(AverageRunsTest, IntoTheRunThatItIsOf) {
  save(1, 1);
  save(2, 3);
  average::average({run_}, run_, {.format = Format::kCheckpoint});
  EXPECT_EQ(test::values_of<float>(test::read(weights::Weights::open(run_), "w")), Floats{2});
  EXPECT_EQ(run::scan(io::Directory::open(run_)).checkpoints.size(), 2u);
}

TEST_F(AverageRunsTest, ACheckpointNeedsAnIteration) {
  const std::string file = write("x.safetensors", {floats("w", {5})});
  for (const bool dry_run : {true, false}) {
    const Error error = test::error_of(
        [&] { average::average({file}, dir_ / "new", {.format = Format::kCheckpoint, .dry_run = dry_run}); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalid);
    EXPECT_FALSE(std::filesystem::exists(dir_ / "new"));
  }
  save(12, 1);
  const std::string other = write("y.safetensors", {floats("w", {5}), longs("n", {5})});
  EXPECT_EQ(average::average({other, run_, other}, dir_ / "new", {.format = Format::kCheckpoint}).output,
            step(12, "new"));
}

TEST_F(AverageRunsTest, ARefusedOneLeavesTheRunAsItWas) {
  save(1, 1);
  save(2, std::numeric_limits<float>::infinity());
  const Error error = test::error_of([&] { average::average({run_}, run_, {.format = Format::kCheckpoint}); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  Lines names;
  for (const auto& entry : std::filesystem::directory_iterator(run_)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (Lines{".lock", "latest", "step-000000000001", "step-000000000002"}));
  EXPECT_TRUE(run::verify(io::Directory::open(step(2)), 1).empty());
}

TEST_F(AverageRunsTest, ATrainingCheckpointOfPythonHasItsIterations) {
  const std::string file = std::string(CKPT_TEST_DATA) + "/python_checkpoints/sgd.pt";
  EXPECT_EQ(average({file}).inputs[0].iteration, 3u);
  EXPECT_EQ(average({file}, {.ema = true}).inputs[0].iteration, 3u);
  EXPECT_EQ(average::average({file}, run_, {.format = Format::kCheckpoint}).output, step(3));
}

}  // namespace
}  // namespace ckpt
