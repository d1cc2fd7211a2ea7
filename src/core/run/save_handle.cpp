#include "ckpt/save_handle.h"

#include <utility>

#include "core/run/save_queue.h"

namespace ckpt {

SaveHandle::SaveHandle(std::shared_ptr<run::SaveTicket> ticket) : ticket_(std::move(ticket)) {}

void SaveHandle::wait() const {
  ticket_->wait();
  if (auto error = ticket_->take_error()) std::rethrow_exception(error);
}

bool SaveHandle::done() const { return ticket_->status() != SaveStatus::kPending; }

SaveStatus SaveHandle::status() const { return ticket_->status(); }

uint64_t SaveHandle::iteration() const { return ticket_->iteration(); }

std::string SaveHandle::path() const {
  auto committed = ticket_->committed();
  return committed ? committed->path : std::string();
}

}  // namespace ckpt
