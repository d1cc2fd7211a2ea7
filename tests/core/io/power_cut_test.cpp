// The model of a power cut itself, and what io promises under it.
#include "support/power_cut.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/io/block_writer.h"
#include "core/io/file.h"
#include "support/fault_hook.h"
#include "support/temp_dir.h"

namespace ckpt::test {
namespace {

using io::Directory;

constexpr size_t kAllNames = 1000;

// Writes `text` as `name`, with fsync or without.
void put(const Directory& directory, std::string_view name, std::string_view text, bool sync) {
  io::File file = directory.create(name);
  file.write_at(0, as_bytes(text));
  if (sync) file.sync();
  file.close();
}

// The tree after the power failed, as "name=content" and "name/" and "name->target", sorted.
std::vector<std::string> tree_after(const PowerCutRecorder& recorder, size_t calls, Fate fate) {
  TempDir dir;
  const std::string into = dir / "after";
  recorder.materialise(calls, fate, into);
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(into)) {
    const std::string name = entry.path().string().substr(into.size() + 1);
    if (entry.is_symlink()) {
      found.push_back(name + "->" + std::filesystem::read_symlink(entry.path()).string());
    } else {
      found.push_back(entry.is_directory() ? name + "/" : name + "=" + read_all(entry.path()));
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

using Names = std::vector<std::string>;

class PowerCutModel : public ::testing::Test {
 protected:
  PowerCutModel() { write_all(dir_ / "old", "before"); }

  void record(const std::function<void(const Directory&)>& body) {
    recorder_.emplace(dir_.path());
    ScopedHook hook(&*recorder_);
    body(Directory::open(dir_.path()));
  }
  Names after_all(Fate fate) const { return tree_after(*recorder_, recorder_->calls(), fate); }

  TempDir dir_;
  std::optional<PowerCutRecorder> recorder_;
};

TEST_F(PowerCutModel, KeepsWhatWasThereBefore) {
  record([](const Directory&) {});
  EXPECT_EQ(after_all({DataFate::kLost, 0}), Names{"old=before"});
}

TEST_F(PowerCutModel, LosesDataOfARenameWithoutFsync) {
  record([](const Directory& directory) {
    put(directory, "tmp", "after!", false);
    directory.rename("tmp", "old");
    directory.sync();
  });
  EXPECT_EQ(after_all({DataFate::kLost, 0}), Names{"old="});
  EXPECT_EQ(after_all({DataFate::kKept, 0}), Names{"old=after!"});
  EXPECT_EQ(after_all({DataFate::kTorn, 0}), Names{"old=aft"});
  EXPECT_EQ(after_all({DataFate::kZeros, 0}), Names{"old=" + std::string(6, '\0')});
}

TEST_F(PowerCutModel, LosesNamesWithoutFsyncOfTheDirectory) {
  record([](const Directory& directory) {
    put(directory, "tmp", "after", true);
    directory.rename("tmp", "old");
  });
  EXPECT_EQ(after_all({DataFate::kLost, 0}), Names{"old=before"});
  EXPECT_EQ(after_all({DataFate::kLost, 1}), (Names{"old=before", "tmp=after"}));
  EXPECT_EQ(after_all({DataFate::kLost, kAllNames}), Names{"old=after"});
  EXPECT_EQ(recorder_->fates(recorder_->calls()).size(), 3u);
}

TEST_F(PowerCutModel, TearsOnlyTheLastWriteSinceTheFsync) {
  record([](const Directory& directory) {
    io::File file = directory.create("f");
    file.write_at(0, as_bytes("aaaa"));
    file.sync();
    file.write_at(4, as_bytes("bbbb"));
    file.write_at(0, as_bytes("cccc"));
    directory.sync();
  });
  EXPECT_EQ(after_all({DataFate::kLost, 0})[0], "f=aaaa");
  EXPECT_EQ(after_all({DataFate::kTorn, 0})[0], "f=ccaabbbb");
  EXPECT_EQ(after_all({DataFate::kKept, 0})[0], "f=ccccbbbb");
}

TEST_F(PowerCutModel, DirectoryNeedsItsOwnFsyncAndItsParents) {
  record([](const Directory& directory) {
    const Directory inner = directory.create_dir("inner", 0700);
    put(inner, "f", "x", true);
    inner.sync();
  });
  EXPECT_EQ(after_all({DataFate::kLost, 0}), Names{"old=before"});

  record([](const Directory& directory) {
    const Directory other = directory.create_dir("other", 0700);
    put(other, "f", "x", true);
    directory.sync();
  });
  const Names found = after_all({DataFate::kLost, 0});
  EXPECT_NE(std::find(found.begin(), found.end(), "other/"), found.end());
  EXPECT_EQ(std::find(found.begin(), found.end(), "other/f=x"), found.end());
}

TEST_F(PowerCutModel, BringsBackWhatWasRemovedWithoutFsync) {
  record([](const Directory& directory) {
    directory.remove_file("old");
    directory.replace_link("link", "somewhere");
  });
  EXPECT_EQ(after_all({DataFate::kLost, 0}), Names{"old=before"});
  EXPECT_EQ(after_all({DataFate::kLost, 1}), Names{});
  EXPECT_EQ(after_all({DataFate::kLost, kAllNames}), Names{"link->somewhere"});
}

TEST_F(PowerCutModel, ExchangesInOneOperation) {
  record([](const Directory& directory) {
    put(directory, "new", "after", true);
    directory.sync();
    if (!directory.exchange("old", "new")) return;
    directory.remove_file("new");
  });
  if (recorder_->describe(recorder_->calls() - 1) == "sync .") GTEST_SKIP() << "no exchange here";
  EXPECT_EQ(after_all({DataFate::kLost, 0}), (Names{"new=after", "old=before"}));
  EXPECT_EQ(after_all({DataFate::kLost, 1}), (Names{"new=before", "old=after"}));
  EXPECT_EQ(after_all({DataFate::kLost, 2}), Names{"old=after"});
}

TEST_F(PowerCutModel, FollowsADirectoryThatWasRenamedWhileOpen) {
  record([](const Directory& directory) {
    const Directory inner = directory.create_dir("inner.tmp", 0700);
    directory.rename("inner.tmp", "inner");
    put(inner, "f", "x", true);
    inner.sync();
    directory.sync();
  });
  EXPECT_EQ(after_all({DataFate::kLost, 0}), (Names{"inner/", "inner/f=x", "old=before"}));
}

TEST_F(PowerCutModel, CutsBehindAnyCall) {
  record([](const Directory& directory) {
    put(directory, "f", "x", true);
    directory.sync();
  });
  ASSERT_EQ(recorder_->calls(), 4u);  // create, write, sync, sync
  EXPECT_EQ(recorder_->describe(0), "create f");
  EXPECT_EQ(tree_after(*recorder_, 3, {DataFate::kLost, 0}), Names{"old=before"});
  EXPECT_EQ(tree_after(*recorder_, 2, {DataFate::kLost, 1}), (Names{"f=", "old=before"}));
  EXPECT_EQ(tree_after(*recorder_, 4, {DataFate::kLost, 0}), (Names{"f=x", "old=before"}));
}

TEST(ReplaceFileUnderPowerCut, IsOldOrNewAndNewOnceItReturned) {
  TempDir dir;
  write_all(dir / "f", "old");
  const std::string fresh(5000, 'n');
  PowerCutRecorder recorder(dir.path());
  {
    ScopedHook hook(&recorder);
    io::replace_file(dir / "f", [&](io::BlockWriter& writer) { writer.append(as_bytes(fresh)); });
  }
  size_t seen_new = 0;
  for (size_t calls = 0; calls <= recorder.calls(); ++calls) {
    for (const Fate& fate : recorder.fates(calls)) {
      TempDir scratch;
      recorder.materialise(calls, fate, scratch / "after");
      const std::string content = read_all(scratch / "after/f");
      const bool is_new = content == fresh;
      seen_new += is_new;
      EXPECT_TRUE(is_new || (content == "old" && calls < recorder.calls()))
          << "after " << calls << " calls, data " << static_cast<int>(fate.data) << ", names " << fate.names;
    }
  }
  EXPECT_GE(seen_new, 1u);
}

TEST(OpenOrCreateUnderPowerCut, KeepsTheDirectoryOnceItReturned) {
  TempDir dir;
  PowerCutRecorder recorder(dir.path());
  ScopedHook hook(&recorder);
  bool created = false;
  Directory::open_or_create(dir / "run", &created);
  EXPECT_TRUE(created);
  EXPECT_EQ(tree_after(recorder, recorder.calls(), {DataFate::kLost, 0}), Names{"run/"});
}

}  // namespace
}  // namespace ckpt::test
