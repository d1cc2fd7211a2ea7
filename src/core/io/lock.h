// One writer at a time: an open-file-description lock on a file that says who holds it.
#pragma once

#include <chrono>
#include <string>

#include "core/io/file.h"

namespace ckpt::io {

/// Held until destroyed; the kernel frees it when the process dies. Two FileLocks of one process exclude each other.
/// The file is made when absent, never truncated before the lock is held, never removed; its text is
/// `pid <pid> on <host>`.
class FileLock {
 public:
  /// Takes the lock, waiting at most `wait`. Error(kLocked) names the holder: "held by pid 123 on host".
  FileLock(const Directory& directory, std::string_view name, std::chrono::milliseconds wait = {});

 private:
  Fd fd_;
};

/// Who holds the lock now ("pid 123 on host"); empty where nobody does.
std::string lock_holder(const Directory& directory, std::string_view name);

}  // namespace ckpt::io
