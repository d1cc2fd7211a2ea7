#include "core/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace ckpt {

unsigned default_threads() {
  constexpr unsigned kMost = 8;
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    return std::clamp(static_cast<unsigned>(CPU_COUNT(&allowed)), 1u, kMost);
  }
#endif
  return std::clamp(std::thread::hardware_concurrency(), 1u, kMost);
}

void parallel_for(size_t count, unsigned threads, const std::function<void(size_t)>& body) {
  std::atomic<size_t> next = 0;
  std::atomic<bool> stop = false;
  std::mutex mutex;
  std::exception_ptr first;

  auto work = [&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      try {
        body(i);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        stop.store(true, std::memory_order_relaxed);
      }
    }
  };

  std::vector<std::thread> helpers;
  try {
    const size_t wanted = std::min<size_t>(threads, count);
    if (wanted > 1) helpers.reserve(wanted - 1);
    while (helpers.size() + 1 < wanted) helpers.emplace_back(work);
  } catch (const std::exception&) {  // no more threads or memory to be had: those that run, and this one, do it
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace ckpt
