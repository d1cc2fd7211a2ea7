#include "program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <sstream>

#include "core/base/json.h"
#include "core/run/names.h"

namespace ckpt::test {
namespace {

using Ends = std::array<int, 2>;  // to read from, to write to

Ends make_pipe() {
  Ends ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  return ends;
}

Ends make_terminal() {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) throw std::runtime_error("posix_openpt");
  return {master, ::open(::ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC)};
}

/// Reads both to their ends (a terminal's is EIO).
void drain(std::array<int, 2> fds, std::array<std::string*, 2> into) {
  std::array<char, 65536> buffer{};
  while (fds[0] >= 0 || fds[1] >= 0) {
    std::array<pollfd, 2> polled{pollfd{fds[0], POLLIN, 0}, pollfd{fds[1], POLLIN, 0}};
    ::poll(polled.data(), polled.size(), -1);
    for (size_t i = 0; i < fds.size(); ++i) {
      if (fds[i] < 0 || !polled[i].revents) continue;
      const ssize_t count = ::read(fds[i], buffer.data(), buffer.size());
      if (count > 0) {
        into[i]->append(buffer.data(), static_cast<size_t>(count));
      } else if (count == 0 || errno != EINTR) {
        ::close(fds[i]);
        fds[i] = -1;
      }
    }
  }
}

std::vector<std::string> environment_of(const Surroundings& surroundings) {
  std::map<std::string, std::string> variables = surroundings.environment;
  for (const char* name : {"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name)) variables.try_emplace(name, value);
  }
  variables.try_emplace("LC_ALL", "C");
  variables.try_emplace("TERM", "xterm");
  std::vector<std::string> texts;
  for (const auto& [name, value] : variables) texts.push_back(name + "=" + value);
  return texts;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

Outcome ckpt(const std::vector<std::string>& arguments, const Surroundings& surroundings) {
  std::vector<std::string> words{CKPT_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = environment_of(surroundings);
  const std::vector<char*> argv = pointers_to(words), envp = pointers_to(variables);

  const Ends out = surroundings.terminal ? make_terminal() : make_pipe();
  const Ends err = make_pipe();
  const pid_t child = ::fork();
  if (child == 0) {
    if (!surroundings.directory.empty() && ::chdir(surroundings.directory.c_str()) != 0) ::_exit(126);
    int to = out[1];
    if (!surroundings.stdout_path.empty()) to = ::open(surroundings.stdout_path.c_str(), O_WRONLY | O_CREAT, 0666);
    ::dup2(to, STDOUT_FILENO);
    ::dup2(surroundings.terminal ? out[1] : err[1], STDERR_FILENO);
    ::signal(SIGPIPE, SIG_DFL);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(out[1]);
  ::close(err[1]);
  Outcome outcome;
  drain({out[0], err[0]}, {&outcome.out, &outcome.err});
  int status = 0;
  ::waitpid(child, &status, 0);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  return outcome;
}

nlohmann::json Outcome::json() const {
  EXPECT_EQ(lines_of(out).size(), 1u) << out;
  const nlohmann::json parsed = parse_json(out, "stdout");
  EXPECT_TRUE(parsed.is_object());
  EXPECT_EQ(parsed.at("schema"), 1);
  return parsed;
}

nlohmann::json Outcome::error() const {
  const nlohmann::json all = json();
  const nlohmann::json error = all.value("error", nlohmann::json::object());
  EXPECT_EQ(error.size(), 4u) << out;
  for (const char* field : {"code", "path", "message", "details"}) EXPECT_TRUE(error.contains(field)) << out;
  EXPECT_TRUE(err.starts_with("ckpt: ")) << err;
  return error;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string data(const std::string& name) { return std::string(CKPT_TEST_DATA) + "/" + name; }

std::string archive(const std::string& name) { return data("archives/" + name); }

std::string add_checkpoint(const std::string& run, const NewCheckpoint& checkpoint) {
  const std::string state = read_all(checkpoint.state);
  run::RunWriter writer(run);
  const run::CheckpointHead head{checkpoint.iteration, checkpoint.epoch, checkpoint.metrics, checkpoint.metadata};
  const run::FileToWrite file{"state.pt", state.size(), [&](io::BlockWriter& to) { to.append(as_bytes(state)); }};
  return writer.commit(head, {file}, {}, checkpoint.monitor).path;
}

void flip_byte(const std::string& path, uint64_t offset) {
  std::string bytes = read_all(path);
  bytes.at(offset) = static_cast<char>(bytes.at(offset) ^ 0x40);
  write_all(path, bytes);
}

std::map<std::string, std::string> everything_in(const std::string& path) {
  std::map<std::string, std::string> all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    all[entry.path().string()] =
        entry.is_regular_file() && entry.path().filename() != run::kLockName ? read_all(entry.path().string()) : "";
  }
  return all;
}

}  // namespace ckpt::test
