// Where an asynchronous save copies tensors to, reused from save to save, so that the copy goes into warm memory.
//
// Thread rule: one thread at a time; copy_parallel starts threads of its own and joins them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace ckpt {

/// One block of memory that grows and is kept. reserve() may move it: take places only after the last reserve().
class StagingBuffer {
 public:
  /// At least `bytes`, aligned to 4096, contents undefined; what was there before is kept allocated when it suffices.
  /// Throws std::bad_alloc.
  std::byte* reserve(size_t bytes);
  size_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t capacity_ = 0;
};

struct CopyJob {
  const void* from;
  void* to;
  size_t bytes;
};

/// All copies, cut into pieces and spread over at most `threads` threads; returns when done.
void copy_parallel(std::span<const CopyJob> jobs, unsigned threads);

}  // namespace ckpt
