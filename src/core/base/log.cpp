// The only file that includes spdlog: see log.h.
#include "core/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>

namespace ckpt {
namespace {

constexpr char kLogger[] = "ckpt";

std::shared_ptr<spdlog::logger> logger() {
  if (auto registered = spdlog::get(kLogger)) return registered;
  try {
    auto made = spdlog::stderr_color_mt(kLogger);
    made->set_pattern("%n: %^%l%$: %v");
    return made;
  } catch (const spdlog::spdlog_ex&) {
    return spdlog::get(kLogger);  // another thread was faster
  }
}

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

void log(LogLevel level, const std::string& text) noexcept {
  try {
    std::string line = text;
    std::replace(line.begin(), line.end(), '\n', ' ');
    if (auto to = logger()) to->log(level_of(level), spdlog::string_view_t(line));
  } catch (...) {  // a log line that cannot be written is no reason to fail a save
  }
}

}  // namespace ckpt
