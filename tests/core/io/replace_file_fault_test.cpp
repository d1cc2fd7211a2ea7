// Each system call of replace_file goes wrong in turn: the old file or the new one, whole, and nothing beside it.
#include <gtest/gtest.h>

#include "core/base/checksum.h"
#include "core/io/block_writer.h"
#include "support/fault_hook.h"
#include "support/temp_dir.h"

namespace ckpt::io {
namespace {

using test::exited_with;
using test::Fault;
using test::FaultHook;
using test::FaultPlan;
using test::read_all;
using test::ScopedHook;
using test::TempDir;
using test::was_killed;

// More than a block, so that the workers' calls are among them.
const std::string& new_content() {
  static const std::string text = [] {
    std::string made(kBlockBytes + 10'000, 'n');
    for (size_t i = 0; i < made.size(); i += 1000) made[i] = static_cast<char>('a' + i / 1000 % 26);
    return made;
  }();
  return text;
}

void replace(const std::string& path) {
  replace_file(path, [](BlockWriter& writer) { writer.append_stable(as_bytes(new_content())); });
}

size_t calls_of_replace(bool mutating_only, std::vector<std::string>* log = nullptr) {
  TempDir dir;
  FaultHook hook(FaultPlan{.mutating_only = mutating_only});
  ScopedHook scoped(&hook);
  replace(dir / "f");
  if (log != nullptr) *log = hook.log();
  return hook.calls();
}

class ReplaceFileFault : public ::testing::TestWithParam<int> {};

TEST_P(ReplaceFileFault, FailsWithoutATrace) {
  std::vector<std::string> log;
  const size_t calls = calls_of_replace(false, &log);
  ASSERT_GT(calls, 8u);
  for (size_t at = 0; at < calls; ++at) {
    TempDir dir;
    test::write_all(dir / "f", "old");
    FaultHook hook({.fault = Fault::kFail, .at = at, .error = GetParam(), .mutating_only = false});
    bool failed = false;
    {
      ScopedHook scoped(&hook);
      try {
        replace(dir / "f");
      } catch (const Error& error) {
        failed = true;
        EXPECT_TRUE(error.code() == ErrorCode::kIo) << error.what();
        EXPECT_NE(std::string(error.what()).find(dir.path()), std::string::npos) << error.what();
      }
    }
    EXPECT_TRUE(failed) << "unnoticed: " << hook.hit();
    const bool last = hook.hit() == "sync " + dir.path();
    EXPECT_EQ(read_all(dir / "f"), last ? new_content() : "old") << hook.hit();
    EXPECT_EQ(Directory::open(dir.path()).list().size(), 1u) << "left behind after " << hook.hit();
  }
}

INSTANTIATE_TEST_SUITE_P(Errors, ReplaceFileFault, ::testing::Values(EIO, ENOSPC, EDQUOT, EACCES));

TEST(ReplaceFileFaults, AnInterruptedOrShortCallChangesNothing) {
  const size_t calls = calls_of_replace(false);
  for (Fault fault : {Fault::kInterrupt, Fault::kShort}) {
    for (size_t at = 0; at < calls; ++at) {
      TempDir dir;
      test::write_all(dir / "f", "old");
      FaultHook hook({.fault = fault, .at = at, .mutating_only = false});
      {
        ScopedHook scoped(&hook);
        EXPECT_NO_THROW(replace(dir / "f")) << hook.hit();
      }
      EXPECT_TRUE(read_all(dir / "f") == new_content()) << hook.hit();
      EXPECT_EQ(Directory::open(dir.path()).list().size(), 1u) << hook.hit();
    }
  }
}

TEST(ReplaceFileFaults, EveryWriteMayBeShort) {
  TempDir dir;
  FaultHook hook({.fault = Fault::kShort, .from_then_on = true, .only = Op::kWrite});
  ScopedHook scoped(&hook);
  const WrittenFile written = replace_file(dir / "f", [](BlockWriter& writer) {
    writer.append(as_bytes(std::string_view(new_content()).substr(0, 50'000)));
  });
  EXPECT_GT(hook.calls(), 10u);
  EXPECT_TRUE(read_all(dir / "f") == new_content().substr(0, 50'000));
  EXPECT_EQ(written.xxh3_64[0], xxh3_64(as_bytes(std::string_view(new_content()).substr(0, 50'000))));
}

TEST(ReplaceFileFaults, ADiskThatStaysFullLeavesTheOldFile) {
  for (Op op : {Op::kWrite, Op::kSync}) {
    TempDir dir;
    test::write_all(dir / "f", "old");
    FaultHook hook({.fault = Fault::kFail, .error = ENOSPC, .from_then_on = true, .only = op});
    {
      ScopedHook scoped(&hook);
      EXPECT_THROW(replace(dir / "f"), Error);
    }
    EXPECT_EQ(read_all(dir / "f"), "old");
    EXPECT_EQ(Directory::open(dir.path()).list().size(), 1u);
    if (op == Op::kSync) {
      EXPECT_EQ(hook.calls(), 1u) << "a failed fsync was made again";
    }
  }
}

TEST(ReplaceFileFaults, ADirectWriteThatIsRefusedGoesThroughTheCache) {
  TempDir dir;
  FaultHook hook({.fault = Fault::kFail, .at = 0, .error = EINVAL, .only = Op::kWrite});
  {
    ScopedHook scoped(&hook);
    EXPECT_NO_THROW(replace(dir / "f"));
  }
  EXPECT_FALSE(hook.hit().empty());
  EXPECT_TRUE(read_all(dir / "f") == new_content());
}

TEST(ReplaceFileFaults, AKillAtAnyCallLeavesTheOldOrTheNewFile) {
  const size_t calls = calls_of_replace(true);
  for (Fault fault : {Fault::kKillBefore, Fault::kKillAfter}) {
    for (size_t at = 0; at < calls; ++at) {
      TempDir dir;
      test::write_all(dir / "f", "old");
      const int status = test::run_in_child([&] {
        FaultHook hook({.fault = fault, .at = at});
        ScopedHook scoped(&hook);
        replace(dir / "f");
        return 0;
      });
      EXPECT_TRUE(was_killed(status)) << at;
      const std::string content = read_all(dir / "f");
      EXPECT_TRUE(content == "old" || content == new_content()) << at;
    }
  }
}

}  // namespace
}  // namespace ckpt::io
