#include "core/io/syscalls.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

namespace ckpt::io::sys {

std::atomic<Hook*> hook_of_process = nullptr;

namespace {

// Makes a call (`make(size)`) until it is not interrupted, telling the hook where one is set. `describe()` makes the
// Call only then: its paths cost an allocation.
template <class Describe, class Make>
long hooked(Describe describe, Make make, size_t size = 0) {
  for (;;) {
    Hook* hook = hook_of_process.load(std::memory_order_acquire);
    long result;
    if (hook == nullptr) {
      result = make(size);
    } else {
      Call call = describe();
      call.size = size;
      int error = hook->before(call);
      if (error != 0) {
        result = -1;
      } else {
        result = make(std::min(call.size, size));
        error = result < 0 ? errno : 0;
        hook->after(call, result, error);
      }
      errno = error;
    }
    if (result >= 0 || errno != EINTR) return result;
  }
}

template <class Make>
int on_place(Op op, const Place& place, Make make) {
  return static_cast<int>(hooked([&] { return Call{.op = op, .path = place.path()}; }, [&](size_t) { return make(); }));
}

template <class Make>
int on_places(Op op, const Place& a, const Place& b, Make make) {
  return static_cast<int>(
      hooked([&] { return Call{.op = op, .path = a.path(), .target = b.path()}; }, [&](size_t) { return make(); }));
}

template <class Make>
int on_fd(Op op, const Fd& fd, Make make) {
  return static_cast<int>(hooked([&] { return Call{.op = op, .path = fd.path()}; }, [&](size_t) { return make(); }));
}

FileType type_of_entry(int directory, const dirent& entry) {
  switch (entry.d_type) {
    case DT_REG:
      return FileType::kFile;
    case DT_DIR:
      return FileType::kDirectory;
    case DT_LNK:
      return FileType::kLink;
    case DT_UNKNOWN:
      break;
    default:
      return FileType::kOther;
  }
  struct stat status;
  if (::fstatat(directory, entry.d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) return FileType::kOther;
  return type_of(status.st_mode);
}

int list_once(const Fd& directory, std::vector<Entry>* entries) {
  entries->clear();
  // A descriptor of its own: a duplicate would share the position with other readers of this directory.
  const int fd = ::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd), ::closedir);
  if (!stream) {
    const int error = errno;
    ::close(fd);
    errno = error;
    return -1;
  }
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) return errno == 0 ? 0 : -1;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") entries->push_back({std::string(name), type_of_entry(fd, *entry)});
  }
}

#if CKPT_LINUX_IO && defined(F_OFD_SETLK)
int ofd_lock(int fd, int command, short type, struct flock* lock) {
  *lock = {};
  lock->l_type = type;
  lock->l_whence = SEEK_SET;
  return ::fcntl(fd, command, lock);
}
#endif

}  // namespace

Place::Place(std::string path) : fd_(AT_FDCWD), name_(std::move(path)) {
  if (name_.find('\0') != std::string::npos) throw Error(ErrorCode::kInvalid, "", "a path holds a NUL byte");
}

Place::Place(const Fd& directory, std::string_view name) : fd_(directory.get()), base_(directory.path()), name_(name) {
  if (name_.find('\0') != std::string::npos) throw Error(ErrorCode::kInvalid, base_, "a name holds a NUL byte");
}

std::string Place::path() const {
  if (base_.empty()) return name_;
  return base_.back() == '/' ? base_ + name_ : base_ + "/" + name_;
}

int open(Op op, const Place& place, int flags, mode_t mode) {
  return on_place(op, place, [&] { return ::openat(place.fd(), place.name(), flags | O_CLOEXEC, mode); });
}

int mkdir(const Place& place, mode_t mode) {
  return on_place(Op::kMkdir, place, [&] { return ::mkdirat(place.fd(), place.name(), mode); });
}

int rename(const Place& from, const Place& to) {
  return on_places(Op::kRename, from, to, [&] { return ::renameat(from.fd(), from.name(), to.fd(), to.name()); });
}

#if CKPT_LINUX_IO
int rename_noreplace(const Place& from, const Place& to) {
  return on_places(Op::kRename, from, to,
                   [&] { return ::renameat2(from.fd(), from.name(), to.fd(), to.name(), RENAME_NOREPLACE); });
}

