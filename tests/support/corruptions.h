// One table of hand-made corruptions for each format: a good file is built in memory, one thing in it is made wrong,
// the file is written and opened by its reader, which must say what it is: a certain kind of ckpt::Error, never another
// exception, a signal or a file that reads as if it were good.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ckpt/error.h"
#include "support/temp_dir.h"

namespace ckpt::test {

/// One way to spoil a good Image: what a builder makes a file of, or the file itself (std::string).
template <class Image>
struct Corruption {
  std::string name;
  std::function<void(Image&)> spoil;
  std::optional<ErrorCode> expected = ErrorCode::kCorrupt;  ///< std::nullopt: odd, but to be read
  std::string says = {};                                    ///< a part of the message
};

/// A corruption that leaves nothing of the good file.
inline Corruption<std::string> becomes(std::string name, std::string bytes,
                                       std::optional<ErrorCode> expected = ErrorCode::kCorrupt) {
  return {std::move(name), [bytes = std::move(bytes)](std::string& file) { file = bytes; }, expected, {}};
}

using OpenFile = std::function<void(const std::string& path)>;

/// What `open` throws; std::nullopt: nothing. Anything but ckpt::Error leaves. The message must be one line that begins
/// with a path in the folder of `path`.
inline std::optional<ErrorCode> error_of(const OpenFile& open, const std::string& path, std::string* message) {
  try {
    open(path);
    return std::nullopt;
  } catch (const Error& error) {
    *message = error.what();
    EXPECT_TRUE(error.path().starts_with(path.substr(0, path.rfind('/')))) << *message;
    EXPECT_EQ(message->find_first_of(std::string_view("\n\r\0\x1b", 4)), std::string::npos) << *message;
    return error.code();
  }
}

/// Spoils `good` by each row of the table alone. `bytes_of` makes a file of an image; `folder` may hold what the file
/// needs beside it.
template <class Image, class Bytes>
void check_corruptions(const Image& good, const std::vector<Corruption<Image>>& table, const Bytes& bytes_of,
                       const OpenFile& open, const TempDir& folder) {
  std::string message;
  std::set<std::string> names;
  const auto outcome = [&](const std::string& bytes) {
    const std::string path = folder / "file";
    ::unlink(path.c_str());  // ext4 flushes a file that was cut to be written again
    write_all(path, bytes);
    return error_of(open, path, &message);
  };
  const std::string good_bytes = bytes_of(good);
  ASSERT_EQ(outcome(good_bytes), std::nullopt) << message;
  EXPECT_GE(table.size(), 25u);
  for (const Corruption<Image>& corruption : table) {
    SCOPED_TRACE(corruption.name);
    EXPECT_TRUE(names.insert(corruption.name).second) << "two rows have this name";
    Image image = good;
    corruption.spoil(image);
    const std::string bytes = bytes_of(image);
    EXPECT_NE(bytes, good_bytes) << "it changes nothing";
    message.clear();
    EXPECT_EQ(outcome(bytes), corruption.expected) << message;
    EXPECT_NE(message.find(corruption.says), std::string::npos) << message;
  }
}

/// The file as it is; for images that are files.
inline const std::string& as_they_are(const std::string& bytes) { return bytes; }

struct EveryPlace {
  size_t step = 1;            ///< for large files: every so many bytes
  bool changes_show = false;  ///< a change of any byte must be refused, else it may be read too
};

/// Opens `bytes` cut off at every length, which must be refused, and with every byte changed in several ways. `folder`
/// may hold what the file needs beside it.
inline void check_every_place(const std::string& bytes, const OpenFile& open, const TempDir& folder,
                              EveryPlace how = {}) {
  const std::string path = folder / "file";
  write_all(path, bytes);
  std::string message;
  ASSERT_EQ(error_of(open, path, &message), std::nullopt) << message;
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  for (size_t at = 0; at < bytes.size(); at += how.step) {
    const auto byte = static_cast<unsigned char>(bytes[at]);
    for (const int changed : {byte ^ 0x01, byte ^ 0x80, byte ^ 0xff, 0x00}) {
      if (changed == byte) continue;
      const auto c = static_cast<char>(changed);
      ASSERT_EQ(::pwrite(fd, &c, 1, static_cast<off_t>(at)), 1);
      const bool refused = error_of(open, path, &message).has_value();
      EXPECT_TRUE(refused || !how.changes_show) << "byte " << at << " as " << changed;
    }
    ASSERT_EQ(::pwrite(fd, &bytes[at], 1, static_cast<off_t>(at)), 1);
  }
  for (size_t length = bytes.size(); length-- > 0;) {
    if (length % how.step != 0) continue;
    ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(length)), 0);
    EXPECT_NE(error_of(open, path, &message), std::nullopt) << "cut off after " << length << " bytes";
  }
  ::close(fd);
}

inline void check_every_place(const std::string& bytes, const OpenFile& open, EveryPlace how = {}) {
  const TempDir folder;
  check_every_place(bytes, open, folder, how);
}

}  // namespace ckpt::test
