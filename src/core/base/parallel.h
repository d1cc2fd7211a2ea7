// A loop over indices on a few threads.
#pragma once

#include <cstddef>
#include <functional>

namespace ckpt {

/// How many threads bulk reading, hashing and copying use: the CPUs this process may run on, at most 8.
unsigned default_threads();

/// Calls body(i) for each i below `count`, each once, on at most `threads` threads (the caller's is one of them),
/// lowest indices first. Returns when all are done; the first exception is rethrown after the threads ended, and no
/// further index is begun once one was thrown. Where no thread can be started, the caller's does it all.
void parallel_for(size_t count, unsigned threads, const std::function<void(size_t)>& body);

}  // namespace ckpt
