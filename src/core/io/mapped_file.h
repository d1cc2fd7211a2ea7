// A file as memory of this process alone: pages are read when they are touched, shared with every process that maps the
// file until they are written to, and what is written never reaches it.
//
// Touching a page past the end of a file is SIGBUS, which nothing can turn into an error. So this is for files that
// nobody cuts off or writes into as long as they are mapped: it is never used unless the caller asked for it.
//
// Thread rule: use from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/io/file.h"

namespace ckpt::io {

class MappedFile {
 public:
  /// Maps the whole of a file, which may be closed or get another name after that. kCorrupt where it has not (or no
  /// longer, when it is mapped) `bytes` bytes; kInvalid for an empty one; kIo.
  MappedFile(const File& file, uint64_t bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ckpt::io
