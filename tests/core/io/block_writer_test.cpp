#include "core/io/block_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <random>

#include "core/base/checksum.h"
#include "support/temp_dir.h"

namespace ckpt::io {
namespace {

using test::read_all;
using test::TempDir;

std::string random_bytes(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(text.data() + i, &word, std::min<size_t>(8, bytes - i));
  }
  return text;
}

std::vector<uint64_t> hashes_of(std::string_view text) {
  std::vector<uint64_t> hashes;
  for (size_t at = 0; at < text.size(); at += kBlockBytes)
    hashes.push_back(xxh3_64(as_bytes(text.substr(at, kBlockBytes))));
  return hashes;
}

// Appends `text` in pieces, some stable, and checks file and hashes.
void write_in_pieces(const TempDir& dir, const std::string& name, const std::string& text,
                     const std::vector<size_t>& sizes, uint64_t expected_bytes) {
  const Directory directory = Directory::open(dir.path());
  BlockWriter writer(directory.create(name), expected_bytes);
  size_t at = 0;
  for (size_t i = 0; at < text.size(); ++i) {
    const std::string_view piece = std::string_view(text).substr(at, sizes[i % sizes.size()]);
    at += piece.size();
    if (i % 3 == 0) {
      ASSERT_TRUE(writer.append_stable(as_bytes(piece)));
    } else {
      std::string copy(piece);
      ASSERT_TRUE(writer.append(as_bytes(copy)));
      std::fill(copy.begin(), copy.end(), '!');  // append() must have copied
    }
  }
  const WrittenFile written = writer.finish();
  EXPECT_EQ(written.bytes, text.size());
  EXPECT_EQ(written.xxh3_64, hashes_of(text));
  EXPECT_EQ(read_all(dir / name), text);
}

TEST(BlockWriter, WritesAndHashesLengthsAroundTheBlock) {
  TempDir dir;
  const std::string text = random_bytes(3 * kBlockBytes + 5000, 1);
  int count = 0;
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, kBlockBytes - 1, kBlockBytes, kBlockBytes + 1,
                         kBlockBytes + 4096, 2 * kBlockBytes, 3 * kBlockBytes + 5000}) {
    for (uint64_t expected : {uint64_t{0}, bytes, bytes + 10'000'000, bytes / 2}) {
      write_in_pieces(dir, std::to_string(count++), text.substr(0, bytes), {1'000'003, 7, 64, 2'500'000}, expected);
    }
  }
}

