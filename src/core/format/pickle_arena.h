// Where the containers of a pickle keep their items: each in one piece, that a growing arena never copies.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace ckpt::format {

/// A value of a Pickle.
using PickleNode = uint32_t;

class PickleArena {
 public:
  std::span<PickleNode> at(uint32_t place, uint64_t size) {
    return {blocks_[place / kBlock] + place % kBlock, static_cast<size_t>(size)};
  }
  std::span<const PickleNode> at(uint32_t place, uint64_t size) const {
    return {blocks_[place / kBlock] + place % kBlock, static_cast<size_t>(size)};
  }

  /// Where the next `size` items go, in one piece; they are to be written before they are read. UINT32_MAX where places
  /// would not fit their 32 bits.
  uint32_t add(uint64_t size) {
    if (size >= end_ - next_) {  // also of nothing the place must be one
      const uint64_t blocks = size / kBlock + 1;
      const uint64_t first = blocks_.size() * kBlock;
      if (first + blocks * kBlock >= UINT32_MAX) return UINT32_MAX;
      owned_.push_back(std::make_unique_for_overwrite<PickleNode[]>(static_cast<size_t>(blocks * kBlock)));
      for (uint64_t i = 0; i < blocks; ++i) blocks_.push_back(owned_.back().get() + i * kBlock);
      next_ = first;
      end_ = first + blocks * kBlock;
    }
    const auto place = static_cast<uint32_t>(next_);
    next_ += size;
    return place;
  }

  /// Makes the items added last larger where they are; false where they cannot be, or are not the last.
  bool extend(uint32_t place, uint64_t size, uint64_t larger) {
    if (place + size != next_ || larger - size > end_ - next_) return false;
    next_ += larger - size;
    return true;
  }

  uint64_t memory() const { return blocks_.size() * (kBlock * sizeof(PickleNode) + 3 * sizeof(PickleNode*)); }

 private:
  static constexpr uint64_t kBlock = 16384;
  std::vector<std::unique_ptr<PickleNode[]>> owned_;
  std::vector<PickleNode*> blocks_;  // a piece larger than a block spans several
  uint64_t next_ = 0;
  uint64_t end_ = 0;
};

}  // namespace ckpt::format
