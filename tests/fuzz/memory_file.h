// The input of a fuzz target as a file: one temporary file, overwritten from run to run.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "core/io/file.h"

namespace ckpt::fuzz {

/// Where files of a run may lie for a while.
inline std::string temporary_base() {
  const char* base = ::getenv("TMPDIR");
  return base != nullptr && *base != '\0' ? base : "/tmp";
}

inline std::string temporary_folder() {
  std::string path = temporary_base() + "/ckpt-fuzz-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) ::abort();
  return path;
}

class MemoryFile {
 public:
  explicit MemoryFile(const std::string& folder = temporary_base()) : path_(folder + "/ckpt-fuzz-XXXXXX") {
    fd_ = ::mkstemp(path_.data());
    if (fd_ < 0) ::abort();
  }
  ~MemoryFile() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  io::File open(std::string_view bytes) {
    if (::ftruncate(fd_, 0) != 0 ||
        ::pwrite(fd_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
      ::abort();
    }
    return io::File::open(path_);
  }

 private:
  std::string path_;
  int fd_ = -1;
};

inline std::string_view text(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

}  // namespace ckpt::fuzz
