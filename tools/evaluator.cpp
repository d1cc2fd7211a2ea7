#include "evaluator.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <string_view>

#include "args.h"
#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/io/file.h"

extern char** environ;

namespace ckpt::tool {
namespace {

constexpr std::string_view kPlace = "{}";
constexpr size_t kMostOutput = 1 << 20;  // of the end of the output, which is all that counts

[[noreturn]] void failed(const std::string& command, const std::string& why) {
  throw Error(ErrorCode::kInvalid, "", "--greedy: " + quote(command) + " " + why);
}

[[noreturn]] void system_failed(const char* what, int error) {
  throw Error(ErrorCode::kIo, "", std::string("--greedy: ") + what + ": " + std::strerror(error));
}

std::string shell_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

/// A shell that runs `command`, with the signals that this program ignores as they were, and its stdout in `to`.
pid_t start(const std::string& command, int to) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, to, STDOUT_FILENO);
  sigset_t ignored;
  ::sigemptyset(&ignored);
  ::sigaddset(&ignored, SIGPIPE);
  ::sigaddset(&ignored, SIGXFSZ);
  ::posix_spawnattr_setsigdefault(&attributes, &ignored);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  std::string shell = "sh", flag = "-c", text = command;
  char* const arguments[] = {shell.data(), flag.data(), text.data(), nullptr};
  pid_t child = -1;
  const int error = ::posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) system_failed("cannot run /bin/sh", error);
  return child;
}

/// The end of what comes until the other side is closed.
std::string read_all(int from) {
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t got = ::read(from, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > 2 * kMostOutput) text.erase(0, text.size() - kMostOutput);
  }
}

std::string last_line(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  text.erase(0, text.find_last_of("\r\n") + 1);
  text.erase(0, text.find_first_not_of(" \t"));
  return text;
}

}  // namespace

Evaluator::Evaluator(std::string command) : command_(std::move(command)) {
  if (command_.find(kPlace) != std::string::npos) return;
  throw Error(ErrorCode::kUsage, "", "--greedy: expected {} for the path in the command, found " + quote(command_));
}

double Evaluator::operator()(const std::string& path) const {
  std::string command = command_;
  const std::string quoted = shell_quoted(path);
  for (size_t at = 0; (at = command.find(kPlace, at)) != std::string::npos; at += quoted.size()) {
    command.replace(at, kPlace.size(), quoted);
  }
  int ends[2];
  if (::pipe(ends) != 0) system_failed("pipe", errno);
  const io::Fd from(ends[0], "pipe");
  io::Fd to(ends[1], "pipe");
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  const pid_t child = start(command, to.get());
  to = io::Fd();
  const std::string line = last_line(read_all(from.get()));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) system_failed("waitpid", errno);
  }
  if (WIFSIGNALED(status)) failed(command, "was ended by signal " + std::to_string(WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0) failed(command, "exited with " + std::to_string(WEXITSTATUS(status)));
  const std::optional<double> metric = number_in(line);
  if (!metric) failed(command, "was to print a number as its last line, found " + quote(line));
  return *metric;
}

}  // namespace ckpt::tool
