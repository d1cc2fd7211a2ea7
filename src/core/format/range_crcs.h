// CRC-32s of ranges of a file, computed by threads that each see another part of it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/bytes.h"
#include "core/format/checksummed_range.h"
#include "core/io/file.h"

namespace ckpt::format {

/// The file is cut into units, each of which one thread goes through; ranges may reach over many units, and many may
/// lie in one.
///
/// Thread rule: units may be gone through in parallel; wrong() is called when all are done.
class RangeCrcs {
 public:
  /// `ranges`: in the order of the file, without overlap, all within its `file_bytes`.
  RangeCrcs(std::vector<ChecksummedRange> ranges, uint64_t file_bytes, uint64_t unit_bytes);

  bool empty() const { return ranges_.empty(); }

  /// What is seen of one unit.
  class Unit {
   public:
    Unit(RangeCrcs& crcs, size_t unit);
    /// Whether a range has bytes in [begin, end), which is not before what was given to add().
    bool wants(uint64_t begin, uint64_t end) const;
    /// The bytes at `begin`, behind those of the last call. What wants() refused may be left out.
    void add(uint64_t begin, ByteView piece);
    void finish();

   private:
    RangeCrcs& crcs_;
    size_t unit_;
    size_t next_;  // the first range that does not end before what was seen
    uint32_t crc_ = 0;
    uint64_t bytes_ = 0;  // of that range that were seen in this unit
  };

  /// For each range whether its CRC is another one; a byte each.
  std::vector<uint8_t> wrong();

 private:
  struct Part {
    uint32_t crc = 0;
    uint64_t bytes = 0;
  };
  /// Parts of ranges that reach beyond a unit: what began before it, and what goes on after it.
  struct Edges {
    Part first, last;
  };
  void finish(size_t range, uint32_t crc) { wrong_[range] = crc != ranges_[range].crc; }

  std::vector<ChecksummedRange> ranges_;
  uint64_t unit_bytes_;
  std::vector<Edges> edges_;    // one for each unit
  std::vector<uint8_t> wrong_;  // threads write to different elements
};

/// For each of `ranges` (as RangeCrcs takes them) whether its CRC is another one. Reads little else of the file, on at
/// most `threads` threads. kCorrupt where the file ends before.
std::vector<uint8_t> find_wrong_ranges(const io::File& file, std::vector<ChecksummedRange> ranges, unsigned threads);

}  // namespace ckpt::format
