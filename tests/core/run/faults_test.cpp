// Each system call of a save fails in turn: an error that leaves the run as it was, or a warning after the commit.
#include <array>

#include "ckpt/error.h"
#include "fault_scenarios.h"
#include "support/fault_hook.h"

namespace ckpt::run {
namespace {

using namespace testing;
using test::Fault;
using test::FaultHook;
using test::FaultPlan;
using test::ScopedHook;

class SaveFaultsTest : public RunTest, public ::testing::WithParamInterface<Scenario> {
 protected:
  SaveFaultsTest() : RunTest(fast_directory()) {}

  void SetUp() override {
    make_old_run((root_ / "old").string());
    fs::copy(root_ / "old", run_, copy_all());
  }
  void start_again() {
    fs::remove_all(run_);
    fs::copy(root_ / "old", run_, copy_all());
  }

  /// After an error: the run as it was (or, where the last fsync failed, with the new one and nothing deleted).
  void expect_untouched(const FaultHook& hook, const Error& error) {
    const bool unknown = error.message().find("nothing was deleted") != std::string::npos;
    EXPECT_EQ(unknown, hook.hit() == "sync " + run() && holds(step(GetParam().save.iteration), GetParam().save))
        << hook.hit();
    for (const Sample& old : old_samples()) {
      if (!unknown || old.iteration != GetParam().save.iteration) {
        EXPECT_TRUE(holds(step(old.iteration), old)) << old.iteration;
      }
    }
    if (!unknown) {
      EXPECT_EQ(names_in(run()), names_in(root_ / "old"));
    }
  }
};

TEST_P(SaveFaultsTest, EachCallInTurn) {
  for (int code : {EIO, ENOSPC}) {
    size_t at = 0, warned = 0, failed = 0;
    for (bool hit = true; hit; ++at) {
      start_again();
      RunWriter writer(run());
      FaultHook fault({.fault = Fault::kFail, .at = at, .error = code, .mutating_only = false});
      bool succeeded = true;
      {
        WithoutExchange hook(&fault, GetParam().exchange);
        const ScopedHook scoped(&hook);
        try {
          warned += !GetParam().commit(writer).warnings.empty();
        } catch (const Error& error) {
          succeeded = false;
          ++failed;
          EXPECT_EQ(error.code(), ErrorCode::kIo) << error.what();
          expect_untouched(fault, error);
        }
      }
      hit = !fault.hit().empty();
      if (succeeded) {
        EXPECT_TRUE(holds(step(GetParam().save.iteration), GetParam().save)) << fault.hit();
      }
      // The same writer goes on, and so does the next one.
      const Sample next{.iteration = 9};
      EXPECT_NO_THROW(save(writer, next)) << fault.hit();
      EXPECT_TRUE(holds(step(9), next)) << fault.hit();
      RunWriter(std::move(writer));
      RunWriter again(run());
      EXPECT_TRUE(leftovers().empty()) << fault.hit();
      EXPECT_EQ(select_latest(run())->checkpoint.iteration, 9u) << fault.hit();
      EXPECT_TRUE(select_latest(run())->passed_over.empty()) << fault.hit();
      if (HasFailure()) return;
    }
    EXPECT_GT(at, 20u);
    EXPECT_GT(failed, 10u);
    EXPECT_GT(warned, 1u);
  }
}

TEST_P(SaveFaultsTest, InterruptedAndShortCallsChangeNothing) {
  for (Fault kind : {Fault::kInterrupt, Fault::kShort}) {
    size_t at = 0;
    for (bool hit = true; hit; ++at) {
      start_again();
      FaultHook fault({.fault = kind, .at = at, .mutating_only = false});
      {
        WithoutExchange hook(&fault, GetParam().exchange);
        const ScopedHook scoped(&hook);
        RunWriter writer(run());
        EXPECT_TRUE(GetParam().commit(writer).warnings.empty()) << fault.hit();
      }
      hit = !fault.hit().empty();
      ASSERT_TRUE(holds(step(GetParam().save.iteration), GetParam().save)) << fault.hit();
      ASSERT_TRUE(leftovers().empty()) << fault.hit();
      const std::optional<Selection> found = select_latest(run());
      ASSERT_EQ(found->checkpoint.iteration, GetParam().save.iteration) << fault.hit();
      ASSERT_TRUE(found->passed_over.empty()) << fault.hit();
    }
  }
}

TEST_P(SaveFaultsTest, ADiskThatStaysFullLeavesTheOldOnes) {
  size_t at = 0;
  for (bool hit = true; hit; ++at) {
    start_again();
    {
      RunWriter writer(run());
      FaultHook fault({.fault = Fault::kFail, .at = at, .error = ENOSPC, .from_then_on = true});
      WithoutExchange hook(&fault, GetParam().exchange);
      const ScopedHook scoped(&hook);
      try {
        GetParam().commit(writer);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kIo);
      }
      hit = !fault.hit().empty();
    }
    // A reader alone, then a writer.
    expect_old_or_new(run(), GetParam().save, false);
    RunWriter writer(run());
    expect_old_or_new(run(), GetParam().save, false);
    EXPECT_TRUE(leftovers().empty());
    if (HasFailure()) {
      ADD_FAILURE() << "from call " << at;
      return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Scenarios, SaveFaultsTest, ::testing::ValuesIn(scenarios()), name_of);

// --- opening and reading ---

class RunFaultsTest : public RunTest {
 protected:
  RunFaultsTest() : RunTest(fast_directory()) {}
};

TEST_F(RunFaultsTest, AnOpeningThatFailsHasLostNothing) {
  make_old_run((root_ / "old").string());
  fs::rename(root_ / "old" / step_name(3), root_ / "old" / replaced_name(step_name(3)));
  fs::create_directories(root_ / "old" / temporary_name(4));
  fs::create_directories(root_ / "old" / trash_name(step_name(1)));
  size_t at = 0;
  for (bool hit = true; hit; ++at) {
    fs::remove_all(run_);
    fs::copy(root_ / "old", run_, copy_all());
    FaultHook fault({.fault = Fault::kFail, .at = at, .mutating_only = false});
    try {
      const ScopedHook scoped(&fault);
      RunWriter writer(run());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo) << error.what();
    }
    hit = !fault.hit().empty();
    RunWriter writer(run());
    for (const Sample& old : old_samples()) ASSERT_TRUE(holds(step(old.iteration), old)) << fault.hit();
    ASSERT_TRUE(leftovers().empty()) << fault.hit();
  }
  EXPECT_GT(at, 20u);
}

/// A bad sector: reading one file fails.
class BadSector : public io::Hook {
 public:
  explicit BadSector(std::string path) : path_(std::move(path)) {}
  int before(io::Call& call) override { return call.op == io::Op::kRead && call.path == path_ ? EIO : 0; }
  void after(const io::Call&, long, int) override {}

 private:
  const std::string path_;
};

TEST_F(RunFaultsTest, ABadSectorInTheNewestPassesItOver) {
  make_old_run(run());
  for (const std::string& name : {std::string("state.bin"), std::string(kWeightsName), std::string(kManifestName)}) {
    BadSector hook((step(3) / name).string());
    const ScopedHook scoped(&hook);
    const std::optional<Selection> found = select_latest(run());
    ASSERT_TRUE(found);
    EXPECT_EQ(found->checkpoint.iteration, 2u);
    ASSERT_EQ(found->passed_over.size(), 1u);
    EXPECT_NE(found->passed_over[0].reason.find(name), std::string::npos) << found->passed_over[0].reason;
  }
}

}  // namespace
}  // namespace ckpt::run
