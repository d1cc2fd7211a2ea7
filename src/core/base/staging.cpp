#include "core/base/staging.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "core/base/parallel.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ckpt {
namespace {

constexpr size_t kAlignment = 4096;
constexpr size_t kHugePage = 2 << 20;
constexpr uint64_t kPieceBytes = 4 << 20;

}  // namespace

void StagingBuffer::Free::operator()(std::byte* data) const { std::free(data); }

std::byte* StagingBuffer::reserve(size_t bytes) {
  if (bytes <= capacity_ && data_) return data_.get();
  // The old block goes first: both at once would double the memory of a save.
  data_.reset();
  capacity_ = 0;
  const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  if (bytes > SIZE_MAX - alignment) throw std::bad_alloc();
  const size_t rounded = std::max(alignment, (bytes + alignment - 1) / alignment * alignment);
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
  if (!data_) throw std::bad_alloc();
  capacity_ = rounded;
#if defined(__linux__)
  // The first copy faults every page in; huge ones make that a 512th of the faults. Only advice.
  if (alignment == kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);
#endif
  return data_.get();
}

void copy_parallel(std::span<const CopyJob> jobs, unsigned threads) {
  // The jobs laid end to end and cut into equal pieces: many small tensors make as few pieces as one large tensor.
  std::vector<uint64_t> ends;
  ends.reserve(jobs.size());
  uint64_t total = 0;
  for (const CopyJob& job : jobs) ends.push_back(total += job.bytes);

  const auto pieces = static_cast<size_t>((total + kPieceBytes - 1) / kPieceBytes);
  parallel_for(pieces, threads, [&](size_t piece) {
    uint64_t at = piece * kPieceBytes;
    const uint64_t end = std::min(total, at + kPieceBytes);
    auto job = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), at) - ends.begin());
    for (; at < end; ++job) {
      const uint64_t skip = at - (ends[job] - jobs[job].bytes);
      const uint64_t bytes = std::min<uint64_t>(jobs[job].bytes - skip, end - at);
      std::memcpy(static_cast<std::byte*>(jobs[job].to) + skip, static_cast<const std::byte*>(jobs[job].from) + skip,
                  static_cast<size_t>(bytes));
      at += bytes;
    }
  });
}

}  // namespace ckpt
