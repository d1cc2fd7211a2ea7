#include "core/io/lock.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include "core/base/quote.h"
#include "core/io/syscalls.h"

namespace ckpt::io {
namespace {

constexpr int kFlags = O_RDWR | O_NOFOLLOW | O_NONBLOCK;

// The lock file, made where absent. O_EXCL, so that a creation and an opening are two different calls to a hook.
Fd open_lock_file(const sys::Place& place) {
  for (;;) {
    Fd fd(sys::open(Op::kOpen, place, kFlags), place.path());
    if (!fd.valid() && errno == ENOENT) {
      fd = Fd(sys::open(Op::kCreate, place, kFlags | O_CREAT | O_EXCL, 0666), place.path());
      if (!fd.valid() && errno == EEXIST) continue;
    }
    if (!fd.valid()) sys::fail(place.path(), "cannot open the lock file", errno);
    struct stat status;
    if (sys::stat(fd, &status) != 0) sys::fail(place.path(), "cannot stat", errno);
    if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kIo, place.path(), "is no regular file, expected a lock file");
    return fd;
  }
}

// Whether the name still leads to the open file: a lock on a removed file excludes nobody.
bool still_there(const Fd& fd, const sys::Place& place) {
  struct stat open_one;
  struct stat named;
  return sys::stat(fd, &open_one) == 0 && sys::stat(place, false, &named) == 0 && open_one.st_ino == named.st_ino &&
         open_one.st_dev == named.st_dev;
}

std::string own_text() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return "pid " + std::to_string(::getpid()) + " on " + host.data();
}

// The text is a hint for people. On a full disk it cannot be written, and that must not keep anybody from pruning.
void write_own_text(const Fd& fd) {
  const std::string text = own_text() + "\n";
  if (sys::truncate(fd, 0) == 0) sys::write(fd, text.data(), text.size(), 0);
}

// What the file says of its holder: from another process, so it is printed with care.
std::string read_text(const Fd& fd) {
  std::array<char, 512> raw;
  const ssize_t got = sys::read(fd, raw.data(), raw.size(), 0);
  std::string_view text(raw.data(), got > 0 ? static_cast<size_t>(got) : 0);
  text = text.substr(0, text.find('\n'));
  if (text.empty()) return "another process";
  const bool plain = text.starts_with("pid ") && std::all_of(text.begin(), text.end(), [](char c) {
                       return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
                     });
  return plain ? std::string(text) : quote(text);
}

}  // namespace

FileLock::FileLock(const Directory& directory, std::string_view name, std::chrono::milliseconds wait) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kPause{20};
  const Clock::time_point deadline = Clock::now() + wait;
  const sys::Place place(directory.fd(), name);
  for (;;) {
    Fd fd = open_lock_file(place);
    if (sys::lock(fd) == 0) {
      if (!still_there(fd, place)) continue;
      write_own_text(fd);
      fd_ = std::move(fd);
      return;
    }
    if (errno != EAGAIN) sys::fail(place.path(), "cannot lock", errno);
    if (Clock::now() >= deadline) throw Error(ErrorCode::kLocked, place.path(), "held by " + read_text(fd));
    std::this_thread::sleep_for(std::min<Clock::duration>(kPause, deadline - Clock::now()));
  }
}

std::string lock_holder(const Directory& directory, std::string_view name) {
  const sys::Place place(directory.fd(), name);
  Fd fd(sys::open(Op::kOpen, place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK), place.path());
  if (!fd.valid()) {
    if (errno == ENOENT) return {};
    sys::fail(place.path(), "cannot open the lock file", errno);
  }
  const int locked = sys::is_locked(fd);
  if (locked < 0) sys::fail(place.path(), "cannot ask for the lock", errno);
  return locked == 0 ? std::string() : read_text(fd);
}

}  // namespace ckpt::io
