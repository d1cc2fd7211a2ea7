#include "core/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "core/base/staging.h"

namespace ckpt {
namespace {

TEST(ParallelFor, CallsEachIndexOnce) {
  for (unsigned threads : {0u, 1u, 2u, 7u}) {
    for (size_t count : {0, 1, 3, 1000}) {
      std::vector<std::atomic<int>> calls(count);
      parallel_for(count, threads, [&](size_t i) { ++calls[i]; });
      for (const auto& n : calls) EXPECT_EQ(n, 1);
    }
  }
}

TEST(ParallelFor, RethrowsTheFirstErrorAndStops) {
  std::atomic<size_t> calls = 0;
  const auto body = [&](size_t i) {
    ++calls;
    if (i == 10) throw std::runtime_error("ten");
  };
  EXPECT_THROW(parallel_for(1'000'000, 1, body), std::runtime_error);
  EXPECT_EQ(calls, 11u);
  EXPECT_THROW(parallel_for(1'000'000, 4, body), std::runtime_error);
}

TEST(DefaultThreads, IsBetweenOneAndEight) {
  EXPECT_GE(default_threads(), 1u);
  EXPECT_LE(default_threads(), 8u);
}

TEST(StagingBuffer, KeepsItsMemoryWhenItSuffices) {
  StagingBuffer buffer;
  std::byte* first = buffer.reserve(100'000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 4096, 0u);
  EXPECT_GE(buffer.capacity(), 100'000u);
  EXPECT_EQ(buffer.reserve(10), first);
  std::byte* larger = buffer.reserve(5'000'000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(larger) % 4096, 0u);
  std::memset(larger, 1, 5'000'000);
  EXPECT_NE(StagingBuffer().reserve(0), nullptr);
  EXPECT_THROW(buffer.reserve(SIZE_MAX - 10), std::bad_alloc);
}

TEST(CopyParallel, CopiesJobsOfAllSizes) {
  // Empty ones, many small ones, and some that span several pieces.
  std::vector<size_t> sizes = {0, 1, 0, 4'194'304, 3, 9'000'001, 0};
  for (size_t i = 0; i < 500; ++i) sizes.push_back(i * 7);
  sizes.push_back(5'000'000);
  const size_t total = std::accumulate(sizes.begin(), sizes.end(), size_t{0});
  std::vector<unsigned char> from(total), to(total + 1, 0xEE);
  for (size_t i = 0; i < total; ++i) from[i] = static_cast<unsigned char>(i * 31 + i / 257);
  std::vector<CopyJob> jobs;
  size_t at = 0;
  for (size_t bytes : sizes) {
    jobs.push_back({from.data() + at, to.data() + at, bytes});
    at += bytes;
  }
  copy_parallel(jobs, 3);
  EXPECT_EQ(std::memcmp(from.data(), to.data(), total), 0);
  EXPECT_EQ(to[total], 0xEE);
  copy_parallel({}, 3);
}

}  // namespace
}  // namespace ckpt
