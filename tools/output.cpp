#include "output.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/base/json.h"
#include "text.h"

namespace ckpt::tool {
namespace {

bool set_and_not_empty(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value;
}

bool locale_is_utf8() {
  for (const char* variable : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (!set_and_not_empty(variable)) continue;
    std::string value = std::getenv(variable);
    std::transform(value.begin(), value.end(), value.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return value.find("utf-8") != std::string::npos || value.find("utf8") != std::string::npos;
  }
  return false;
}

/// 0, or the errno that writing ended with.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return 0;
}

std::string one_line(const Error& error) {
  std::string text = "ckpt: ";
  if (!error.path().empty()) text += printable(error.path()) + ": ";
  text += error.message();
  if (error.offset()) text += " (byte " + std::to_string(*error.offset()) + ")";
  return text;
}

}  // namespace

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
    case ErrorCode::kInternal:
      return 1;
    case ErrorCode::kUsage:
      return 2;
    case ErrorCode::kIo:
    case ErrorCode::kLocked:
      return 3;
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsafe:
      return 4;
    case ErrorCode::kMismatch:
      return 5;
    case ErrorCode::kNotFound:
      return 6;
    case ErrorCode::kUnsupported:
      return 7;
  }
  return 1;
}

Output::Output() {
  const bool dumb = std::getenv("TERM") && std::strcmp(std::getenv("TERM"), "dumb") == 0;
  colour_ = ::isatty(STDOUT_FILENO) && !set_and_not_empty("NO_COLOR") && !dumb;
  progress_allowed_ = ::isatty(STDERR_FILENO) && !dumb;
  utf8_ = locale_is_utf8();
}

void Output::line(std::string_view text) {
  if (json) return;
  stdout_ += text;
  stdout_ += '\n';
}

void Output::object(nlohmann::json result) {
  if (!json) return;
  result["schema"] = 1;
  if (!warnings_.empty()) result["warnings"] = warnings_;
  stdout_ += dump_json(result);
  stdout_ += '\n';
}

void Output::warn(const std::string& text) {
  progress("");
  warnings_.push_back(text);
  write_all(STDERR_FILENO, "ckpt: warning: " + text + "\n");
}

void Output::note(std::string_view text) {
  if (quiet) return;
  progress("");
  write_all(STDERR_FILENO, std::string(text) + "\n");
}

void Output::progress(std::string_view text) {
  if (!progress_allowed_ || quiet) return;
  if (text.empty() && !progress_shown_) return;
  write_all(STDERR_FILENO, "\r\x1b[K" + std::string(text));
  progress_shown_ = !text.empty();
}

void Output::complain(const Error& error) {
  progress("");
  std::string text = one_line(error) + "\n";
  for (const std::string& detail : error.details()) text += "  " + detail + "\n";
  write_all(STDERR_FILENO, text);
}

int Output::fail(const Error& error, nlohmann::json beside) {
  complain(error);
  beside["error"] = {{"code", to_string(error.code())},
                     {"path", error.path().empty() ? nlohmann::json() : nlohmann::json(error.path())},
                     {"message", error.message()},
                     {"details", error.details()}};
  object(std::move(beside));
  return exit_code(error.code());
}

int Output::finish(int code) {
  progress("");
  const int error = write_all(STDOUT_FILENO, stdout_);
  if (error == 0 || error == EPIPE) return code;
  write_all(STDERR_FILENO, std::string("ckpt: standard output: ") + std::strerror(error) + "\n");
  return exit_code(ErrorCode::kIo);
}

std::string Output::paint(Style style, std::string_view text) const {
  if (!colour_) return std::string(text);
  const char* code = "0";
  switch (style) {
    case Style::kBold:
      code = "1";
      break;
    case Style::kDim:
      code = "2";
      break;
    case Style::kGreen:
      code = "32";
      break;
    case Style::kYellow:
      code = "33";
      break;
    case Style::kRed:
      code = "31";
      break;
  }
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

}  // namespace ckpt::tool
