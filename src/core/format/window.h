// A view of a file through one small buffer: many short reads that mostly go forward, few system calls.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/io/file.h"

namespace ckpt::format {

/// Bytes [0, end) of a file. view() throws kCorrupt where they would pass `end`.
class Window {
 public:
  Window(const io::File& file, uint64_t end, size_t chunk) : file_(file), end_(end), chunk_(chunk) {}

  /// Valid until the next call.
  ByteView view(uint64_t offset, size_t bytes) {
    if (offset > end_ || bytes > end_ - offset) {
      throw Error(ErrorCode::kCorrupt, file_.path(),
                  "cut off: expected " + std::to_string(bytes) + " bytes, found " +
                      std::to_string(offset > end_ ? 0 : end_ - offset),
                  {.offset = offset});
    }
    if (offset < begin_ || offset + bytes > begin_ + filled_) {
      filled_ = 0;
      const auto wanted = static_cast<size_t>(std::min<uint64_t>(std::max(bytes, chunk_), end_ - offset));
      if (buffer_.size() < wanted) buffer_.resize(wanted);
      file_.read_at(offset, std::span(buffer_.data(), wanted));
      begin_ = offset;
      filled_ = wanted;
    }
    return ByteView(buffer_).subspan(static_cast<size_t>(offset - begin_), bytes);
  }

 private:
  const io::File& file_;
  uint64_t end_;
  size_t chunk_;
  std::vector<std::byte> buffer_;
  uint64_t begin_ = 0;
  size_t filled_ = 0;
};

}  // namespace ckpt::format
