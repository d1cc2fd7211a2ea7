#include "core/io/file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <utility>

#include "core/io/syscalls.h"

namespace ckpt::io {
namespace {

// One call moves at most this much: Linux stops at 2 GiB - 4096, macOS refuses 2 GiB and more.
constexpr size_t kMostAtOnce = 1 << 30;

}  // namespace

Fd::Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    path_ = std::move(other.path_);
  }
  return *this;
}

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

int Fd::release() { return std::exchange(fd_, -1); }

File File::open_regular(const sys::Place& place, int flags) {
  // O_NONBLOCK: a pipe of that name must not hang the open; for a regular file it means nothing.
  Fd fd(sys::open(Op::kOpen, place, O_RDONLY | O_NONBLOCK | flags), place.path());
  if (!fd.valid()) sys::fail(fd.path(), "cannot open", errno);
  struct stat status;
  if (sys::stat(fd, &status) != 0) sys::fail(fd.path(), "cannot stat", errno);
  if (S_ISDIR(status.st_mode)) throw Error(ErrorCode::kIo, fd.path(), "is a directory, expected a file");
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kIo, fd.path(), "is no regular file");
  return File(std::move(fd));
}

File File::open(const std::string& path) { return open_regular(sys::Place(path), 0); }

Stat File::stat() const {
  struct stat status;
  if (sys::stat(fd_, &status) != 0) sys::fail(path(), "cannot stat", errno);
  return sys::to_stat(status);
}

void File::read_at(uint64_t offset, std::span<std::byte> into) const {
  if (offset > static_cast<uint64_t>(std::numeric_limits<off_t>::max()) - into.size()) {
    throw Error(ErrorCode::kCorrupt, path(), "cut off: a place past the end of any file", {.offset = offset});
  }
  size_t done = 0;
  while (done < into.size()) {
    const size_t ask = std::min(into.size() - done, kMostAtOnce);
    const ssize_t got = sys::read(fd_, into.data() + done, ask, offset + done);
    if (got < 0) sys::fail(path(), "cannot read", errno);
    if (got == 0) {
      throw Error(ErrorCode::kCorrupt, path(),
                  "cut off: expected " + std::to_string(into.size() - done) + " more bytes, the file ends",
                  {.offset = offset + done});
    }
    done += static_cast<size_t>(got);
  }
}

std::vector<std::byte> File::read_at(uint64_t offset, uint64_t bytes) const {
  // Checked before the allocation: `bytes` may be any number that a file claims.
  const uint64_t size = stat().bytes;
  if (offset > size || bytes > size - offset) {
    const uint64_t left = size > offset ? size - offset : 0;
    throw Error(ErrorCode::kCorrupt, path(),
                "cut off: expected " + std::to_string(bytes) + " bytes, found " + std::to_string(left),
                {.offset = offset});
  }
  std::vector<std::byte> result(static_cast<size_t>(bytes));
  read_at(offset, std::span(result));
  return result;
}

void File::require_size(uint64_t bytes) const {
  const uint64_t now = stat().bytes;
  if (now == bytes) return;
  throw Error(
      ErrorCode::kCorrupt, path(),
      "changed since it was opened: expected " + std::to_string(bytes) + " bytes, found " + std::to_string(now));
}

void File::will_need(uint64_t offset, uint64_t bytes) const {
#if CKPT_LINUX_IO
  ::posix_fadvise(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
#else
  (void)offset, (void)bytes;
#endif
}

void File::write_at(uint64_t offset, ByteView bytes) {
  size_t done = 0;
  bool cached = false;
  while (done < bytes.size()) {
    const size_t ask = std::min(bytes.size() - done, kMostAtOnce);
    const ssize_t put = sys::write(fd_, bytes.data() + done, ask, offset + done);
    if (put > 0) {
      done += static_cast<size_t>(put);
    } else if (put < 0 && errno == EINVAL && !cached) {
      // Some file systems take O_DIRECT at fcntl and refuse the write, and what a short direct write has left over is
      // no longer aligned: once more, through the cache.
      cached = true;
      set_direct(false);
    } else {
      sys::fail(path(), "cannot write at byte " + std::to_string(offset + done), put == 0 ? EIO : errno);
    }
  }
}

void File::allocate(uint64_t bytes) {
  if (bytes == 0) return;
  if (sys::allocate(fd_, bytes) == 0) return;
  if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) return;
  sys::fail(path(), "cannot reserve " + std::to_string(bytes) + " bytes", errno);
}

void File::truncate(uint64_t bytes) {
  if (sys::truncate(fd_, bytes) != 0) sys::fail(path(), "cannot set the length", errno);
}

bool File::set_direct(bool on) { return sys::set_direct(fd_, on); }

void File::set_mode(uint32_t mode) {
  if (sys::chmod(fd_, static_cast<mode_t>(mode)) != 0) sys::fail(path(), "cannot set the mode", errno);
}

void File::sync() {
  if (sys::sync(fd_) != 0) sys::fail(path(), "cannot fsync", errno);
}

void File::close() {
  const std::string known_by = path();
  if (sys::close(fd_) != 0) sys::fail(known_by, "cannot close", errno);
}

std::string parent_path(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path.empty() ? "." : "/";
  const size_t slash = path.find_last_of('/', end);
  if (slash == std::string::npos) return ".";
  const size_t parent_end = path.find_last_not_of('/', slash);
  return parent_end == std::string::npos ? "/" : path.substr(0, parent_end + 1);
}

std::string file_name(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return {};
  const size_t slash = path.find_last_of('/', end);
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(begin, end + 1 - begin);
}

std::optional<Stat> stat(const std::string& path) {
  const sys::Place place(path);
  struct stat status;
  if (sys::stat(place, true, &status) == 0) return sys::to_stat(status);
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  sys::fail(path, "cannot stat", errno);
}

std::string random_name() {
  unsigned char raw[16];
  if (::getentropy(raw, sizeof raw) != 0) sys::fail("", "cannot get random bytes", errno);
  constexpr char kDigits[] = "0123456789abcdef";
  std::string name;
  for (unsigned char byte : raw) name += {kDigits[byte >> 4], kDigits[byte & 15]};
  return name;
}

namespace {

#if CKPT_LINUX_IO
// The line "Umask:" of /proc/self/status; std::nullopt where /proc is not there. Not told to hooks: no disk is read.
std::optional<mode_t> umask_from_proc() {
  Fd fd(::open("/proc/self/status", O_RDONLY | O_CLOEXEC), "");
  if (!fd.valid()) return std::nullopt;
  char text[1024];
  const ssize_t got = ::pread(fd.get(), text, sizeof text, 0);
  if (got <= 0) return std::nullopt;
  const std::string_view status(text, static_cast<size_t>(got));
  const size_t at = status.find("\nUmask:\t");
  if (at == std::string_view::npos) return std::nullopt;
  const std::string digits(status.substr(at + 8, 4));
  return static_cast<mode_t>(std::strtoul(digits.c_str(), nullptr, 8));
}
#else
std::optional<mode_t> umask_from_proc() { return std::nullopt; }
#endif

}  // namespace

uint32_t mode_of_umask(uint32_t mode) {
  std::optional<mode_t> mask = umask_from_proc();
  if (!mask) {
    // POSIX can read the umask only by setting it. For that moment it is the strict one: a file that another thread
    // makes just then is closed to others, never open to them.
    static std::mutex mutex;
    std::lock_guard lock(mutex);
    mask = ::umask(077);
    ::umask(*mask);
  }
  return mode & ~static_cast<uint32_t>(*mask);
}

}  // namespace ckpt::io
