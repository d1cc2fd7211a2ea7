#include <chrono>
#include <cstdio>
#include <ctime>

#include "ckpt/error.h"
#include "run_testing.h"

namespace ckpt::run {
namespace {

using namespace testing;

class ScanTest : public RunTest {
 protected:
  Scan scanned() const { return scan(io::Directory::open(run())); }
};

TEST_F(ScanTest, EmptyRunHasNothing) {
  fs::create_directories(run_);
  EXPECT_TRUE(scanned().checkpoints.empty());
  EXPECT_TRUE(scanned().leftovers.empty());
  EXPECT_EQ(scanned().highest_sequence(), 0u);
  EXPECT_EQ(scanned().monitor(), std::nullopt);
}

TEST_F(ScanTest, NewestFirstAndThoseWithoutAManifestLast) {
  RunWriter writer(run());
  for (uint64_t iteration : {10, 30, 20}) save(writer, {.iteration = iteration, .accuracy = 1}, {}, kAccuracy);
  fs::create_directories(step(5));
  fs::create_directories(step(99));
  fs::create_directories(run_ / "step-7");
  fs::create_directories(run_ / "notes");
  write_all(step(99) / "state.pt", "12345");
  const std::string temporary = temporary_name(40), trash = trash_name(step_name(1));
  fs::create_directories(run_ / temporary);
  fs::create_directories(run_ / trash);

  const Scan found = scanned();
  std::vector<uint64_t> iterations;
  for (const Checkpoint& one : found.checkpoints) iterations.push_back(one.iteration);
  EXPECT_EQ(iterations, (std::vector<uint64_t>{20, 30, 10, 99, 5}));
  EXPECT_EQ(found.checkpoints[0].state, State::kGood);
  EXPECT_EQ(found.checkpoints[0].path, step(20).string());
  EXPECT_EQ(found.checkpoints[0].reason, "");
  EXPECT_EQ(found.checkpoints[3].state, State::kPartial);
  EXPECT_EQ(found.checkpoints[3].reason, "has no MANIFEST.json");
  EXPECT_EQ(found.checkpoints[3].bytes, 5u);
  EXPECT_FALSE(found.checkpoints[3].manifest);
  EXPECT_EQ(found.leftovers,
            (std::vector<std::string>{trash, temporary}[0] < temporary ? std::vector<std::string>{trash, temporary}
                                                                       : std::vector<std::string>{temporary, trash}));
  EXPECT_EQ(found.highest_sequence(), 3u);
  EXPECT_EQ(found.monitor(), kAccuracy);
}

TEST_F(ScanTest, TellsWhyACheckpointIsNotGood) {
  const auto reason_after = [&](const std::function<void(const fs::path&)>& damage) {
    fs::remove_all(run_);
    {
      RunWriter writer(run());
      save(writer, {.iteration = 1});
    }
    damage(step(1));
    const Scan found = scanned();
    EXPECT_EQ(found.checkpoints.size(), 1u);
    EXPECT_EQ(found.checkpoints.at(0).state, State::kDamaged);
    return found.checkpoints.at(0).reason;
  };
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };

