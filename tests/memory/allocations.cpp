#include "memory/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

#if defined(__APPLE__)
#include <malloc/malloc.h>
#define malloc_usable_size malloc_size
#else
#include <malloc.h>
#endif

namespace {

std::atomic<uint64_t> now{0}, peak{0};

void* allocate(size_t bytes, size_t alignment) {
  // aligned_alloc wants a multiple of the alignment
  void* block = alignment == 0 ? std::malloc(bytes == 0 ? 1 : bytes)
                               : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (block == nullptr) throw std::bad_alloc();
  const uint64_t total = now += malloc_usable_size(block);
  uint64_t most = peak;
  while (total > most && !peak.compare_exchange_weak(most, total)) {
  }
  return block;
}

void release(void* block) {
  if (block == nullptr) return;
  now -= malloc_usable_size(block);
  std::free(block);
}

}  // namespace

void* operator new(size_t bytes) { return allocate(bytes, 0); }
void* operator new[](size_t bytes) { return allocate(bytes, 0); }
void* operator new(size_t bytes, std::align_val_t alignment) { return allocate(bytes, static_cast<size_t>(alignment)); }
void* operator new[](size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* block) noexcept { release(block); }
void operator delete[](void* block) noexcept { release(block); }
void operator delete(void* block, size_t) noexcept { release(block); }
void operator delete[](void* block, size_t) noexcept { release(block); }
void operator delete(void* block, std::align_val_t) noexcept { release(block); }
void operator delete[](void* block, std::align_val_t) noexcept { release(block); }
void operator delete(void* block, size_t, std::align_val_t) noexcept { release(block); }
void operator delete[](void* block, size_t, std::align_val_t) noexcept { release(block); }

namespace ckpt::test {

uint64_t allocated_bytes() { return now; }

PeakOfAllocations::PeakOfAllocations() : before_(now) { peak = before_; }
uint64_t PeakOfAllocations::bytes() const { return peak - before_; }

}  // namespace ckpt::test
