// Logging of the library. Behind it is spdlog, in log.cpp alone: the fmt inside pip's torch headers breaks Debian's
// spdlog in any file that sees both.
//
// Thread rule: log() may be called from any thread.
#pragma once

#include <string>

namespace ckpt {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Writes one line through spdlog's logger "ckpt" (stderr; made on first use, the application may register its own
/// under that name before). Never throws.
void log(LogLevel level, const std::string& text) noexcept;

}  // namespace ckpt
