#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "core/io/file.h"
#include "support/fault_hook.h"
#include "support/temp_dir.h"

namespace ckpt::io {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using test::write_all;

TEST(RemoveTree, RemovesAllAndSaysWhetherItWasThere) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  EXPECT_FALSE(directory.remove_tree("absent"));
  fs::create_directories(dir / "t/a/b/c");
  write_all(dir / "t/a/f", "x");
  write_all(dir / "t/.hidden", "x");
  EXPECT_TRUE(directory.remove_tree("t"));
  EXPECT_FALSE(directory.stat("t"));
  write_all(dir / "f", "x");
  EXPECT_TRUE(directory.remove_tree("f"));
}

TEST(RemoveTree, RemovesLinksAndFollowsNone) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  fs::create_directory(dir / "outside");
  write_all(dir / "outside/precious", "x");
  fs::create_directory(dir / "t");
  fs::create_directory_symlink("../outside", dir / "t/link");
  fs::create_directory_symlink("outside", dir / "direct");
  EXPECT_TRUE(directory.remove_tree("t"));
  EXPECT_TRUE(directory.remove_tree("direct"));
  EXPECT_TRUE(fs::exists(dir / "outside/precious"));
}

TEST(RemoveTree, GoesDeep) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  std::string path = dir / "t";
  for (int i = 0; i < 200; ++i) path += "/d";
  fs::create_directories(path);
  EXPECT_TRUE(directory.remove_tree("t"));
  EXPECT_FALSE(directory.stat("t"));
}

// Swaps the victim for a link to the precious directory just before one of the calls of the removal.
class Swapper : public Hook {
 public:
  Swapper(std::string victim, std::string precious, size_t at)
      : victim_(std::move(victim)), precious_(std::move(precious)), at_(at) {}
  int before(Call&) override {
    if (count_++ == at_) {
      swapped = ::rename(victim_.c_str(), (victim_ + ".away").c_str()) == 0 &&
                ::symlink(precious_.c_str(), victim_.c_str()) == 0;
    }
    return 0;
  }
  void after(const Call&, long, int) override {}
  bool swapped = false;

 private:
  std::string victim_, precious_;
  size_t at_;
  size_t count_ = 0;
};

TEST(RemoveTree, SurvivesASwapForALinkAtAnyCall) {
  size_t swaps = 0;
  for (size_t at = 0; at < 12; ++at) {
    TempDir dir;
    fs::create_directory(dir / "outside");
    write_all(dir / "outside/f", "precious");
    fs::create_directories(dir / "t/inner");
    write_all(dir / "t/inner/f", "x");
    const Directory directory = Directory::open(dir.path());
    Swapper swapper(dir / "t/inner", dir / "outside", at);
    {
      test::ScopedHook scoped(&swapper);
      try {
        directory.remove_tree("t");
      } catch (const Error&) {  // may give up, must not go astray
      }
    }
    swaps += swapper.swapped;
    EXPECT_EQ(test::read_all(dir / "outside/f"), "precious") << at;
  }
  EXPECT_GE(swaps, 4u);
}

TEST(RemoveTree, SurvivesAnotherThreadThatSwaps) {
  TempDir dir;
  fs::create_directory(dir / "outside");
  write_all(dir / "outside/f", "precious");
  const Directory directory = Directory::open(dir.path());
  std::atomic<bool> stop = false;
  std::thread swapper([&] {
    while (!stop) {
      std::error_code ignored;
      fs::create_directories(dir / "t/inner", ignored);
      fs::rename(dir / "t/inner", dir / "t/away", ignored);
      fs::create_directory_symlink(dir / "outside", dir / "t/inner", ignored);
      fs::remove(dir / "t/inner", ignored);
    }
  });
  for (int i = 0; i < 300; ++i) {
    try {
      directory.remove_tree("t");
    } catch (const Error&) {
    }
  }
  stop = true;
  swapper.join();
  EXPECT_EQ(test::read_all(dir / "outside/f"), "precious");
}

TEST(RemoveTree, ReportsWhatItCannotRemove) {
  TempDir dir;
  fs::create_directories(dir / "t/inner");
  write_all(dir / "t/inner/f", "x");
  const Directory directory = Directory::open(dir.path());
  for (int error : {EIO, EACCES, EPERM}) {
    test::FaultHook hook({.fault = test::Fault::kFail, .error = error, .from_then_on = true, .only = Op::kUnlink});
    test::ScopedHook scoped(&hook);
    EXPECT_THROW(directory.remove_tree("t"), Error) << error;
  }
  EXPECT_TRUE(directory.remove_tree("t"));
}

}  // namespace
}  // namespace ckpt::io
