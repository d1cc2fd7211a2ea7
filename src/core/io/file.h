// Files and directories: every system call of the library, through the hooks, with EINTR retried and short transfers
// gone on with. Relative names are resolved against an open directory, so that a path swapped for a link under our
// feet leads nowhere.
//
// Every function throws Error(kIo or kNotFound) with the path and the system's reason, unless it says otherwise.
// Thread rule: objects are used by one thread at a time, except read_at and write_at, which may run in parallel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"

namespace ckpt::io {

namespace sys {
class Place;
}

/// An open descriptor with the path it is known by. Closing in the destructor ignores errors; what was written is
/// closed by File::close().
class Fd {
 public:
  Fd() = default;
  Fd(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  Fd(Fd&& other) noexcept;
  Fd& operator=(Fd&& other) noexcept;
  ~Fd();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  const std::string& path() const { return path_; }
  int release();

 private:
  int fd_ = -1;
  std::string path_;
};

enum class FileType { kFile, kDirectory, kLink, kOther };

struct Stat {
  FileType type = FileType::kOther;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;  ///< Unix time
  uint64_t inode = 0;
  uint64_t device = 0;
  uint32_t mode = 0;  ///< permission bits
};

class File {
 public:
  /// Opens something that is there for reading. Follows links: the user names files. kNotFound where absent; kIo where
  /// it is a directory or no regular file.
  static File open(const std::string& path);

  const std::string& path() const { return fd_.path(); }
  Stat stat() const;

  /// Reads exactly `into.size()` bytes at `offset`; kCorrupt ("cut off") where the file ends before.
  void read_at(uint64_t offset, std::span<std::byte> into) const;
  std::vector<std::byte> read_at(uint64_t offset, uint64_t bytes) const;

  /// kCorrupt where the file does not have this length any more.
  void require_size(uint64_t bytes) const;

  /// Tells the kernel that `bytes` at `offset` will be read soon (advice: never fails).
  void will_need(uint64_t offset, uint64_t bytes) const;

  // Writing; for files made by Directory::create.
  void write_at(uint64_t offset, ByteView bytes);
  /// Reserves space where the file system can; ENOSPC is an error, "cannot" is not.
  void allocate(uint64_t bytes);
  void truncate(uint64_t bytes);
  /// O_DIRECT (macOS: F_NOCACHE) on or off. False where the file system refuses; then writes go through the cache.
  bool set_direct(bool on);
  void set_mode(uint32_t mode);
  /// fsync (macOS: F_FULLFSYNC). Never retried by the caller on the same file: a second one can lie.
  void sync();
  /// Checked close. The object is empty afterwards, also when it throws.
  void close();

 private:
  friend class Directory;
  friend class MappedFile;
  explicit File(Fd fd) : fd_(std::move(fd)) {}
  static File open_regular(const sys::Place& place, int flags);
  Fd fd_;
};

struct Entry {
  std::string name;
  FileType type = FileType::kOther;
};

/// An open directory. `name` is always one name in it, or a relative path below it that the library made itself.
class Directory {
 public:
  /// kNotFound where absent or no directory.
  static Directory open(const std::string& path);
  /// Creates `path` (one level; mode 0777 less the umask) where absent (`created` says so), opens it, fsyncs its parent
  /// (also of an existing one: whoever made it may have died before that). kUnsafe where anybody may write to it and it
  /// has no sticky bit.
  static Directory open_or_create(const std::string& path, bool* created = nullptr);

  const Fd& fd() const { return fd_; }
  const std::string& path() const { return fd_.path(); }
  std::string path_of(std::string_view name) const;

  /// Not following a link of that name.
  Directory open_dir(std::string_view name) const;
  Directory create_dir(std::string_view name, uint32_t mode) const;
  /// O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode 0600, for writing (and reading).
  File create(std::string_view name) const;
  /// Not following a link of that name.
  File open_file(std::string_view name) const;

  /// std::nullopt where nothing has that name (a link is not followed).
  std::optional<Stat> stat(std::string_view name) const;
  /// All entries but "." and "..", sorted by name.
  std::vector<Entry> list() const;

  /// Fails with kIo where `to` exists and is not an empty directory (for files: replaces).
  void rename(std::string_view from, std::string_view to) const;
  /// Like rename, but never replaces: false where `to` exists. Where the system cannot do both in one step, another
  /// writer could come between; the lock of a run keeps them apart.
  bool rename_noreplace(std::string_view from, std::string_view to) const;
  /// Swaps the two names in one step. False where the file system or system cannot.
  bool exchange(std::string_view a, std::string_view b) const;

  /// std::nullopt where `name` is absent or no link.
  std::optional<std::string> read_link(std::string_view name) const;
  /// Makes or replaces the link `name` by way of the temporary name `<name>.tmp-<32 hex>` and a rename.
  void replace_link(std::string_view name, std::string_view target) const;

  /// True where it was there.
  bool remove_file(std::string_view name) const;
  /// Removes a whole tree by descriptors; links in it are removed, never followed. True where it was there.
  bool remove_tree(std::string_view name) const;

  void set_mode(uint32_t mode) const;
  void sync() const;
  /// Bytes that an unprivileged process may still write here.
  uint64_t free_bytes() const;

 private:
  explicit Directory(Fd fd) : fd_(std::move(fd)) {}
  /// False where it is a directory.
  bool try_unlink(std::string_view name) const;
  Fd fd_;
};

std::string parent_path(const std::string& path);
std::string file_name(const std::string& path);

/// What a path names, following links; std::nullopt where nothing is there.
std::optional<Stat> stat(const std::string& path);

/// 32 lower-case hex digits from the system's generator.
std::string random_name();

/// The mode a new file (0666) or directory (0777) gets under the process's umask. Read from /proc; where there is none,
/// the umask is 077 for a moment, as POSIX can read it only by setting it.
uint32_t mode_of_umask(uint32_t mode);

}  // namespace ckpt::io
