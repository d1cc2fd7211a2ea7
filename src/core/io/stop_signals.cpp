#include "core/io/stop_signals.h"

#include <signal.h>

#include <atomic>
#include <mutex>

namespace ckpt::io {
namespace {

// A handler can reach nothing but globals.
std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);
std::mutex users_mutex;
int users = 0;
struct sigaction old_term, old_usr1;

void on_signal(int) { stop_requested.store(true, std::memory_order_relaxed); }

}  // namespace

StopSignals::StopSignals() {
  std::lock_guard lock(users_mutex);
  if (users++ > 0) return;
  stop_requested = false;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, &old_term);
  sigaction(SIGUSR1, &action, &old_usr1);
}

StopSignals::~StopSignals() {
  std::lock_guard lock(users_mutex);
  if (--users > 0) return;
  sigaction(SIGTERM, &old_term, nullptr);
  sigaction(SIGUSR1, &old_usr1, nullptr);
}

bool StopSignals::requested() { return stop_requested.load(std::memory_order_relaxed); }

}  // namespace ckpt::io
