#include "core/io/lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <optional>
#include <thread>

#include "support/fault_hook.h"
#include "support/temp_dir.h"

namespace ckpt::io {
namespace {

using test::TempDir;
using namespace std::chrono_literals;

std::string reason_of_refusal(const Directory& directory, std::chrono::milliseconds wait = {}) {
  try {
    FileLock lock(directory, ".lock", wait);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kLocked);
    return error.message();
  }
  return "";
}

std::string own_text() {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  return "pid " + std::to_string(::getpid()) + " on " + host;
}

TEST(FileLock, ExcludesWithinAProcessAndNamesTheHolder) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  EXPECT_EQ(lock_holder(directory, ".lock"), "");
  {
    FileLock lock(directory, ".lock");
    EXPECT_EQ(reason_of_refusal(directory), "held by " + own_text());
    EXPECT_EQ(lock_holder(directory, ".lock"), own_text());
  }
  EXPECT_EQ(lock_holder(directory, ".lock"), "");
  EXPECT_EQ(reason_of_refusal(directory), "");
  EXPECT_TRUE(directory.stat(".lock")) << "the file must stay";
}

TEST(FileLock, WaitsForTheHolderAsLongAsItIsTold) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  std::optional<FileLock> lock(std::in_place, directory, ".lock");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_NE(reason_of_refusal(directory, 60ms), "");
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 60ms);
  std::thread release([&] {
    std::this_thread::sleep_for(50ms);
    lock.reset();
  });
  EXPECT_EQ(reason_of_refusal(directory, 20s), "");
  release.join();
}

TEST(FileLock, IsFreedWhenTheHolderIsKilled) {
  TempDir dir;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    FileLock lock(Directory::open(dir.path()), ".lock");
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const Directory directory = Directory::open(dir.path());
  EXPECT_NE(reason_of_refusal(directory).find("held by pid " + std::to_string(child) + " on "), std::string::npos);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(lock_holder(directory, ".lock"), "");
  EXPECT_EQ(reason_of_refusal(directory), "");
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(FileLock, OfManyProcessesOneWins) {
  TempDir dir;
  int go[2];
  int won[2];
  ASSERT_EQ(::pipe(go), 0);
  ASSERT_EQ(::pipe(won), 0);
  std::vector<pid_t> children;
  for (int i = 0; i < 16; ++i) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    ::close(go[1]);
    char byte = '0';
    [[maybe_unused]] const auto end = ::read(go[0], &byte, 1);  // until all are there
    try {
      FileLock lock(Directory::open(dir.path()), ".lock");
      if (::write(won[1], "1", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    } catch (const Error& error) {
      if (::write(won[1], error.code() == ErrorCode::kLocked ? "0" : "e", 1) != 1) ::_exit(1);
      ::_exit(0);
    }
  }
  ::close(go[0]);
  ::close(go[1]);
  std::string results(children.size(), '?');
  for (char& result : results) ASSERT_EQ(::read(won[0], &result, 1), 1);
  EXPECT_EQ(std::count(results.begin(), results.end(), '1'), 1) << results;
  EXPECT_EQ(std::count(results.begin(), results.end(), 'e'), 0) << results;
  for (pid_t child : children) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  ::close(won[0]);
  ::close(won[1]);
}

TEST(FileLock, FollowsNoLinkAndHangsOnNoPipe) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  test::write_all(dir / "target", "precious");
  std::filesystem::create_symlink("target", dir / ".lock");
  EXPECT_THROW(FileLock(directory, ".lock"), Error);
  EXPECT_EQ(test::read_all(dir / "target"), "precious");
  directory.remove_file(".lock");
  ASSERT_EQ(::mkfifo((dir / ".lock").c_str(), 0600), 0);
  EXPECT_THROW(FileLock(directory, ".lock"), Error);
}

TEST(FileLock, IsTakenOnAFullDiskToo) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  test::write_all(dir / ".lock", "pid 1 on elsewhere\n");
  test::FaultHook hook({.fault = test::Fault::kFail, .error = ENOSPC, .from_then_on = true, .only = Op::kWrite});
  test::ScopedHook scoped(&hook);
  FileLock lock(directory, ".lock");
  EXPECT_EQ(reason_of_refusal(directory), "held by another process");
}

TEST(FileLock, PrintsWhatTheFileSaysWithCare) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  FileLock lock(directory, ".lock");
  test::write_all(dir / ".lock", "\x1b[2Jgone");
  EXPECT_EQ(lock_holder(directory, ".lock"), "\"\\x1b[2Jgone\"");
}

TEST(FileLock, OnARemovedFileIsTakenAnew) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  FileLock orphan(directory, ".lock");
  directory.remove_file(".lock");  // by a person
  FileLock lock(directory, ".lock");
  EXPECT_NE(reason_of_refusal(directory), "");
}

}  // namespace
}  // namespace ckpt::io
