#include "support/fault_hook.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace ckpt::test {
namespace {

thread_local bool kill_after_this_call = false;

void die() { ::kill(::getpid(), SIGKILL); }

}  // namespace

int FaultHook::before(io::Call& call) {
  if (plan_.mutating_only && call.op >= io::Op::kFirstReading) return 0;
  if (plan_.only && call.op != *plan_.only) return 0;
  const size_t index = count_.fetch_add(1);
  const bool strikes = plan_.fault != Fault::kNone && (index == plan_.at || (plan_.from_then_on && index > plan_.at));
  const std::string text = std::string(io::to_string(call.op)) + " " + call.path;
  {
    std::lock_guard lock(mutex_);
    log_.push_back(text);
    if (strikes && hit_.empty()) hit_ = text;
  }
  if (!strikes) return 0;
  switch (plan_.fault) {
    case Fault::kFail:
      return plan_.error;
    case Fault::kInterrupt:
      return EINTR;
    case Fault::kShort:
      if ((call.op == io::Op::kWrite || call.op == io::Op::kRead) && call.size > 1) call.size /= 2;
      return 0;
    case Fault::kKillBefore:
      die();
      return EIO;
    case Fault::kKillAfter:
      kill_after_this_call = true;
      return 0;
    case Fault::kNone:
      return 0;
  }
  return 0;
}

void FaultHook::after(const io::Call&, long, int) {
  if (kill_after_this_call) die();
}

std::vector<std::string> FaultHook::log() const {
  std::lock_guard lock(mutex_);
  return log_;
}

std::string FaultHook::hit() const {
  std::lock_guard lock(mutex_);
  return hit_;
}

int run_in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 99;
    try {
      code = body();
    } catch (...) {
    }
    ::_exit(code);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

bool exited_with(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
bool was_killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }

}  // namespace ckpt::test
