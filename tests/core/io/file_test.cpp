#include "core/io/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "core/io/hooks.h"
#include "support/fault_hook.h"
#include "support/temp_dir.h"

namespace ckpt::io {
namespace {

using test::TempDir;
using test::write_all;

template <class Body>
void expect_error(ErrorCode code, std::string_view part, Body body) {
  try {
    body();
    ADD_FAILURE() << "no error, expected one with " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos) << error.what();
  }
}

TEST(File, ReadsWhatIsThereAndSaysWhereItIsCutOff) {
  TempDir dir;
  write_all(dir / "f", "0123456789");
  const File file = File::open(dir / "f");
  const std::vector<std::byte> middle = file.read_at(3, 4);
  EXPECT_EQ(as_text(middle), "3456");
  EXPECT_TRUE(file.read_at(10, 0).empty());
  expect_error(ErrorCode::kCorrupt, "cut off: expected 4 bytes, found 2 (byte 8)", [&] { file.read_at(8, 4); });
  expect_error(ErrorCode::kCorrupt, "cut off", [&] { file.read_at(11, 1); });
  expect_error(ErrorCode::kCorrupt, "cut off", [&] { file.read_at(0, UINT64_MAX); });
  expect_error(ErrorCode::kCorrupt, "cut off", [&] { file.read_at(UINT64_MAX, 1); });
  std::byte into[4];
  expect_error(ErrorCode::kCorrupt, "cut off: expected 2 more bytes, the file ends (byte 10)",
               [&] { file.read_at(8, std::span(into)); });
  expect_error(ErrorCode::kCorrupt, "cut off", [&] { file.read_at(UINT64_MAX - 1, std::span(into)); });
  file.will_need(0, 10);
}

TEST(File, ReadsOnAfterShortAndInterruptedReads) {
  TempDir dir;
  write_all(dir / "f", "0123456789");
  const File file = File::open(dir / "f");
  for (test::Fault fault : {test::Fault::kShort, test::Fault::kInterrupt}) {
    test::FaultHook hook({.fault = fault, .mutating_only = false, .only = Op::kRead});
    test::ScopedHook scoped(&hook);
    const std::vector<std::byte> all = file.read_at(0, 10);
    EXPECT_EQ(as_text(all), "0123456789");
    EXPECT_EQ(hook.calls(), 2u);
  }
}

TEST(File, RefusesWhatIsNoFile) {
  TempDir dir;
  expect_error(ErrorCode::kNotFound, dir / "absent: cannot open", [&] { File::open(dir / "absent"); });
  expect_error(ErrorCode::kIo, "is a directory", [&] { File::open(dir.path()); });
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::kIo, "no regular file", [&] { File::open(dir / "pipe"); });
  write_all(dir / "f", "x");
  expect_error(ErrorCode::kNotFound, "cannot open", [&] { File::open(dir / "f/below"); });
  expect_error(ErrorCode::kInvalid, "NUL", [&] { File::open(std::string("a\0b", 3)); });
}

TEST(File, OpensThroughALinkOnlyByItsPath) {
  TempDir dir;
  write_all(dir / "f", "x");
  std::filesystem::create_symlink("f", dir / "link");
  EXPECT_EQ(File::open(dir / "link").stat().bytes, 1u);
  const Directory directory = Directory::open(dir.path());
  expect_error(ErrorCode::kIo, "link", [&] { directory.open_file("link"); });
  std::filesystem::create_directory(dir / "d");
  std::filesystem::create_directory_symlink("d", dir / "dlink");
  EXPECT_THROW(directory.open_dir("dlink"), Error);
  EXPECT_NO_THROW(directory.open_dir("d"));
  EXPECT_THROW(directory.create("link"), Error);
  EXPECT_EQ(directory.stat("link")->type, FileType::kLink);
  EXPECT_EQ(stat(dir / "link")->type, FileType::kFile);
}

TEST(File, ReportsAFailedClose) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  File file = directory.create("f");
  test::FaultHook hook({.fault = test::Fault::kFail, .only = Op::kClose});
  test::ScopedHook scoped(&hook);
  expect_error(ErrorCode::kIo, "cannot close", [&] { file.close(); });
}

TEST(File, ReservesWritesAndTruncates) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  File file = directory.create("f");
  file.allocate(100'000);
  file.write_at(5, as_bytes("hello"));
  file.truncate(10);
  file.set_mode(0640);
  file.sync();
  EXPECT_EQ(file.stat().bytes, 10u);
  EXPECT_EQ(file.stat().mode, 0640u);
  file.close();
  EXPECT_EQ(test::read_all(dir / "f"), std::string(5, '\0') + "hello");
}

TEST(File, DoesWithoutAReservationThatTheFileSystemCannotMake) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  File file = directory.create("f");
  test::FaultHook hook({.fault = test::Fault::kFail, .error = EOPNOTSUPP, .only = Op::kAllocate});
  test::ScopedHook scoped(&hook);
  EXPECT_NO_THROW(file.allocate(4096));
}

TEST(Directory, IsCreatedOnceWithOneLevel) {
  TempDir dir;
  bool created = false;
  Directory::open_or_create(dir / "run", &created);
  EXPECT_TRUE(created);
  Directory::open_or_create(dir / "run/", &created);
  EXPECT_FALSE(created);
  expect_error(ErrorCode::kNotFound, "cannot create", [&] { Directory::open_or_create(dir / "no/run"); });
  write_all(dir / "f", "");
  expect_error(ErrorCode::kNotFound, "cannot open the directory", [&] { Directory::open_or_create(dir / "f"); });
  expect_error(ErrorCode::kNotFound, "cannot open the directory", [&] { Directory::open(dir / "absent"); });
}

