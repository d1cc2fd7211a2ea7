#include "core/io/mapped_file.h"

#include <cerrno>
#include <limits>

#include "core/io/syscalls.h"

namespace ckpt::io {

MappedFile::MappedFile(const File& file, uint64_t bytes) {
  if (bytes == 0) throw Error(ErrorCode::kInvalid, file.path(), "is empty, and cannot be mapped");
  if (bytes > std::numeric_limits<size_t>::max()) sys::fail(file.path(), "cannot map", EFBIG);
  void* mapped = sys::map_private(file.fd_, static_cast<size_t>(bytes));
  if (mapped == nullptr) sys::fail(file.path(), "cannot map " + std::to_string(bytes) + " bytes", errno);
  try {
    file.require_size(bytes);
  } catch (...) {
    sys::unmap(mapped, static_cast<size_t>(bytes));
    throw;
  }
  data_ = static_cast<std::byte*>(mapped);
  size_ = static_cast<size_t>(bytes);
}

MappedFile::~MappedFile() { sys::unmap(data_, size_); }

}  // namespace ckpt::io