TEST(BlockWriter, WritesAndHashesPiecesOfRandomSizes) {
  TempDir dir;
  std::mt19937_64 random(2);
  for (int round = 0; round < 12; ++round) {
    const std::string text = random_bytes(random() % (5 * kBlockBytes), 3 + round);
    std::vector<size_t> sizes;
    for (int i = 0; i < 17; ++i) {
      const size_t around[] = {1 + random() % 100, 16384 + random() % 3, kBlockBytes - 1 + random() % 3,
                               random() % 300'000};
      sizes.push_back(std::max<size_t>(1, around[random() % 4]));
    }
    write_in_pieces(dir, std::to_string(round), text, sizes, 0);
  }
}

TEST(BlockWriter, WritesMoreThanItMayBuffer) {
  TempDir dir;
  const std::string text = random_bytes(2 * kMaxBytesInFlight + 12345, 5);
  const Directory directory = Directory::open(dir.path());
  BlockWriter writer(directory.create("f"));
  for (size_t at = 0; at < text.size(); at += 1'000'000) {
    ASSERT_TRUE(writer.append(as_bytes(std::string_view(text).substr(at, 1'000'000))));
  }
  EXPECT_EQ(writer.finish().xxh3_64, hashes_of(text));
  EXPECT_EQ(read_all(dir / "f"), text);
}

TEST(BlockWriter, ChangesHeldBytesBeforeTheyAreWritten) {
  TempDir dir;
  int count = 0;
  for (const uint64_t bytes : {uint64_t{100}, kBlockBytes, kBlockBytes + 50'000, 4 * kBlockBytes + 7}) {
    for (const uint64_t held : {uint64_t{0}, uint64_t{100}, kBlockBytes, kBlockBytes + 1}) {
      std::string text = random_bytes(bytes, 7);
      const Directory directory = Directory::open(dir.path());
      const std::string name = std::to_string(count++);
      BlockWriter writer(directory.create(name));
      writer.hold(held);
      for (size_t at = 0; at < text.size(); at += 70'000) {
        writer.append_stable(as_bytes(std::string_view(text).substr(at, 70'000)));
      }
      std::string expected = text;
      for (const auto& [offset, length] : {std::pair<uint64_t, uint64_t>{0, 10}, {90, 10}, {kBlockBytes - 5, 10}}) {
        const bool is_held = offset + length <= std::min(bytes, (held + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
        const std::string patch(length, 'x');
        if (!is_held) {
          EXPECT_THROW(writer.patch(offset, as_bytes(patch)), Error) << bytes << " " << held << " " << offset;
          const uint64_t first = std::min(bytes, (held + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
          if (offset < first) expected.replace(offset, first - offset, first - offset, 'x');
          continue;
        }
        writer.patch(offset, as_bytes(patch));
        expected.replace(offset, length, patch);
      }
      EXPECT_EQ(writer.finish().xxh3_64, hashes_of(expected));
      EXPECT_EQ(read_all(dir / name), expected) << bytes << " " << held;
    }
  }
}

TEST(BlockWriter, IsLeftWithoutFinish) {
  TempDir dir;
  const std::string text = random_bytes(4 * kBlockBytes, 6);
  const Directory directory = Directory::open(dir.path());
  BlockWriter writer(directory.create("f"));
  writer.append_stable(as_bytes(text));
}

// What a child reports of writing `bytes` bytes where no file may be longer than `limit`: 0 all was as it should be.
int write_under_limit(const std::string& path, uint64_t limit, uint64_t bytes, uint64_t expected_bytes) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit file_size{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &file_size);
    try {
      replace_file(path, [&](BlockWriter& writer) {
        const std::string text(bytes, 'x');
        for (int i = 0; i < 8; ++i) writer.append(as_bytes(text).first(bytes / 8));
        BlockWriter second(Directory::open(parent_path(path)).create("second"), expected_bytes);
        second.append(as_bytes(text));
        second.finish();
      });
    } catch (const Error& error) {
      ::_exit(error.code() == ErrorCode::kIo ? 0 : 3);
    } catch (...) {
      ::_exit(4);
    }
    ::_exit(2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

TEST(BlockWriter, ReportsThatTheFileMayNotGrow) {
  for (uint64_t limit : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, uint64_t{100'000}, kBlockBytes, kBlockBytes + 1}) {
    for (uint64_t expected : {uint64_t{0}, 3 * kBlockBytes}) {
      TempDir dir;
      test::write_all(dir / "f", "old");
      EXPECT_EQ(write_under_limit(dir / "f", limit, 3 * kBlockBytes, expected), 0) << limit;
      EXPECT_EQ(read_all(dir / "f"), "old");
      std::filesystem::remove(dir / "second");
      EXPECT_EQ(Directory::open(dir.path()).list().size(), 1u) << "a temporary was left";
    }
  }
}

TEST(WriteFile, TellsWhatAManifestSays) {
  TempDir dir;
  const Directory directory = Directory::open(dir.path());
  const WrittenFile written = write_file(directory, "small", as_bytes("hello"));
  EXPECT_EQ(written.bytes, 5u);
  EXPECT_EQ(written.xxh3_64, std::vector<uint64_t>{xxh3_64(as_bytes("hello"))});
  EXPECT_EQ(read_all(dir / "small"), "hello");
  EXPECT_THROW(write_file(directory, "small", as_bytes("other")), Error);
  EXPECT_EQ(read_all(dir / "small"), "hello") << "a file that was there must stay";
  EXPECT_TRUE(write_file(directory, "empty", {}).xxh3_64.empty());
}

TEST(ReplaceFile, GivesTheUsualModeAndKeepsNoTemporary) {
  TempDir dir;
  const mode_t before = ::umask(027);
  replace_file(dir / "f", [](BlockWriter& writer) { writer.append(as_bytes("new")); });
  ::umask(before);
  const Directory directory = Directory::open(dir.path());
  EXPECT_EQ(directory.stat("f")->mode, 0640u);
  EXPECT_EQ(directory.list().size(), 1u);
  EXPECT_EQ(read_all(dir / "f"), "new");
}

TEST(ReplaceFile, ReplacesALinkNotWhatItPointsTo) {
  TempDir dir;
  test::write_all(dir / "target", "kept");
  std::filesystem::create_symlink("target", dir / "link");
  replace_file(dir / "link", [](BlockWriter& writer) { writer.append(as_bytes("new")); });
  EXPECT_EQ(read_all(dir / "target"), "kept");
  EXPECT_FALSE(std::filesystem::is_symlink(dir / "link"));
  EXPECT_EQ(read_all(dir / "link"), "new");
}

TEST(ReplaceFile, TakesTheLongestName) {
  TempDir dir;
  const std::string name(255, 'n');
  replace_file(dir / name, [](BlockWriter& writer) { writer.append(as_bytes("new")); });
  EXPECT_EQ(read_all(dir / name), "new");
}

TEST(ReplaceFile, PassesOnWhatProduceThrows) {
  TempDir dir;
  test::write_all(dir / "f", "old");
  const auto produce = [](BlockWriter& writer) {
    writer.append(as_bytes("half"));
    throw Error(ErrorCode::kMismatch, "", "no");
  };
  EXPECT_THROW(replace_file(dir / "f", produce), Error);
  EXPECT_EQ(read_all(dir / "f"), "old");
  EXPECT_EQ(Directory::open(dir.path()).list().size(), 1u);
  EXPECT_THROW(replace_file(dir.path() + "/", produce), Error);
}

}  // namespace
}  // namespace ckpt::io
