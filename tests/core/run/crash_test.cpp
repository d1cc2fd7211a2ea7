// The process is killed, or the power fails, at each call of a save in turn; and several writers at once.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "ckpt/error.h"
#include "fault_scenarios.h"
#include "support/fault_hook.h"
#include "support/power_cut.h"

namespace ckpt::run {
namespace {

using namespace testing;
using test::Fault;
using test::FaultHook;
using test::PowerCutRecorder;
using test::ScopedHook;

class SaveCrashTest : public RunTest, public ::testing::WithParamInterface<Scenario> {
 protected:
  SaveCrashTest() : RunTest(fast_directory()) {}
  void SetUp() override { make_old_run((root_ / "old").string()); }
};

TEST_P(SaveCrashTest, KilledAtEachCall) {
  size_t killed = 0;
  for (size_t at = 0;; ++at) {
    fs::remove_all(run_);
    fs::copy(root_ / "old", run_, copy_all());
    std::array<int, 2> pipe_ends;
    ASSERT_EQ(pipe(pipe_ends.data()), 0);
    const int status = test::run_in_child([&] {
      FaultHook fault({.fault = Fault::kKillBefore, .at = at});
      WithoutExchange hook(&fault, GetParam().exchange);
      const ScopedHook scoped(&hook);
      RunWriter writer(run());
      GetParam().commit(writer);
      return write(pipe_ends[1], "S", 1) == 1 ? 0 : 1;
    });
    close(pipe_ends[1]);
    char said = 0;
    const bool reported = read(pipe_ends[0], &said, 1) == 1;
    close(pipe_ends[0]);

    // A reader needs no writer to have cleaned up.
    expect_old_or_new(run(), GetParam().save, reported);
    RunWriter writer(run());
    expect_old_or_new(run(), GetParam().save, reported);
    EXPECT_TRUE(leftovers().empty());
    EXPECT_NO_THROW(save(writer, {.iteration = 9}));
    EXPECT_EQ(select_latest(run())->checkpoint.iteration, 9u);
    ASSERT_FALSE(HasFailure()) << "killed at call " << at;
    if (!test::was_killed(status)) {
      EXPECT_TRUE(test::exited_with(status, 0));
      EXPECT_TRUE(reported);
      break;
    }
    ++killed;
  }
  EXPECT_GT(killed, 15u);
}

TEST_P(SaveCrashTest, PowerCutAfterEachCall) {
  fs::copy(root_ / "old", run_, copy_all());
  PowerCutRecorder recorder(run());
  {
    WithoutExchange hook(&recorder, GetParam().exchange);
    const ScopedHook scoped(&hook);
    RunWriter writer(run());
    EXPECT_TRUE(GetParam().commit(writer).warnings.empty());
  }
  // From the fsync of step 6 on the new one must be found.
  const std::string step = step_name(GetParam().save.iteration);
  size_t durable = 0;
  while (durable < recorder.calls() && !recorder.describe(durable).ends_with(" " + step)) ++durable;
  if (!GetParam().exchange) ++durable;
  while (durable < recorder.calls() && !recorder.describe(durable).starts_with("sync .")) ++durable;

  ASSERT_LT(durable, recorder.calls());
  for (size_t call = 0; call < durable; ++call) {
    EXPECT_FALSE(recorder.describe(call).starts_with("unlink") || recorder.describe(call).starts_with("rmdir"))
        << "deletes before the new one is durable: " << recorder.describe(call);
  }

  size_t cuts = 0;
  for (size_t calls = 0; calls <= recorder.calls(); ++calls) {
    for (const test::Fate& fate : recorder.fates(calls)) {
      const std::string after = (root_ / "after").string();
      fs::remove_all(after);
      recorder.materialise(calls, fate, after);
      expect_old_or_new(after, GetParam().save, calls > durable);
      RunWriter writer(after);
      expect_old_or_new(after, GetParam().save, calls > durable);
      for (const std::string& name : names_in(after)) EXPECT_EQ(leftover_of(name), Leftover::kNone) << name;
      ++cuts;
      ASSERT_FALSE(HasFailure()) << "after " << calls << " calls, the last "
                                 << (calls ? recorder.describe(calls - 1) : "") << "; data "
                                 << static_cast<int>(fate.data) << ", names " << fate.names;
    }
  }
  EXPECT_GT(cuts, recorder.calls());
}

INSTANTIATE_TEST_SUITE_P(Scenarios, SaveCrashTest, ::testing::ValuesIn(scenarios()), name_of);

// --- what a dead writer left ---

class RecoveryTest : public RunTest {
 protected:
  RecoveryTest() : RunTest(fast_directory()) { make_old_run(run()); }
};

TEST_F(RecoveryTest, TemporariesAndTrashGoAndNothingElse) {
  fs::copy(step(3), run_ / temporary_name(7), copy_all());
  fs::copy(step(3), run_ / trash_name(step_name(8)), copy_all());
  fs::copy(step(3), run_ / replaced_name(step_name(3)), copy_all());
  fs::create_symlink("step-000000000003", run_ / "latest.tmp-0123456789abcdef0123456789abcdef");
  write_all(run_ / temporary_name(6), "a file");
  fs::create_directories(run_ / "notes");
  write_all(run_ / "step-000000000001.bak", "x");
  EXPECT_EQ(leftovers().size(), 5u);
  RunWriter writer(run());
  EXPECT_TRUE(leftovers().empty());
  EXPECT_EQ(iterations(), (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_TRUE(fs::exists(run_ / "notes"));
  EXPECT_TRUE(fs::exists(run_ / "step-000000000001.bak"));
}

TEST_F(RecoveryTest, OneMovedAsideComesBackWhereItsReplacementNeverCame) {
  fs::rename(step(3), run_ / replaced_name(step_name(3)));
  RunWriter writer(run());
  EXPECT_TRUE(holds(step(3), old_samples()[2]));
  EXPECT_TRUE(leftovers().empty());
  EXPECT_EQ(save(writer, {.iteration = 4}).sequence, 4u);
}

TEST_F(RecoveryTest, OneThatWasBeingDeletedNeverComesBack) {
  fs::rename(step(2), run_ / trash_name(step_name(2)));
  RunWriter writer(run());
  EXPECT_EQ(iterations(), (std::vector<uint64_t>{1, 3}));
}

TEST_F(RecoveryTest, APowerCutDuringItLosesNothing) {
  fs::rename(step(3), run_ / replaced_name(step_name(3)));
  fs::copy(step(2), run_ / replaced_name(step_name(2)), copy_all());
  fs::copy(step(2), run_ / temporary_name(4), copy_all());
  PowerCutRecorder recorder(run());
  {
    const ScopedHook scoped(&recorder);
    RunWriter writer(run());
  }
  for (size_t calls = 0; calls <= recorder.calls(); ++calls) {
    for (const test::Fate& fate : recorder.fates(calls)) {
      fs::remove_all(root_ / "after");
      recorder.materialise(calls, fate, (root_ / "after").string());
      expect_old_or_new((root_ / "after").string(), old_samples().back(), true);
      RunWriter writer((root_ / "after").string());
      for (const Sample& old : old_samples()) ASSERT_TRUE(holds(root_ / "after" / step_name(old.iteration), old));
    }
  }
}

// --- several writers ---

class WritersTest : public RunTest {};

TEST_F(WritersTest, OfEightProcessesOneWins) {
  constexpr int kWriters = 8;
  std::array<int, 2> said, go;
  ASSERT_EQ(pipe(said.data()), 0);
  ASSERT_EQ(pipe(go.data()), 0);
  std::vector<pid_t> children;
  for (int i = 0; i < kWriters; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(go[1]);
      char verdict = '?', unused;
      try {
        RunWriter writer(run());
        save(writer, {.iteration = 1});
        verdict = 'W';
        if (write(said[1], &verdict, 1) != 1 || read(go[0], &unused, 1) != 0) _exit(2);
        _exit(0);
      } catch (const Error& error) {
        if (error.code() == ErrorCode::kLocked) verdict = 'L';
      } catch (...) {
      }
      _exit(write(said[1], &verdict, 1) == 1 ? 0 : 2);
    }
    children.push_back(child);
  }
  std::string verdicts;
  for (int i = 0; i < kWriters; ++i) {
    char one = 0;
    ASSERT_EQ(read(said[0], &one, 1), 1);
    verdicts += one;
  }
  for (int end : {go[0], go[1], said[0], said[1]}) close(end);
  for (pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(std::count(verdicts.begin(), verdicts.end(), 'W'), 1) << verdicts;
  EXPECT_EQ(std::count(verdicts.begin(), verdicts.end(), 'L'), kWriters - 1) << verdicts;
  EXPECT_TRUE(holds(step(1), {.iteration = 1}));
  // The lock died with its holder.
  RunWriter writer(run());
}

TEST_F(WritersTest, AWriterThatWaitsGetsItsTurn) {
  auto first = std::make_unique<RunWriter>(run());
  std::thread other([&] {
    try {
      RunWriter second(run(), std::chrono::seconds(20));
      save(second, {.iteration = 2});
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  });
  save(*first, {.iteration = 1});
  first.reset();
  other.join();
  EXPECT_EQ(iterations(), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(select_latest(run())->checkpoint.manifest->sequence, 2u);
}

}  // namespace
}  // namespace ckpt::run