int exchange(const Place& a, const Place& b) {
  return on_places(Op::kExchange, a, b,
                   [&] { return ::renameat2(a.fd(), a.name(), b.fd(), b.name(), RENAME_EXCHANGE); });
}
#else
int rename_noreplace(const Place&, const Place&) {
  errno = ENOSYS;
  return -1;
}

int exchange(const Place&, const Place&) {
  errno = ENOSYS;
  return -1;
}
#endif

int symlink(const std::string& target, const Place& place) {
  return static_cast<int>(hooked([&] { return Call{.op = Op::kLink, .path = place.path(), .target = target}; },
                                 [&](size_t) { return ::symlinkat(target.c_str(), place.fd(), place.name()); }));
}

int unlink(const Place& place) {
  return on_place(Op::kUnlink, place, [&] { return ::unlinkat(place.fd(), place.name(), 0); });
}

int rmdir(const Place& place) {
  return on_place(Op::kRmdir, place, [&] { return ::unlinkat(place.fd(), place.name(), AT_REMOVEDIR); });
}

int stat(const Place& place, bool follow, struct stat* result) {
  return on_place(Op::kStat, place,
                  [&] { return ::fstatat(place.fd(), place.name(), result, follow ? 0 : AT_SYMLINK_NOFOLLOW); });
}

ssize_t read_link(const Place& place, char* into, size_t size) {
  return hooked([&] { return Call{.op = Op::kReadLink, .path = place.path()}; },
                [&](size_t) { return ::readlinkat(place.fd(), place.name(), into, size); });
}

int stat(const Fd& fd, struct stat* result) {
  return on_fd(Op::kStat, fd, [&] { return ::fstat(fd.get(), result); });
}

ssize_t read(const Fd& fd, void* into, size_t size, uint64_t offset) {
  return hooked([&] { return Call{.op = Op::kRead, .path = fd.path(), .offset = offset}; },
                [&](size_t bytes) { return ::pread(fd.get(), into, bytes, static_cast<off_t>(offset)); }, size);
}

ssize_t write(const Fd& fd, const void* from, size_t size, uint64_t offset) {
  return hooked([&] { return Call{.op = Op::kWrite, .path = fd.path(), .offset = offset, .data = from}; },
                [&](size_t bytes) { return ::pwrite(fd.get(), from, bytes, static_cast<off_t>(offset)); }, size);
}

int allocate(const Fd& fd, uint64_t bytes) {
#if CKPT_LINUX_IO
  return static_cast<int>(hooked([&] { return Call{.op = Op::kAllocate, .path = fd.path()}; },
                                 [&](size_t size) { return ::fallocate(fd.get(), 0, 0, static_cast<off_t>(size)); },
                                 static_cast<size_t>(bytes)));
#else
  (void)fd, (void)bytes;
  errno = EOPNOTSUPP;
  return -1;
#endif
}

int truncate(const Fd& fd, uint64_t bytes) {
  return static_cast<int>(hooked([&] { return Call{.op = Op::kTruncate, .path = fd.path()}; },
                                 [&](size_t size) { return ::ftruncate(fd.get(), static_cast<off_t>(size)); },
                                 static_cast<size_t>(bytes)));
}

// Made again on EINTR alone: an interrupted fsync has reported no write error, and so has not used it up. After any
// other error a second fsync would report success for pages that the kernel has dropped.
int sync(const Fd& fd) {
  return on_fd(Op::kSync, fd, [&] {
#if defined(F_FULLFSYNC)
    if (::fcntl(fd.get(), F_FULLFSYNC) == 0) return 0;
    if (errno != ENOTSUP && errno != EINVAL && errno != ENOTTY) return -1;
#endif
    return ::fsync(fd.get());
  });
}

int chmod(const Fd& fd, mode_t mode) {
  return on_fd(Op::kChmod, fd, [&] { return ::fchmod(fd.get(), mode); });
}

