#include "core/format/range_crcs.h"

#include <algorithm>
#include <memory>

#include "core/base/checksum.h"
#include "core/base/parallel.h"

namespace ckpt::format {
namespace {

constexpr uint64_t kUnitBytes = 4 << 20;
constexpr uint64_t kPieceBytes = 256 << 10;  // small enough to stay in the cache

}  // namespace

RangeCrcs::RangeCrcs(std::vector<ChecksummedRange> ranges, uint64_t file_bytes, uint64_t unit_bytes)
    : ranges_(std::move(ranges)), unit_bytes_(unit_bytes) {
  if (!ranges_.empty()) edges_.resize(static_cast<size_t>(file_bytes / unit_bytes + 1));
  wrong_.assign(ranges_.size(), 0);
}

RangeCrcs::Unit::Unit(RangeCrcs& crcs, size_t unit) : crcs_(crcs), unit_(unit) {
  const auto& ranges = crcs_.ranges_;
  const auto first =
      std::upper_bound(ranges.begin(), ranges.end(), unit * crcs_.unit_bytes_,
                       [](uint64_t at, const ChecksummedRange& range) { return at < range.offset + range.bytes; });
  next_ = static_cast<size_t>(first - ranges.begin());
}

bool RangeCrcs::Unit::wants(uint64_t begin, uint64_t end) const {
  const auto& ranges = crcs_.ranges_;
  return next_ < ranges.size() && ranges[next_].offset < end && begin < end;
}

void RangeCrcs::Unit::add(uint64_t begin, ByteView piece) {
  const auto& ranges = crcs_.ranges_;
  const uint64_t end = begin + piece.size();
  while (next_ < ranges.size() && ranges[next_].offset < end) {
    const ChecksummedRange& range = ranges[next_];
    const uint64_t from = std::max(range.offset, begin);
    const uint64_t range_end = range.offset + range.bytes;
    const uint64_t to = std::min(range_end, end);
    if (from < to) {
      crc_ = crc32(piece.subspan(static_cast<size_t>(from - begin), static_cast<size_t>(to - from)), crc_);
      bytes_ += to - from;
    }
    if (range_end > end) return;
    if (bytes_ == range.bytes)
      crcs_.finish(next_, crc_);
    else
      crcs_.edges_[unit_].first = {crc_, bytes_};
    crc_ = 0;
    bytes_ = 0;
    ++next_;
  }
}

void RangeCrcs::Unit::finish() {
  if (bytes_ == 0) return;
  const bool began_before = crcs_.ranges_[next_].offset < unit_ * crcs_.unit_bytes_;
  (began_before ? crcs_.edges_[unit_].first : crcs_.edges_[unit_].last) = {crc_, bytes_};
}

std::vector<uint8_t> RangeCrcs::wrong() {
  for (size_t i = 0; i < ranges_.size(); ++i) {
    const ChecksummedRange& range = ranges_[i];
    if (range.bytes == 0) {
      finish(i, 0);
      continue;
    }
    const auto first = static_cast<size_t>(range.offset / unit_bytes_);
    const auto last = static_cast<size_t>((range.offset + range.bytes - 1) / unit_bytes_);
    if (last >= edges_.size()) wrong_[i] = 1;  // the file has become shorter
    if (first == last || last >= edges_.size()) continue;
    uint32_t crc = edges_[first].last.crc;
    for (size_t unit = first + 1; unit <= last; ++unit) {
      crc = crc32_combine(crc, edges_[unit].first.crc, edges_[unit].first.bytes);
    }
    finish(i, crc);
  }
  return std::move(wrong_);
}

std::vector<uint8_t> find_wrong_ranges(const io::File& file, std::vector<ChecksummedRange> ranges, unsigned threads) {
  if (ranges.empty()) return {};
  const uint64_t end = ranges.back().offset + ranges.back().bytes;
  std::vector<size_t> units;
  for (const ChecksummedRange& range : ranges) {
    const auto last = static_cast<size_t>((range.offset + std::max<uint64_t>(range.bytes, 1) - 1) / kUnitBytes);
    size_t unit = static_cast<size_t>(range.offset / kUnitBytes);
    if (!units.empty()) unit = std::max(unit, units.back() + 1);
    for (; unit <= last; ++unit) units.push_back(unit);
  }
  RangeCrcs crcs(std::move(ranges), end, kUnitBytes);
  parallel_for(units.size(), threads, [&](size_t i) {
    const std::unique_ptr<std::byte[]> buffer(new std::byte[kPieceBytes]);
    RangeCrcs::Unit unit(crcs, units[i]);
    const uint64_t begin = units[i] * kUnitBytes;
    const uint64_t unit_end = begin + std::min(kUnitBytes, end - std::min(end, begin));
    for (uint64_t at = begin; at < unit_end; at += kPieceBytes) {
      const std::span piece(buffer.get(), static_cast<size_t>(std::min(kPieceBytes, unit_end - at)));
      if (!unit.wants(at, at + piece.size())) continue;
      file.read_at(at, piece);
      unit.add(at, piece);
    }
    unit.finish();
  });
  return crcs.wrong();
}

}  // namespace ckpt::format
