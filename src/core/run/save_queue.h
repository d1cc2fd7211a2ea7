// The one thread that writes asynchronous saves, the bounded queue before it, and what becomes of each save.
//
// Thread rule: the queue is used by one thread; tickets by any.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "ckpt/save_handle.h"
#include "core/base/staging.h"
#include "core/run/writer.h"

namespace ckpt::run {

/// What became of one save; shared by the queue and the handles of the caller.
class SaveTicket {
 public:
  explicit SaveTicket(uint64_t iteration) : iteration_(iteration) {}

  uint64_t iteration() const { return iteration_; }
  SaveStatus status() const;
  /// Returns when the save is no longer pending.
  void wait() const;
  /// The error of a failed save for the first who asks, nullptr after.
  std::exception_ptr take_error();
  /// Of a save that was written.
  std::optional<Committed> committed() const;

  void finish(SaveStatus status, std::optional<Committed> committed, std::exception_ptr error);

 private:
  const uint64_t iteration_;
  mutable std::mutex mutex_;
  mutable std::condition_variable ended_;
  SaveStatus status_ = SaveStatus::kPending;
  std::optional<Committed> committed_;
  std::exception_ptr error_;
};

class SaveQueue {
 public:
  using Job = std::function<Committed()>;

  /// At most `max_pending` (at least 1) saves are begun and not finished; under kReplace at least 2, since a save that
  /// is being written is never given up and the newest needs a place to wait.
  SaveQueue(size_t max_pending, WhenFull when_full);
  /// Writes what waits, then returns.
  ~SaveQueue();
  SaveQueue(const SaveQueue&) = delete;
  SaveQueue& operator=(const SaveQueue&) = delete;

  /// A buffer to capture into, once there is room. nullptr under kSkip when there is none. Under kReplace the save that
  /// waits is dropped when there is no room. A save of the same iteration that still waits is dropped, too: the new one
  /// supersedes it.
  StagingBuffer* begin(uint64_t iteration);
  /// After begin(): gives the buffer back, no save comes of it.
  void abandon(StagingBuffer* buffer);
  /// After begin(): the job runs on the writer's thread and may read the buffer until it returns.
  std::shared_ptr<SaveTicket> submit(StagingBuffer* buffer, uint64_t iteration, Job job);

  /// Returns when nothing is pending.
  void drain();
  /// The oldest error of a save that nobody has been told, or nullptr.
  std::exception_ptr take_error();

 private:
  struct Pending {
    StagingBuffer* buffer;
    std::shared_ptr<SaveTicket> ticket;
    Job job;
  };

  void run();
  bool has_room() const { return waiting_.size() + (writing_ ? 1 : 0) + begun_ < capacity_; }
  /// Drops waiting_[index]; its buffer is free again.
  void replace(size_t index);

  const size_t capacity_;
  const WhenFull when_full_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Pending> waiting_;
  bool writing_ = false;
  size_t begun_ = 0;  // buffers given out by begin()
  bool stopping_ = false;
  std::vector<std::unique_ptr<StagingBuffer>> buffers_;
  std::vector<StagingBuffer*> free_;
  std::deque<std::shared_ptr<SaveTicket>> unreported_;  // of failed saves, oldest first
  std::thread thread_;
};

/// A skipped save's ticket.
std::shared_ptr<SaveTicket> skipped_ticket(uint64_t iteration);

}  // namespace ckpt::run
