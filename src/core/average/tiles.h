// The data of the result: tiles of all members, read and combined by a few threads, handed out in order.
//
// Each tile is read once. On the way the members' checksums are looked at, their hashes taken and what is not finite
// counted. A few tiles are done ahead, in the order in which the writer is expected to ask, across tensors; a writer
// that asks in another order gets what it wants and costs some work done twice.
//
// Thread rule: one thread calls; the object has threads of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/average/combine.h"
#include "core/average/plan.h"
#include "core/format/bytes_to_write.h"
#include "core/weights/tiles.h"

namespace ckpt::average {

class Tiles {
 public:
  /// `order`: the items whose data will be asked for, as far as is known in that order. What is referred to outlives
  /// this.
  Tiles(const Members& members, const Plan& plan, std::vector<size_t> order, unsigned threads);
  ~Tiles();
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  /// The whole result of an item, row-major and little-endian. Each is asked for once. kCorrupt, kIo with the member's
  /// path.
  void produce(size_t item, const format::ByteSink& sink);

  /// What is to be known when all were asked for.
  struct Outcome {
    std::vector<std::string> hashes;  ///< by member
    /// (member, item) -> how many numbers were NaN or infinite.
    std::map<std::pair<size_t, size_t>, uint64_t> nonfinite;
    std::vector<size_t> overflows, disagreements;  ///< items
  };
  /// Whether all of `order` were asked for.
  bool complete() const { return produced_ == order_.size(); }
  Outcome outcome() const;

 private:
  struct Place {
    size_t position = 0;  // in order_
    uint64_t tile = 0;
  };
  struct OfMember {
    uint64_t hash = 0;
    uint32_t crc = 0;
    uint64_t bytes = 0;
    uint64_t nonfinite = 0;
  };
  /// One tile's result, and a place for the next one's when it was taken.
  struct Slot {
    enum class State : uint8_t { kFree, kBusy, kReady } state = State::kFree;
    uint64_t sequence = 0;
    std::vector<std::byte> bytes;
    std::vector<OfMember> members;  // that have the item
    Seen seen;
    std::exception_ptr error;
  };
  struct Advice {
    const io::File* file;
    uint64_t offset, bytes;
  };

  void start();
  void stop();
  void restart_at(size_t position);
  void work();
  bool take(Place& place, size_t& slot, std::vector<Advice>& advice);
  void advise(std::vector<Advice>& advice);
  void fill(const Place& place, Slot& slot, std::vector<std::byte>& buffer) const;
  void read(size_t member, const weights::Tensor& tensor, const format::StoredTensor& tile, std::span<std::byte> into,
            OfMember& seen) const;
  Slot& wait_for(uint64_t sequence);
  bool is_worth_waking() const;
  void release(Slot& slot);
  void account(size_t item, const std::vector<uint64_t>& digests);
  uint64_t tiles_at(size_t position) const;

  const Members& members_;
  const Plan& plan_;
  const Combiner combiner_;
  const std::vector<size_t> order_;
  std::vector<size_t> position_of_;                 // by item
  std::vector<std::vector<size_t>> further_names_;  // by item: those that are tied to it
  const unsigned threads_;

  // Of the caller's thread.
  size_t position_ = 0;  // what the threads do next, as far as they were taken
  size_t produced_ = 0;
  std::vector<std::pair<uint64_t, uint64_t>> hash_sums_;  // by member
  Outcome met_;
  std::vector<std::thread> workers_;

  std::mutex mutex_;
  std::condition_variable to_workers_, to_caller_;
  std::vector<Slot> slots_;
  Place next_;
  uint64_t taken_ = 0;     // sequence of the next tile to be taken by a thread
  uint64_t consumed_ = 0;  // and of the next one that the caller wants
  uint64_t ready_ = 0;     // tiles that are done and not consumed
  static constexpr uint64_t kNothing = UINT64_MAX;
  uint64_t awaited_ = kNothing;  // what the caller sleeps for
  Place advised_;
  uint64_t advised_ahead_ = 0;  // bytes of one member, of what was advised and not taken
  bool stopping_ = false;
};

}  // namespace ckpt::average
