// What became of an asynchronous save.
//
// Thread rule: a handle may be copied between threads and used from any of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace ckpt {

namespace run {
class SaveTicket;
}

enum class SaveStatus {
  kPending,   ///< waiting or being written
  kWritten,   ///< durable: it survives a power cut from now on
  kFailed,    ///< not written; the run is as it was
  kSkipped,   ///< not even captured: the queue was full (WhenFull::kSkip)
  kReplaced,  ///< captured and dropped for a newer save (WhenFull::kReplace, or one of the same iteration)
};

/// What save_async() does when as many saves are pending as may be.
enum class WhenFull {
  kWait,     ///< waits until one is finished
  kSkip,     ///< does not save; the handle says kSkipped
  kReplace,  ///< drops the save that waits to be written for the new one; its handle says kReplaced
};

class SaveHandle {
 public:
  explicit SaveHandle(std::shared_ptr<run::SaveTicket> ticket);

  /// Returns when the save is no longer pending. Throws the error of a failed save, unless it was told before: each is
  /// told once, here or by the next call of the manager.
  void wait() const;
  /// Whether it is no longer pending. Never blocks.
  bool done() const;
  SaveStatus status() const;
  /// The iteration that was to be saved.
  uint64_t iteration() const;
  /// The checkpoint's directory, once written; empty before and otherwise.
  std::string path() const;

 private:
  std::shared_ptr<run::SaveTicket> ticket_;
};

}  // namespace ckpt