TEST(Directory, IsRefusedWhereAnybodyMayWrite) {
  TempDir dir;
  Directory::open_or_create(dir / "run").set_mode(0777);
  expect_error(ErrorCode::kUnsafe, "sticky", [&] { Directory::open_or_create(dir / "run"); });
  Directory::open(dir / "run").set_mode(01777);
  EXPECT_NO_THROW(Directory::open_or_create(dir / "run"));
}

TEST(Directory, ListsSortedWithTypes) {
  TempDir dir;
  write_all(dir / "b", "");
  std::filesystem::create_directory(dir / "c");
  std::filesystem::create_symlink("nowhere", dir / "a");
  const std::vector<Entry> entries = Directory::open(dir.path()).list();
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].type, FileType::kLink);
  EXPECT_EQ(entries[1].type, FileType::kFile);
  EXPECT_EQ(entries[2].type, FileType::kDirectory);
}

TEST(Directory, RenamesReplacesAndRefusesToReplace) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  write_all(dir / "a", "a");
  write_all(dir / "b", "b");
  EXPECT_FALSE(directory.rename_noreplace("a", "b"));
  EXPECT_EQ(test::read_all(dir / "b"), "b");
  EXPECT_TRUE(directory.rename_noreplace("a", "c"));
  directory.rename("c", "b");
  EXPECT_EQ(test::read_all(dir / "b"), "a");
  EXPECT_FALSE(directory.stat("c"));
  std::filesystem::create_directories(dir / "full/inner");
  std::filesystem::create_directory(dir / "d");
  expect_error(ErrorCode::kIo, "cannot rename", [&] { directory.rename("d", "full"); });
  EXPECT_FALSE(directory.rename_noreplace("d", "full"));
  expect_error(ErrorCode::kNotFound, "cannot rename", [&] { directory.rename("absent", "x"); });
}

TEST(Directory, RenamesWithoutTheCallOfLinux) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  write_all(dir / "a", "a");
  write_all(dir / "b", "b");
  for (int error : {EINVAL, ENOSYS}) {
    test::FaultHook hook({.fault = test::Fault::kFail, .at = 0, .error = error, .only = Op::kExchange});
    test::ScopedHook scoped(&hook);
    EXPECT_FALSE(directory.exchange("a", "b"));
  }
  EXPECT_EQ(test::read_all(dir / "a"), "a");
}

TEST(Directory, ExchangesOrSaysThatItCannot) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  std::filesystem::create_directory(dir / "a");
  std::filesystem::create_directory(dir / "b");
  write_all(dir / "a/old", "");
  const bool exchanged = directory.exchange("a", "b");
  EXPECT_EQ(stat(dir / "b/old").has_value(), exchanged);
  EXPECT_EQ(stat(dir / "a/old").has_value(), !exchanged);
}

TEST(Directory, ReplacesLinksByRename) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  EXPECT_FALSE(directory.read_link("latest"));
  directory.replace_link("latest", "step-1");
  directory.replace_link("latest", "step-2");
  EXPECT_EQ(directory.read_link("latest"), "step-2");
  EXPECT_EQ(directory.list().size(), 1u);
  write_all(dir / "f", "");
  EXPECT_FALSE(directory.read_link("f"));
  std::filesystem::create_directory(dir / "d");
  EXPECT_THROW(directory.replace_link("d", "x"), Error);
  EXPECT_EQ(directory.list().size(), 3u) << "the temporary link was left";
}

TEST(Directory, RemovesFilesAndSaysWhetherTheyWereThere) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  write_all(dir / "f", "");
  EXPECT_TRUE(directory.remove_file("f"));
  EXPECT_FALSE(directory.remove_file("f"));
  std::filesystem::create_directory(dir / "d");
  EXPECT_THROW(directory.remove_file("d"), Error);
}

TEST(Directory, TellsFreeSpace) {
  TempDir dir;
  EXPECT_GT(Directory::open(dir.path()).free_bytes(), 0u);
}

TEST(Paths, HaveParentsAndNames) {
  const struct {
    const char *path, *parent, *name;
  } kCases[] = {{"a", ".", "a"}, {"a/b", "a", "b"}, {"a/b/", "a", "b"},  {"/a", "/", "a"}, {"a//b", "a", "b"},
                {"/", "/", ""},  {"", ".", ""},     {"//a//", "/", "a"}, {"./x", ".", "x"}};
  for (const auto& one : kCases) {
    EXPECT_EQ(parent_path(one.path), one.parent) << one.path;
    EXPECT_EQ(file_name(one.path), one.name) << one.path;
  }
}

TEST(Names, AreRandomHexDigits) {
  const std::string name = random_name();
  EXPECT_EQ(name.size(), 32u);
  EXPECT_EQ(name.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(name, random_name());
}

TEST(Umask, IsReadNotChanged) {
  const mode_t before = ::umask(0027);
  EXPECT_EQ(mode_of_umask(0666), 0640u);
  EXPECT_EQ(mode_of_umask(0777), 0750u);
  EXPECT_EQ(::umask(before), 0027u);
}

TEST(Ops, HaveNames) {
  for (int op = 0; op <= static_cast<int>(Op::kMap); ++op) {
    EXPECT_STRNE(to_string(static_cast<Op>(op)), "call") << op;
  }
}

}  // namespace
}  // namespace ckpt::io
