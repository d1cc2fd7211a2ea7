#include "core/run/writer.h"

#include <sys/stat.h>

#include <limits>
#include <thread>

#include "ckpt/error.h"
#include "run_testing.h"

namespace ckpt::run {
namespace {

using namespace testing;
using Iterations = std::vector<uint64_t>;

class WriterTest : public RunTest {};

ErrorCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInternal;
}

TEST_F(WriterTest, CommitsAWholeCheckpoint) {
  RunWriter writer(run());
  const Sample sample{.iteration = 1200, .accuracy = 0.5};
  const Committed done = save(writer, sample, {}, kAccuracy);
  EXPECT_EQ(done.path, step(1200).string());
  EXPECT_EQ(done.iteration, 1200u);
  EXPECT_EQ(done.sequence, 1u);
  EXPECT_TRUE(done.deleted.empty());
  EXPECT_TRUE(done.warnings.empty());
  EXPECT_TRUE(holds(done.path, sample));
  EXPECT_EQ(names_in(step(1200)), (std::vector<std::string>{"MANIFEST.json", "state.bin", "weights.safetensors"}));
  EXPECT_EQ(names_in(run()), (std::vector<std::string>{".lock", "best", "latest", "step-000000001200"}));
  EXPECT_EQ(done.bytes, fs::file_size(step(1200) / "MANIFEST.json") + sample.state().size() + sample.weights().size());

  const Manifest manifest = read_manifest(io::Directory::open(done.path));
  EXPECT_EQ(manifest.sequence, 1u);
  EXPECT_EQ(manifest.iteration, 1200u);
  EXPECT_EQ(manifest.epoch, 120u);
  EXPECT_EQ(manifest.metrics.at("accuracy"), 0.5);
  EXPECT_EQ(manifest.monitor, kAccuracy);
  EXPECT_NEAR(manifest.time, static_cast<double>(std::time(nullptr)), 60);
  EXPECT_TRUE(verify(io::Directory::open(done.path), 2).empty());
}

TEST_F(WriterTest, NamesOfMetricsAndMetadataMayHoldAnything) {
  RunWriter writer(run());
  Sample sample{.iteration = 1};
  CheckpointHead head = sample.head();
  head.metrics = {{"loss \"val\"", 1}, {"größe 日本\n", 2}, {"", 3}};
  head.metadata = {{"it's", {{"a \\ b", {1, nullptr}}}}};
  writer.commit(head, sample.files(), {}, {});
  const Manifest manifest = read_manifest(io::Directory::open(step(1).string()));
  EXPECT_EQ(manifest.metrics, head.metrics);
  EXPECT_EQ(manifest.metadata, head.metadata);
}

TEST_F(WriterTest, ModesFollowTheUmask) {
  const mode_t before = umask(027);
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  umask(before);
  const auto mode = [](const fs::path& path) { return static_cast<unsigned>(fs::status(path).permissions()); };
  EXPECT_EQ(mode(step(1)), 0750u);
  for (const std::string& name : names_in(step(1))) EXPECT_EQ(mode(step(1) / name), 0640u) << name;
}

TEST_F(WriterTest, NothingButTheTemporaryIsVisibleWhileWriting) {
  RunWriter writer(run());
  FileToWrite file{"state.bin", 0, [&](io::BlockWriter&) {
                     EXPECT_EQ(iterations(), Iterations{});
                     ASSERT_EQ(leftovers().size(), 1u);
                     struct stat status;
                     ASSERT_EQ(stat((run_ / leftovers()[0]).c_str(), &status), 0);
                     EXPECT_EQ(status.st_mode & 0777, 0700u);
                   }};
  writer.commit({.iteration = 5}, {file}, {}, {});
  EXPECT_EQ(iterations(), Iterations{5});
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(WriterTest, AProducerThatThrowsLeavesTheRunAsItWas) {
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  const std::vector<std::string> before = names_in(run());
  FileToWrite bad{"state.bin", 0, [](io::BlockWriter&) { throw std::runtime_error("no tensors"); }};
  EXPECT_THROW(writer.commit({.iteration = 2}, {bad}, {.last = 1}, {}), std::runtime_error);
  EXPECT_EQ(names_in(run()), before);
  EXPECT_EQ(save(writer, {.iteration = 2}).sequence, 2u);
}

TEST_F(WriterTest, WhatCannotBeWrittenIsRefusedBeforeAnythingIs) {
  RunWriter writer(run());
  const std::vector<std::string> before = names_in(run());
  const auto nothing = [](io::BlockWriter&) {};
  CheckpointHead bad_name{.iteration = 1};
  bad_name.metrics["\xff"] = 1;
  for (const auto& action : std::vector<std::function<void()>>{
           [&] {
             writer.commit({.iteration = 1}, {{"../state.pt", 0, nothing}}, {}, {});
           },
           [&] {
             writer.commit({.iteration = 1}, {{"MANIFEST.json", 0, nothing}}, {}, {});
           },
           [&] {
             writer.commit({.iteration = 1}, {{"a", 0, nothing}, {"a", 0, nothing}}, {}, {});
           },
           [&] { writer.commit(bad_name, {}, {}, {}); },
           [&] { save(writer, {.iteration = 1}, {.best = 1}); },
           [&] { save(writer, {.iteration = 1}, {.every = 0}); },
       }) {
    EXPECT_EQ(code_of(action), ErrorCode::kInvalid);
  }
  EXPECT_EQ(names_in(run()), before);
}

TEST_F(WriterTest, FreeSpaceIsCheckedFirst) {
  RunWriter writer(run());
  const std::vector<std::string> before = names_in(run());
  for (uint64_t expected : {uint64_t{1} << 60, UINT64_MAX}) {
    bool produced = false;
    try {
      writer.commit({.iteration = 1},
                    {{"a", expected, [&](io::BlockWriter&) { produced = true; }}, {"b", expected, {}}}, {}, {});
      ADD_FAILURE() << "committed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      EXPECT_NE(error.message().find("not enough free space"), std::string::npos);
    }
    EXPECT_FALSE(produced);
  }
  EXPECT_EQ(names_in(run()), before);
}

TEST_F(WriterTest, SequenceGoesOnOverOpeningsAndRewinds) {
  {
    RunWriter writer(run());
    EXPECT_EQ(save(writer, {.iteration = 10}).sequence, 1u);
    EXPECT_EQ(save(writer, {.iteration = 20}).sequence, 2u);
  }
  RunWriter writer(run());
  EXPECT_EQ(save(writer, {.iteration = 15}).sequence, 3u);
  EXPECT_EQ(link(kLatestName), step_name(15));
  EXPECT_EQ(select_latest(run())->checkpoint.iteration, 15u);
}

TEST_F(WriterTest, ReplacingAnIterationLeavesOneWholeCheckpoint) {
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  save(writer, {.iteration = 2});
  const Sample again{.iteration = 1, .version = 7};
  const Committed done = save(writer, again);
  EXPECT_EQ(done.sequence, 3u);
  EXPECT_TRUE(done.deleted.empty());
  EXPECT_TRUE(done.warnings.empty());
  EXPECT_TRUE(holds(step(1), again));
  EXPECT_EQ(iterations(), (Iterations{1, 2}));
  EXPECT_TRUE(leftovers().empty());
  EXPECT_EQ(link(kLatestName), step_name(1));
}

TEST_F(WriterTest, APartialOrEmptyStepIsReplacedToo) {
  RunWriter writer(run());
  fs::create_directories(step(1));
  fs::create_directories(step(2) / "inner");
  write_all(step(2) / "inner" / "x", "x");
  for (uint64_t iteration : {1, 2}) {
    save(writer, {.iteration = iteration});
    EXPECT_TRUE(holds(step(iteration), {.iteration = iteration}));
  }
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(WriterTest, LinksAreRelativeAndBestNeedsAMonitor) {
  RunWriter writer(run());
  save(writer, {.iteration = 1, .accuracy = 0.9});
  EXPECT_EQ(link(kLatestName), step_name(1));
  EXPECT_EQ(link(kBestName), "");
  save(writer, {.iteration = 2, .accuracy = 0.5}, {}, kAccuracy);
  EXPECT_EQ(link(kLatestName), step_name(2));
  EXPECT_EQ(link(kBestName), step_name(1));
  // Carried on without being given again; ties go to the newer.
  save(writer, {.iteration = 3, .accuracy = 0.9});
  EXPECT_EQ(link(kBestName), step_name(3));
  EXPECT_EQ(read_manifest(io::Directory::open(step(3).string())).monitor, kAccuracy);
}

TEST_F(WriterTest, BestGoesWhereNothingQualifies) {
  RunWriter writer(run());
  save(writer, {.iteration = 1, .accuracy = 0.9}, {}, kAccuracy);
  EXPECT_EQ(link(kBestName), step_name(1));
  save(writer, {.iteration = 2, .accuracy = std::numeric_limits<double>::quiet_NaN()}, {.last = 1});
  EXPECT_EQ(iterations(), Iterations{2});
  EXPECT_EQ(link(kBestName), "");
  EXPECT_FALSE(fs::is_symlink(run_ / kBestName));
}

TEST_F(WriterTest, RetentionDeletesAndSaysSo) {
  RunWriter writer(run());
  const KeepRules rules{.last = 2, .best = 1, .monitor = kAccuracy, .every = 10};
  const double accuracies[] = {0.1, 0.9, 0.2, 0.3, 0.4, 0.5};
  std::vector<std::string> deleted;
  for (uint64_t i = 0; i < 6; ++i) {
    for (const std::string& path :
         save(writer, {.iteration = i * 5, .accuracy = accuracies[i]}, rules, kAccuracy).deleted) {
      deleted.push_back(path);
    }
  }
  EXPECT_EQ(iterations(), (Iterations{0, 5, 10, 20, 25}));
  EXPECT_EQ(deleted, std::vector<std::string>{step(15).string()});
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(WriterTest, RetentionKnowsWhatOthersRemovedAndAdded) {
  RunWriter writer(run());
  for (uint64_t i = 1; i <= 4; ++i) save(writer, {.iteration = i});
  fs::remove_all(step(3));
  fs::remove_all(step(4));
  save(writer, {.iteration = 5}, {.last = 3});
  EXPECT_EQ(iterations(), (Iterations{1, 2, 5}));

  fs::copy(step(5), root_ / "elsewhere", fs::copy_options::recursive);
  fs::remove_all(step(5));
  fs::rename(root_ / "elsewhere", step(5));
  save(writer, {.iteration = 6}, {.last = 2});
  EXPECT_EQ(iterations(), (Iterations{5, 6}));
}

TEST_F(WriterTest, DamagedOnesAreNeitherCountedNorDeleted) {
  RunWriter writer(run());
  for (uint64_t i = 1; i <= 3; ++i) save(writer, {.iteration = i});
  fs::resize_file(step(3) / "state.bin", 10);
  fs::create_directories(step(9));
  RunWriter(std::move(writer));  // gone, and the next one scans
  RunWriter next(run());
  save(next, {.iteration = 4}, {.last = 2});
  EXPECT_EQ(iterations(), (Iterations{2, 3, 4, 9}));
}

TEST_F(WriterTest, ASecondWriterIsToldWhoHoldsTheRun) {
  RunWriter writer(run());
  try {
    RunWriter second(run());
    ADD_FAILURE() << "opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kLocked);
    EXPECT_NE(error.message().find(std::to_string(getpid())), std::string::npos) << error.message();
  }
}

TEST_F(WriterTest, MovedRunStaysWhole) {
  {
    RunWriter writer(run());
    save(writer, {.iteration = 1, .accuracy = 1}, {}, kAccuracy);
  }
  fs::rename(run_, root_ / "moved");
  const std::optional<Selection> found = select_latest((root_ / "moved").string());
  ASSERT_TRUE(found);
  EXPECT_TRUE(holds(found->checkpoint.path, {.iteration = 1}));
  EXPECT_TRUE(fs::exists(root_ / "moved" / "latest" / "state.bin"));
}

// --- prune ---

TEST_F(WriterTest, PruneKeepsTheNewestThatVerifies) {
  RunWriter writer(run());
  for (uint64_t i = 1; i <= 5; ++i) save(writer, {.iteration = i});
  for (uint64_t i : {4, 5}) {  // the size stays: only reading shows it
    std::string text = read_all(step(i) / "state.bin");
    text[100] = static_cast<char>(text[100] ^ 1);
    write_all(step(i) / "state.bin", text);
  }
  fs::create_directories(step(6));
  const RunWriter::Pruned dry = writer.prune({.last = 1}, false, true, 1);
  EXPECT_EQ(dry.deleted, (std::vector<std::string>{step(2).string(), step(1).string()}));
  EXPECT_EQ(dry.kept,
            (std::vector<std::string>{step(5).string(), step(4).string(), step(3).string(), step(6).string()}));
  EXPECT_EQ(iterations(), (Iterations{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(link(kLatestName), step_name(5));

  const RunWriter::Pruned done = writer.prune({.last = 1}, false, false, 1);
  EXPECT_EQ(done.deleted, dry.deleted);
  EXPECT_EQ(done.kept, dry.kept);
  EXPECT_TRUE(done.warnings.empty());
  EXPECT_EQ(iterations(), (Iterations{3, 4, 5, 6}));
  EXPECT_EQ(link(kLatestName), step_name(3));

  const RunWriter::Pruned damaged = writer.prune({.last = 1}, true, false, 1);
  EXPECT_EQ(damaged.kept, std::vector<std::string>{step(3).string()});
  EXPECT_EQ(damaged.deleted.size(), 3u);
  EXPECT_EQ(iterations(), Iterations{3});
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(WriterTest, PruneWithoutRulesKeepsAll) {
  RunWriter writer(run());
  for (uint64_t i = 1; i <= 3; ++i) save(writer, {.iteration = i});
  EXPECT_TRUE(writer.prune({}, false, false, 1).deleted.empty());
  EXPECT_EQ(iterations(), (Iterations{1, 2, 3}));
}

TEST_F(WriterTest, DeletingRemovesNothingOutside) {
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  fs::create_directories(root_ / "outside");
  write_all(root_ / "outside" / "precious", "x");
  fs::create_symlink(root_ / "outside", step(1) / "way-out");
  fs::create_symlink(root_ / "outside", step(7));
  save(writer, {.iteration = 2}, {.last = 1});
  writer.prune({.last = 1}, true, false, 1);
  EXPECT_EQ(iterations(), Iterations{2});
  EXPECT_TRUE(fs::exists(root_ / "outside" / "precious"));
}

TEST_F(WriterTest, ASymlinkSwappedInDuringDeletionLeadsNowhere) {
  fs::create_directories(root_ / "outside");
  write_all(root_ / "outside" / "state.bin", "x");
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  std::atomic<bool> stop = false;
  std::thread swapper([&] {
    while (!stop) {
      for (const std::string& name : names_in(run_)) {
        if (leftover_of(name) != Leftover::kTrash && name != step_name(1)) continue;
        std::error_code ignored;
        fs::rename(run_ / name, root_ / "hidden", ignored);
        fs::create_symlink(root_ / "outside", run_ / name, ignored);
        fs::remove(run_ / name, ignored);
        fs::rename(root_ / "hidden", run_ / name, ignored);
        fs::remove_all(root_ / "hidden", ignored);
      }
    }
  });
  for (uint64_t i = 2; i < 60; ++i) {
    try {
      save(writer, {.iteration = i, .bytes = 10}, {.last = 1});
      fs::rename(step(i), step(1));
    } catch (const std::exception&) {
      // The swapper got in the way; what counts is below.
    }
  }
  stop = true;
  swapper.join();
  EXPECT_EQ(read_all(root_ / "outside" / "state.bin"), "x");
}

}  // namespace
}  // namespace ckpt::run