int close(Fd& fd) {
  Hook* hook = hook_of_process.load(std::memory_order_acquire);
  Call call{.op = Op::kClose, .path = hook == nullptr ? std::string() : fd.path()};
  int error = hook == nullptr ? 0 : hook->before(call);
  const bool refused = error != 0;
  const int result = ::close(fd.release());
  if (!refused) {
    error = result < 0 ? errno : 0;
    if (hook != nullptr) hook->after(call, result, error);
  }
  // The descriptor is gone even when the call was interrupted: closing again could close somebody else's.
  if (error == 0 || error == EINTR) return 0;
  errno = error;
  return -1;
}

int free_bytes(const Fd& fd, uint64_t* bytes) {
  struct statvfs status;
  const int result = on_fd(Op::kStatFs, fd, [&] { return ::fstatvfs(fd.get(), &status); });
  if (result == 0) *bytes = static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
  return result;
}

void* map_private(const Fd& fd, size_t bytes) {
  int flags = MAP_PRIVATE;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;  // else a file larger than memory and swap is refused, for the sake of writes that never come
#endif
  void* mapped = MAP_FAILED;
  on_fd(Op::kMap, fd, [&] {
    mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd.get(), 0);
    return mapped == MAP_FAILED ? -1 : 0;
  });
  return mapped == MAP_FAILED ? nullptr : mapped;
}

void unmap(void* mapped, size_t bytes) { ::munmap(mapped, bytes); }

int list(const Fd& directory, std::vector<Entry>* entries) {
  return on_fd(Op::kList, directory, [&] { return list_once(directory, entries); });
}

bool set_direct(const Fd& fd, bool on) {
#if CKPT_LINUX_IO
  const int flags = ::fcntl(fd.get(), F_GETFL);
  return flags >= 0 && ::fcntl(fd.get(), F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
#elif defined(F_NOCACHE)
  return ::fcntl(fd.get(), F_NOCACHE, on ? 1 : 0) == 0;
#else
  (void)fd;
  return !on;
#endif
}

int lock(const Fd& fd) {
  return on_fd(Op::kLock, fd, [&] {
#if CKPT_LINUX_IO && defined(F_OFD_SETLK)
    struct flock range;
    if (ofd_lock(fd.get(), F_OFD_SETLK, F_WRLCK, &range) == 0) return 0;
    if (errno == EACCES) errno = EAGAIN;
    if (errno != EINVAL && errno != ENOSYS) return -1;
#endif
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno == EWOULDBLOCK) errno = EAGAIN;
    return -1;
  });
}

int is_locked(const Fd& fd) {
  return on_fd(Op::kLock, fd, [&] {
#if CKPT_LINUX_IO && defined(F_OFD_GETLK)
    struct flock range;
    if (ofd_lock(fd.get(), F_OFD_GETLK, F_RDLCK, &range) == 0) return range.l_type == F_UNLCK ? 0 : 1;
    if (errno != EINVAL && errno != ENOSYS) return -1;
#endif
    if (::flock(fd.get(), LOCK_SH | LOCK_NB) == 0) {
      ::flock(fd.get(), LOCK_UN);
      return 0;
    }
    return errno == EWOULDBLOCK ? 1 : -1;
  });
}

void fail(const std::string& path, std::string_view what, int error) {
  const bool absent = error == ENOENT || error == ENOTDIR;
  throw Error(absent ? ErrorCode::kNotFound : ErrorCode::kIo, path,
              std::string(what) + ": " + std::generic_category().message(error));
}

FileType type_of(mode_t mode) {
  if (S_ISREG(mode)) return FileType::kFile;
  if (S_ISDIR(mode)) return FileType::kDirectory;
  if (S_ISLNK(mode)) return FileType::kLink;
  return FileType::kOther;
}

Stat to_stat(const struct stat& status) {
#if defined(__APPLE__)
  const timespec modified = status.st_mtimespec;
#else
  const timespec modified = status.st_mtim;
#endif
  return {.type = type_of(status.st_mode),
          .bytes = static_cast<uint64_t>(status.st_size),
          .modified_ns = static_cast<int64_t>(modified.tv_sec) * 1'000'000'000 + modified.tv_nsec,
          .inode = static_cast<uint64_t>(status.st_ino),
          .device = static_cast<uint64_t>(status.st_dev),
          .mode = static_cast<uint32_t>(status.st_mode) & 07777u};
}

}  // namespace ckpt::io::sys
