// The system calls themselves: each told to the hook, made again on EINTR, and with a plain POSIX way (or a clean
// "cannot") beside what Linux alone has. Results are as the system's: -1 with errno set. Used by core/io only.
//
// CKPT_PORTABLE_IO leaves out what only Linux has, so that the plain ways are built and tested on Linux too.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file.h"
#include "core/io/hooks.h"

#if defined(__linux__) && !defined(CKPT_PORTABLE_IO)
#define CKPT_LINUX_IO 1
#else
#define CKPT_LINUX_IO 0
#endif

namespace ckpt::io::sys {

extern std::atomic<Hook*> hook_of_process;

/// A name in an open directory, or a path by itself.
class Place {
 public:
  explicit Place(std::string path);
  Place(const Fd& directory, std::string_view name);

  int fd() const { return fd_; }
  const char* name() const { return name_.c_str(); }
  std::string path() const;

 private:
  int fd_;
  std::string base_;
  std::string name_;
};

int open(Op op, const Place& place, int flags, mode_t mode = 0);
int mkdir(const Place& place, mode_t mode);
int rename(const Place& from, const Place& to);
/// ENOSYS where the system has no such call, EINVAL where the file system has not.
int rename_noreplace(const Place& from, const Place& to);
int exchange(const Place& a, const Place& b);
int symlink(const std::string& target, const Place& place);
int unlink(const Place& place);
int rmdir(const Place& place);
int stat(const Place& place, bool follow, struct stat* result);
ssize_t read_link(const Place& place, char* into, size_t size);

int stat(const Fd& fd, struct stat* result);
ssize_t read(const Fd& fd, void* into, size_t size, uint64_t offset);
ssize_t write(const Fd& fd, const void* from, size_t size, uint64_t offset);
/// EOPNOTSUPP where the system has no call that reserves without writing.
int allocate(const Fd& fd, uint64_t bytes);
int truncate(const Fd& fd, uint64_t bytes);
int sync(const Fd& fd);
int chmod(const Fd& fd, mode_t mode);
/// Closes in any case; told to the hook, whose error is returned after closing.
int close(Fd& fd);
int free_bytes(const Fd& fd, uint64_t* bytes);
/// The first `bytes` as memory of this process alone: what is written there never reaches the file. nullptr on failure.
void* map_private(const Fd& fd, size_t bytes);
void unmap(void* mapped, size_t bytes);
/// All entries but "." and "..", as the system gives them.
int list(const Fd& directory, std::vector<Entry>* entries);

/// Direct I/O on or off; false where the system or the file system refuses.
bool set_direct(const Fd& fd, bool on);
/// Takes the whole-file lock without waiting: EAGAIN where another descriptor has it.
int lock(const Fd& fd);
/// 1 where another descriptor has the lock, 0 where none has.
int is_locked(const Fd& fd);

/// Throws kNotFound (ENOENT, ENOTDIR) or kIo: `<path>: <what>: <the system's reason>`.
[[noreturn]] void fail(const std::string& path, std::string_view what, int error);

FileType type_of(mode_t mode);
Stat to_stat(const struct stat& status);

}  // namespace ckpt::io::sys
