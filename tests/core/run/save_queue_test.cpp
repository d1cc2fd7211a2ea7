#include "core/run/save_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

#include "ckpt/error.h"
#include "core/base/checksum.h"

namespace ckpt::run {
namespace {

Committed committed_of(uint64_t iteration) {
  Committed committed;
  committed.iteration = iteration;
  committed.path = "run/step-" + std::to_string(iteration);
  return committed;
}

/// A job that waits to be let go, so that a test decides when the writer's thread is busy.
class Gate {
 public:
  SaveQueue::Job job(uint64_t iteration) {
    return [this, iteration] {
      started_.set_value();
      opened_.wait();
      return committed_of(iteration);
    };
  }
  void wait_until_started() { started_.get_future().wait(); }
  void open() { open_.set_value(); }

 private:
  std::promise<void> started_, open_;
  std::shared_future<void> opened_{open_.get_future()};
};

std::shared_ptr<SaveTicket> put(SaveQueue& queue, uint64_t iteration, SaveQueue::Job job) {
  StagingBuffer* buffer = queue.begin(iteration);
  if (!buffer) return skipped_ticket(iteration);
  return queue.submit(buffer, iteration, std::move(job));
}

SaveQueue::Job quick(uint64_t iteration, std::vector<uint64_t>* order = nullptr) {
  return [iteration, order] {
    if (order) order->push_back(iteration);
    return committed_of(iteration);
  };
}

TEST(SaveQueue, RunsSavesInOrderAndTellsWhereTheyAre) {
  std::vector<uint64_t> order;
  std::vector<SaveHandle> handles;
  SaveQueue queue(3, WhenFull::kWait);
  for (uint64_t i = 1; i <= 20; ++i) handles.emplace_back(put(queue, i, quick(i, &order)));
  queue.drain();
  for (uint64_t i = 1; i <= 20; ++i) {
    EXPECT_EQ(handles[i - 1].status(), SaveStatus::kWritten);
    EXPECT_EQ(handles[i - 1].path(), "run/step-" + std::to_string(i));
    EXPECT_EQ(order[i - 1], i);
  }
}

TEST(SaveQueue, WaitBlocksUntilThereIsRoom) {
  Gate gate;
  SaveQueue queue(1, WhenFull::kWait);
  auto first = put(queue, 1, gate.job(1));
  gate.wait_until_started();
  std::atomic<bool> second_in{false};
  std::shared_ptr<SaveTicket> second;
  std::thread producer([&] {
    second = put(queue, 2, quick(2));
    second_in = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(second_in);
  gate.open();
  producer.join();
  second->wait();
  EXPECT_EQ(first->status(), SaveStatus::kWritten);
  EXPECT_EQ(second->status(), SaveStatus::kWritten);
}

TEST(SaveQueue, SkipGivesNoBufferWhileFull) {
  Gate gate;
  SaveQueue queue(1, WhenFull::kSkip);
  auto first = put(queue, 1, gate.job(1));
  gate.wait_until_started();
  EXPECT_EQ(put(queue, 2, quick(2))->status(), SaveStatus::kSkipped);
  EXPECT_EQ(first->status(), SaveStatus::kPending);
  gate.open();
  first->wait();
  queue.drain();
  auto third = put(queue, 3, quick(3));
  third->wait();
  EXPECT_EQ(third->status(), SaveStatus::kWritten);
}

TEST(SaveQueue, ReplaceDropsTheWaitingSaveButNeverTheOneBeingWritten) {
  Gate gate;
  SaveQueue queue(1, WhenFull::kReplace);
  auto first = put(queue, 1, gate.job(1));
  gate.wait_until_started();
  auto second = put(queue, 2, quick(2));
  EXPECT_EQ(second->status(), SaveStatus::kPending);
  auto third = put(queue, 3, quick(3));
  EXPECT_EQ(second->status(), SaveStatus::kReplaced);
  gate.open();
  first->wait();
  third->wait();
  EXPECT_EQ(first->status(), SaveStatus::kWritten);
  EXPECT_EQ(third->status(), SaveStatus::kWritten);
  EXPECT_NO_THROW(SaveHandle(second).wait());
}

TEST(SaveQueue, ASaveOfTheSameIterationSupersedesTheOneThatWaits) {
  Gate gate;
  SaveQueue queue(4, WhenFull::kWait);
  auto first = put(queue, 1, gate.job(1));
  gate.wait_until_started();
  auto older = put(queue, 2, quick(2));
  auto newer = put(queue, 2, quick(2));
  EXPECT_EQ(older->status(), SaveStatus::kReplaced);
  gate.open();
  newer->wait();
  EXPECT_EQ(newer->status(), SaveStatus::kWritten);
}

TEST(SaveQueue, AnErrorIsToldOnceAtTheHandle) {
  SaveQueue queue(1, WhenFull::kWait);
  SaveHandle handle(put(queue, 7, []() -> Committed { throw Error(ErrorCode::kIo, "run", "disk full"); }));
  try {
    handle.wait();
    FAIL() << "the error was not thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
  }
  EXPECT_EQ(handle.status(), SaveStatus::kFailed);
  EXPECT_NO_THROW(handle.wait());
  EXPECT_EQ(queue.take_error(), nullptr);
}

TEST(SaveQueue, AnErrorIsToldOnceByTheQueueWhenTheHandleWasNotAsked) {
  SaveQueue queue(1, WhenFull::kWait);
  SaveHandle handle(put(queue, 7, []() -> Committed { throw Error(ErrorCode::kIo, "run", "disk full"); }));
  queue.drain();
  EXPECT_NE(queue.take_error(), nullptr);
  EXPECT_EQ(queue.take_error(), nullptr);
  EXPECT_NO_THROW(handle.wait());
  EXPECT_EQ(handle.status(), SaveStatus::kFailed);
}

TEST(SaveQueue, DestructionWritesWhatWaits) {
  std::vector<uint64_t> order;
  std::vector<std::shared_ptr<SaveTicket>> tickets;
  {
    SaveQueue queue(8, WhenFull::kWait);
    for (uint64_t i = 1; i <= 8; ++i) tickets.push_back(put(queue, i, quick(i, &order)));
  }
  EXPECT_EQ(order.size(), 8u);
  for (const auto& ticket : tickets) EXPECT_EQ(ticket->status(), SaveStatus::kWritten);
}

TEST(SaveQueue, AnAbandonedBufferMakesRoomAgain) {
  SaveQueue queue(1, WhenFull::kSkip);
  StagingBuffer* buffer = queue.begin(1);
  ASSERT_NE(buffer, nullptr);
  EXPECT_EQ(queue.begin(2), nullptr);
  queue.abandon(buffer);
  EXPECT_EQ(queue.begin(2), buffer);
  queue.abandon(buffer);
}

// The values written are those at the call, though the source goes on changing. Under ThreadSanitizer this also shows
// that buffers are handed over and back cleanly.
TEST(SaveQueue, WritesTheValuesAtTheCallThoughTheSourceGoesOnChanging) {
  std::vector<uint64_t> live(1 << 16, 0);
  std::vector<uint64_t> expected, written(50);
  {
    SaveQueue queue(2, WhenFull::kWait);
    for (uint64_t i = 0; i < 50; ++i) {
      for (auto& value : live) value = value * 6364136223846793005u + i + 1;
      expected.push_back(xxh3_64(std::as_bytes(std::span(live))));
      StagingBuffer* buffer = queue.begin(i);
      const size_t bytes = live.size() * sizeof live[0];
      std::byte* to = buffer->reserve(bytes);
      const CopyJob job{live.data(), to, bytes};
      copy_parallel({&job, 1}, 2);
      queue.submit(buffer, i, [&written, to, bytes, i] {
        written[i] = xxh3_64(ByteView(to, bytes));
        return committed_of(i);
      });
    }
  }
  EXPECT_EQ(written, expected);
}

}  // namespace
}  // namespace ckpt::run
