#include "core/run/save_queue.h"

#include <algorithm>
#include <utility>

namespace ckpt::run {

SaveStatus SaveTicket::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

void SaveTicket::wait() const {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return status_ != SaveStatus::kPending; });
}

std::exception_ptr SaveTicket::take_error() {
  std::lock_guard lock(mutex_);
  return std::exchange(error_, nullptr);
}

std::optional<Committed> SaveTicket::committed() const {
  std::lock_guard lock(mutex_);
  return committed_;
}

void SaveTicket::finish(SaveStatus status, std::optional<Committed> committed, std::exception_ptr error) {
  std::lock_guard lock(mutex_);
  status_ = status;
  committed_ = std::move(committed);
  error_ = std::move(error);
  ended_.notify_all();
}

std::shared_ptr<SaveTicket> skipped_ticket(uint64_t iteration) {
  auto ticket = std::make_shared<SaveTicket>(iteration);
  ticket->finish(SaveStatus::kSkipped, std::nullopt, nullptr);
  return ticket;
}

SaveQueue::SaveQueue(size_t max_pending, WhenFull when_full)
    : capacity_(std::max<size_t>(max_pending, when_full == WhenFull::kReplace ? 2 : 1)), when_full_(when_full) {}

SaveQueue::~SaveQueue() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

StagingBuffer* SaveQueue::begin(uint64_t iteration) {
  std::unique_lock lock(mutex_);
  for (size_t i = waiting_.size(); i-- > 0;) {
    if (waiting_[i].ticket->iteration() == iteration) replace(i);
  }
  if (!has_room()) {
    if (when_full_ == WhenFull::kSkip) return nullptr;
    if (when_full_ == WhenFull::kReplace && !waiting_.empty()) replace(waiting_.size() - 1);
    changed_.wait(lock, [this] { return has_room(); });
  }
  if (free_.empty()) {
    buffers_.push_back(std::make_unique<StagingBuffer>());
    free_.push_back(buffers_.back().get());
  }
  ++begun_;
  StagingBuffer* buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void SaveQueue::abandon(StagingBuffer* buffer) {
  std::lock_guard lock(mutex_);
  --begun_;
  free_.push_back(buffer);
}

std::shared_ptr<SaveTicket> SaveQueue::submit(StagingBuffer* buffer, uint64_t iteration, Job job) {
  auto ticket = std::make_shared<SaveTicket>(iteration);
  std::lock_guard lock(mutex_);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  --begun_;
  waiting_.push_back({buffer, ticket, std::move(job)});
  changed_.notify_all();
  return ticket;
}

void SaveQueue::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return waiting_.empty() && !writing_; });
}

std::exception_ptr SaveQueue::take_error() {
  std::lock_guard lock(mutex_);
  while (!unreported_.empty()) {
    auto ticket = unreported_.front();
    unreported_.pop_front();
    if (auto error = ticket->take_error()) return error;
  }
  return nullptr;
}

void SaveQueue::replace(size_t index) {
  auto place = waiting_.begin() + static_cast<std::ptrdiff_t>(index);
  Pending dropped = std::move(*place);
  waiting_.erase(place);
  free_.push_back(dropped.buffer);
  dropped.ticket->finish(SaveStatus::kReplaced, std::nullopt, nullptr);
}

void SaveQueue::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return !waiting_.empty() || stopping_; });
    if (waiting_.empty()) return;
    Pending next = std::move(waiting_.front());
    waiting_.pop_front();
    writing_ = true;
    lock.unlock();

    std::optional<Committed> committed;
    std::exception_ptr error;
    try {
      committed = next.job();
    } catch (...) {
      error = std::current_exception();
    }
    next.job = nullptr;  // what it captured refers to the buffer

    lock.lock();
    writing_ = false;
    free_.push_back(next.buffer);
    const SaveStatus status = error ? SaveStatus::kFailed : SaveStatus::kWritten;
    if (error) unreported_.push_back(next.ticket);
    // The ticket's is the only reference: whoever takes the error also ends it.
    next.ticket->finish(status, std::move(committed), std::move(error));
    changed_.notify_all();
  }
}

}  // namespace ckpt::run
