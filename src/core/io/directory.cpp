#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/io/file.h"
#include "core/io/syscalls.h"

namespace ckpt::io {

Directory Directory::open(const std::string& path) {
  const sys::Place place(path);
  Fd fd(sys::open(Op::kOpen, place, O_RDONLY | O_DIRECTORY), path);
  if (!fd.valid()) sys::fail(path, "cannot open the directory", errno);
  return Directory(std::move(fd));
}

Directory Directory::open_or_create(const std::string& path, bool* created) {
  const bool made = sys::mkdir(sys::Place(path), 0777) == 0;
  if (!made && errno != EEXIST) sys::fail(path, "cannot create the directory", errno);
  if (created != nullptr) *created = made;

  Directory directory = open(path);
  struct stat status;
  if (sys::stat(directory.fd_, &status) != 0) sys::fail(path, "cannot stat", errno);
  if ((status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0) {
    throw Error(ErrorCode::kUnsafe, path, "anybody may write to this directory and it has no sticky bit");
  }
  // Also where it was there: whoever made it may have died before its name was on the disk.
  Fd parent(sys::open(Op::kOpen, sys::Place(parent_path(path)), O_RDONLY | O_DIRECTORY), parent_path(path));
  if (!parent.valid() && (made || errno != EACCES)) sys::fail(parent.path(), "cannot open the directory", errno);
  if (parent.valid() && sys::sync(parent) != 0) sys::fail(parent.path(), "cannot fsync the directory", errno);
  return directory;
}

std::string Directory::path_of(std::string_view name) const { return sys::Place(fd_, name).path(); }

Directory Directory::open_dir(std::string_view name) const {
  const sys::Place place(fd_, name);
  Fd fd(sys::open(Op::kOpen, place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), place.path());
  if (!fd.valid()) sys::fail(fd.path(), "cannot open the directory", errno);
  return Directory(std::move(fd));
}

Directory Directory::create_dir(std::string_view name, uint32_t mode) const {
  const sys::Place place(fd_, name);
  if (sys::mkdir(place, static_cast<mode_t>(mode)) != 0) sys::fail(place.path(), "cannot create the directory", errno);
  return open_dir(name);
}

File Directory::create(std::string_view name) const {
  const sys::Place place(fd_, name);
  Fd fd(sys::open(Op::kCreate, place, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600), place.path());
  if (!fd.valid()) sys::fail(fd.path(), "cannot create", errno);
  return File(std::move(fd));
}

File Directory::open_file(std::string_view name) const { return File::open_regular(sys::Place(fd_, name), O_NOFOLLOW); }

std::optional<Stat> Directory::stat(std::string_view name) const {
  const sys::Place place(fd_, name);
  struct stat status;
  if (sys::stat(place, false, &status) == 0) return sys::to_stat(status);
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  sys::fail(place.path(), "cannot stat", errno);
}

std::vector<Entry> Directory::list() const {
  std::vector<Entry> entries;
  if (sys::list(fd_, &entries) != 0) sys::fail(path(), "cannot read the directory", errno);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

void Directory::rename(std::string_view from, std::string_view to) const {
  const sys::Place source(fd_, from);
  const sys::Place target(fd_, to);
  if (sys::rename(source, target) != 0) sys::fail(source.path(), "cannot rename to " + target.path(), errno);
}

bool Directory::rename_noreplace(std::string_view from, std::string_view to) const {
  const sys::Place source(fd_, from);
  const sys::Place target(fd_, to);
  if (sys::rename_noreplace(source, target) == 0) return true;
  if (errno == EEXIST || errno == ENOTEMPTY) return false;
  if (errno != EINVAL && errno != ENOSYS) sys::fail(source.path(), "cannot rename to " + target.path(), errno);
  // Not in one step here: what keeps two writers apart is the lock.
  if (stat(to)) return false;
  rename(from, to);
  return true;
}

bool Directory::exchange(std::string_view a, std::string_view b) const {
  const sys::Place first(fd_, a);
  const sys::Place second(fd_, b);
  if (sys::exchange(first, second) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP) return false;
  sys::fail(first.path(), "cannot exchange with " + second.path(), errno);
}

std::optional<std::string> Directory::read_link(std::string_view name) const {
  const sys::Place place(fd_, name);
  std::string target(4096, '\0');
  const ssize_t bytes = sys::read_link(place, target.data(), target.size());
  if (bytes >= 0) {
    target.resize(static_cast<size_t>(bytes));
    return target;
  }
  if (errno == ENOENT || errno == ENOTDIR || errno == EINVAL) return std::nullopt;
  sys::fail(place.path(), "cannot read the link", errno);
}

void Directory::replace_link(std::string_view name, std::string_view target) const {
  const std::string temporary = std::string(name) + ".tmp-" + random_name();
  const sys::Place place(fd_, temporary);
  if (sys::symlink(std::string(target), place) != 0) sys::fail(place.path(), "cannot create the link", errno);
  try {
    rename(temporary, name);
  } catch (const Error&) {
    sys::unlink(place);
    throw;
  }
}

bool Directory::remove_file(std::string_view name) const {
  const sys::Place place(fd_, name);
  if (sys::unlink(place) == 0) return true;
  if (errno == ENOENT) return false;
  sys::fail(place.path(), "cannot remove", errno);
}

bool Directory::remove_tree(std::string_view name) const {
  const sys::Place place(fd_, name);
  // Each look can be out of date when the next call is made, so what a name is shows in what the calls say of it: a
  // directory is entered by a descriptor that follows no link, and all else is unlinked.
  for (int attempt = 0; attempt < 8; ++attempt) {
    Fd fd(sys::open(Op::kOpen, place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), place.path());
    if (!fd.valid()) {
      if (errno == ENOENT) return attempt > 0;
      if (errno != ENOTDIR && errno != ELOOP) sys::fail(place.path(), "cannot open the directory", errno);
      if (sys::unlink(place) == 0) return true;
      if (errno == ENOENT) return attempt > 0;
      if (errno != EISDIR) sys::fail(place.path(), "cannot remove", errno);
      continue;
    }
    const Directory inside(std::move(fd));
    for (const Entry& entry : inside.list()) {
      if (entry.type == FileType::kDirectory || !inside.try_unlink(entry.name)) inside.remove_tree(entry.name);
    }
    if (sys::rmdir(place) == 0) return true;
    if (errno == ENOENT) return true;
    // ENOTEMPTY: somebody still adds to it. ENOTDIR: swapped for something else.
    if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) {
      sys::fail(place.path(), "cannot remove the directory", errno);
    }
  }
  throw Error(ErrorCode::kIo, place.path(), "cannot remove: it keeps changing");
}

bool Directory::try_unlink(std::string_view name) const {
  const sys::Place place(fd_, name);
  if (sys::unlink(place) == 0 || errno == ENOENT) return true;
  if (errno == EISDIR || errno == EPERM) return false;
  sys::fail(place.path(), "cannot remove", errno);
}

void Directory::set_mode(uint32_t mode) const {
  if (sys::chmod(fd_, static_cast<mode_t>(mode)) != 0) sys::fail(path(), "cannot set the mode", errno);
}

void Directory::sync() const {
  if (sys::sync(fd_) != 0) sys::fail(path(), "cannot fsync the directory", errno);
}

uint64_t Directory::free_bytes() const {
  uint64_t bytes = 0;
  if (sys::free_bytes(fd_, &bytes) != 0) sys::fail(path(), "cannot ask for the free space", errno);
  return bytes;
}

}  // namespace ckpt::io
