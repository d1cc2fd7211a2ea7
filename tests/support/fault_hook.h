// A hook that counts the system calls of the library and makes one of them go wrong, and what tests need around it.
#pragma once

#include <atomic>
#include <cerrno>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/io/hooks.h"

namespace ckpt::test {

/// Sets a hook for as long as it lives.
class ScopedHook {
 public:
  explicit ScopedHook(io::Hook* hook) : before_(io::set_hook(hook)) {}
  ~ScopedHook() { io::set_hook(before_); }
  ScopedHook(const ScopedHook&) = delete;
  ScopedHook& operator=(const ScopedHook&) = delete;

 private:
  io::Hook* before_;
};

enum class Fault {
  kNone,        // only count
  kFail,        // fail with `error` instead of making the call
  kShort,       // write or read half of what was asked for; other calls go on as they are
  kInterrupt,   // fail once with EINTR; the library makes the call again
  kKillBefore,  // SIGKILL to this process instead of the call
  kKillAfter,   // SIGKILL to this process right after the call
};

struct FaultPlan {
  Fault fault = Fault::kNone;
  size_t at = 0;                 ///< which of the counted calls, from 0
  int error = EIO;               ///< for kFail
  bool from_then_on = false;     ///< every counted call from `at`, not that one alone (a disk that stays full)
  bool mutating_only = true;     ///< count calls that change the disk alone
  std::optional<io::Op> only{};  ///< count calls of this kind alone
};

/// Thread-safe, as a hook must be.
class FaultHook : public io::Hook {
 public:
  explicit FaultHook(FaultPlan plan = {}) : plan_(plan) {}

  int before(io::Call& call) override;
  void after(const io::Call& call, long result, int error) override;

  /// How many calls were counted so far.
  size_t calls() const { return count_; }
  /// "write /tmp/x/f", one for each counted call.
  std::vector<std::string> log() const;
  /// The call that went wrong; empty: none has.
  std::string hit() const;

 private:
  const FaultPlan plan_;
  std::atomic<size_t> count_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::string> log_;
  std::string hit_;
};

/// Runs `body` in a forked child, which exits with what it returns (99 where it throws); the status as waitpid gives
/// it.
int run_in_child(const std::function<int()>& body);

/// Whether that status is an exit with `code`, or a death by SIGKILL.
bool exited_with(int status, int code);
bool was_killed(int status);

}  // namespace ckpt::test