  std::string reason = reason_after([](const fs::path& path) { fs::remove(path / "state.bin"); });
  EXPECT_EQ(reason, "\"state.bin\" is missing");
  reason = reason_after([](const fs::path& path) { fs::resize_file(path / "state.bin", 7); });
  EXPECT_EQ(reason, "\"state.bin\": expected 3000 bytes, found 7");
  reason = reason_after([](const fs::path& path) {
    fs::rename(path / "state.bin", path / "elsewhere");
    fs::create_symlink("elsewhere", path / "state.bin");
  });
  EXPECT_EQ(reason, "\"state.bin\" is no regular file");
  reason = reason_after([](const fs::path& path) { write_all(path / "MANIFEST.json", "{"); });
  EXPECT_TRUE(has(reason, "MANIFEST.json: ")) << reason;
  reason = reason_after([](const fs::path& path) { write_all(path / "MANIFEST.json", ""); });
  EXPECT_TRUE(has(reason, "MANIFEST.json: ")) << reason;
  reason = reason_after([](const fs::path& path) {
    fs::rename(path / "MANIFEST.json", path / "m");
    fs::create_symlink("m", path / "MANIFEST.json");
  });
  EXPECT_TRUE(has(reason, "MANIFEST.json: ")) << reason;
  reason = reason_after([](const fs::path& path) {
    fs::remove(path / "MANIFEST.json");
    fs::create_directories(path / "MANIFEST.json");
  });
  EXPECT_TRUE(has(reason, "MANIFEST.json: ")) << reason;
  reason = reason_after([&](const fs::path& path) {
    fs::rename(path, root_ / "moved");
    fs::create_symlink(root_ / "moved", path);
  });
  EXPECT_EQ(reason, "is a link, no directory");
  fs::remove_all(root_ / "moved");
  reason = reason_after([&](const fs::path& path) {
    fs::remove_all(path);
    write_all(path, "a file");
  });
  EXPECT_EQ(reason, "is no directory");
}

TEST_F(ScanTest, ACheckpointUnderAnotherStepsNameIsDamaged) {
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  fs::rename(step(1), step(2));
  const Scan found = scanned();
  EXPECT_EQ(found.checkpoints.at(0).state, State::kDamaged);
  EXPECT_EQ(found.checkpoints.at(0).iteration, 2u);
  EXPECT_EQ(found.checkpoints.at(0).reason, "its manifest is of iteration 1");
  EXPECT_EQ(verify(io::Directory::open(step(2).string()), 1).size(), 1u);
}

TEST_F(ScanTest, OneMovedAsideForAReplacementThatNeverCameIsStillThere) {
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  const std::string aside = replaced_name(step_name(1));
  fs::rename(step(1), run_ / aside);
  Scan found = scanned();
  ASSERT_EQ(found.checkpoints.size(), 1u);
  EXPECT_EQ(found.checkpoints[0].name, aside);
  EXPECT_EQ(found.checkpoints[0].iteration, 1u);
  EXPECT_EQ(found.checkpoints[0].state, State::kGood);
  EXPECT_TRUE(found.leftovers.empty());
  EXPECT_TRUE(holds(select_latest(run())->checkpoint.path, {.iteration = 1}));

  fs::create_directories(step(1));
  found = scanned();
  ASSERT_EQ(found.checkpoints.size(), 1u);
  EXPECT_EQ(found.checkpoints[0].name, step_name(1));
  EXPECT_EQ(found.leftovers, std::vector<std::string>{aside});
}

TEST_F(ScanTest, ReadsOneCheckpointWhateverItsName) {
  RunWriter writer(run());
  save(writer, {.iteration = 12});
  fs::rename(step(12), run_ / "keep this");
  const Checkpoint read = read_checkpoint(io::Directory::open(run()), "keep this");
  EXPECT_EQ(read.state, State::kGood);
  EXPECT_EQ(read.iteration, 12u);
  EXPECT_THROW(read_checkpoint(io::Directory::open(run()), "absent"), Error);
}

TEST_F(ScanTest, TellsRunsAndCheckpointsApart) {
  RunWriter writer(run());
  save(writer, {.iteration = 12});
  fs::create_directories(step(13));
  EXPECT_FALSE(is_checkpoint_directory(run()));
  EXPECT_TRUE(is_checkpoint_directory(step(12).string()));
  EXPECT_TRUE(is_checkpoint_directory(step(12).string() + "/"));
  EXPECT_TRUE(is_checkpoint_directory(step(13).string()));
  EXPECT_TRUE(is_checkpoint_directory((run_ / "latest").string()));
  EXPECT_FALSE(is_checkpoint_directory((run_ / "absent").string()));
  EXPECT_FALSE(is_checkpoint_directory((step(12) / "state.bin").string()));
}

/// In memory where that can be had: making the run costs more than reading it.
class BigScanTest : public RunTest {
 protected:
  BigScanTest() : RunTest(fs::is_directory("/dev/shm") ? "/dev/shm" : ::testing::TempDir()) {}
};

/// The aim is 0.2 s in a release build on two warm cores (the printed times). What is asserted is processor time, so
/// that a busy machine does not matter, with room for debug builds under sanitizers.
TEST_F(BigScanTest, TenThousandCheckpointsAreReadQuickly) {
  constexpr uint64_t kCount = 10'000;
  {
    RunWriter writer(run());
    save(writer, {.iteration = 0, .bytes = 10, .accuracy = 0.5}, {}, kAccuracy);
  }
  Manifest manifest = read_manifest(io::Directory::open(step(0).string()));
  std::erase_if(manifest.files, [](const ManifestFile& file) { return file.path != "state.bin"; });
  const std::string state = read_all(step(0) / "state.bin");
  for (uint64_t i = 1; i < kCount; ++i) {
    manifest.iteration = i;
    manifest.sequence = i + 1;
    fs::create_directory(step(i));
    write_all(step(i) / "MANIFEST.json", to_text(manifest));
    write_all(step(i) / "state.bin", state);
  }
  const auto seconds = [](const std::function<void()>& action) {
    const auto start = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  double best = 1e9;
  double cpu = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t before = std::clock();
    best = std::min(best, seconds([&] {
                      const Scan found = scan(io::Directory::open(run()));
                      ASSERT_EQ(found.checkpoints.size(), kCount);
                      EXPECT_EQ(found.checkpoints.front().iteration, kCount - 1);
                      for (const Checkpoint& one : found.checkpoints) ASSERT_EQ(one.state, State::kGood) << one.reason;
                    }));
    cpu = std::min(cpu, static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC);
  }
  double saving = 0;
  const double opening = seconds([&] {
    RunWriter writer(run());
    saving = seconds([&] { save(writer, {.iteration = kCount, .bytes = 10}, {.last = kCount}, kAccuracy); });
  });
  std::printf("scan of 10,000 checkpoints: %.3f s; opening for writing: %.3f s; a save then: %.3f s\n", best,
              opening - saving, saving);
  EXPECT_LT(cpu, 6);
}

}  // namespace
}  // namespace ckpt::run
