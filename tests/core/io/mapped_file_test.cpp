#include "core/io/mapped_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "ckpt/error.h"
#include "core/io/hooks.h"
#include "support/fault_hook.h"
#include "support/temp_dir.h"

namespace ckpt::io {
namespace {

using test::read_all;
using test::TempDir;
using test::write_all;

std::string_view text_of(const MappedFile& mapped) {
  return {reinterpret_cast<const char*>(mapped.data()), mapped.size()};
}

template <class Body>
ErrorCode code_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kInternal;
}

TEST(MappedFile, IsTheFileAndOutlivesItsDescriptorAndItsName) {
  const TempDir dir;
  write_all(dir / "f", "0123456789");
  std::optional<File> file(File::open(dir / "f"));
  const MappedFile mapped(*file, 10);
  file.reset();
  write_all(dir / "new", "another");
  std::filesystem::rename(dir / "new", dir / "f");
  EXPECT_EQ(text_of(mapped), "0123456789");
}

TEST(MappedFile, KeepsWhatIsWrittenToItself) {
  const TempDir dir;
  write_all(dir / "f", "0123456789");
  const File file = File::open(dir / "f");
  const MappedFile mapped(file, 10), other(file, 10);
  mapped.data()[3] = std::byte{'x'};
  EXPECT_EQ(text_of(mapped), "012x456789");
  EXPECT_EQ(text_of(other), "0123456789");
  EXPECT_EQ(read_all(dir / "f"), "0123456789");
}

TEST(MappedFile, OfAnotherLengthThanExpectedIsDamage) {
  const TempDir dir;
  write_all(dir / "f", "0123456789");
  const File file = File::open(dir / "f");
  std::filesystem::resize_file(dir / "f", 5);
  EXPECT_EQ(code_of([&] { MappedFile(file, 10); }), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of([&] { MappedFile(file, 4); }), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of([&] { MappedFile(file, 0); }), ErrorCode::kInvalid);
  EXPECT_EQ(code_of([&] { MappedFile(file, UINT64_MAX); }), ErrorCode::kIo);
  EXPECT_EQ(text_of(MappedFile(file, 5)), "01234");
}

TEST(MappedFile, ThatTheSystemRefusesIsAnError) {
  const TempDir dir;
  write_all(dir / "f", "0123456789");
  const File file = File::open(dir / "f");
  test::FaultHook hook({.fault = test::Fault::kFail, .error = ENOMEM, .mutating_only = false, .only = Op::kMap});
  test::ScopedHook scoped(&hook);
  EXPECT_EQ(code_of([&] { MappedFile(file, 10); }), ErrorCode::kIo);
}

}  // namespace
}  // namespace ckpt::io
