#include "core/format/verify.h"

#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "core/base/checksum.h"
#include "core/base/parallel.h"
#include "core/format/damage.h"
#include "core/format/zip_inflate.h"

namespace ckpt::format {
namespace {

constexpr uint64_t kUnitBytes = 4 << 20;     // where no blocks give the size
constexpr uint64_t kPieceBytes = 256 << 10;  // small enough that both checksums find it in the cache

struct FreeHashState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

/// What one thread at a time works with.
struct Scratch {
  std::vector<std::byte> buffer = std::vector<std::byte>(kPieceBytes);
  std::unique_ptr<XXH3_state_t, FreeHashState> hash{XXH3_createState()};
};

/// The CRC of the part of a record that lies in a unit.
struct Part {
  uint32_t crc = 0;
  uint64_t bytes = 0;
};

/// Parts of records that reach beyond the unit: what began before it, and what goes on after it.
struct Edges {
  Part first, last;
};

class Checker {
 public:
  Checker(const io::File& file, uint64_t file_bytes, const BlockHashes* hashes, const ZipReader* zip)
      : file_(file), file_bytes_(file_bytes), hashes_(hashes), zip_(zip) {
    if (hashes_ && hashes_->block_bytes != 0) unit_bytes_ = hashes_->block_bytes;
    units_ = static_cast<size_t>(file_bytes_ / unit_bytes_ + (file_bytes_ % unit_bytes_ != 0));
    if (zip_ && !zip_->crcs_absent()) {
      for (const ZipRecord& record : zip_->records()) {
        if (!record.deflated) stored_.push_back(&record);
      }
    }
    edges_.resize(stored_.empty() ? 0 : units_);
    findings_.bad_blocks.assign(hashes_ ? hashes_->xxh3_64.size() : 0, 0);
    findings_.bad_records.assign(zip_ ? zip_->records().size() : 0, 0);
  }

  Findings run(unsigned threads) {
    std::vector<const ZipRecord*> deflated;
    if (zip_ && !zip_->crcs_absent()) {
      for (const ZipRecord& record : zip_->records()) {
        if (record.deflated) deflated.push_back(&record);
      }
    }
    parallel_for(units_ + deflated.size(), threads, [&](size_t i) {
      if (i < units_)
        check_unit(i);
      else
        check_deflated(*deflated[i - units_]);
    });
    combine_parts();
    return std::move(findings_);
  }

 private:
  void check_unit(size_t unit);
  void add_piece(size_t unit, uint64_t begin, ByteView piece, size_t& next, Part& part);
  void check_deflated(const ZipRecord& record);
  void combine_parts();
  void finish(const ZipRecord& record, uint32_t crc) {
    if (crc != record.crc) findings_.bad_records[static_cast<size_t>(&record - zip_->records().data())] = 1;
  }
  std::unique_ptr<Scratch> take_scratch();

  const io::File& file_;
  uint64_t file_bytes_;
  const BlockHashes* hashes_;
  const ZipReader* zip_;
  uint64_t unit_bytes_ = kUnitBytes;
  size_t units_ = 0;
  std::vector<const ZipRecord*> stored_;  // in the order of the file
  std::vector<Edges> edges_;              // one for each unit
  Findings findings_;                     // threads write to different elements
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

std::unique_ptr<Scratch> Checker::take_scratch() {
  std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<Scratch>();
  std::unique_ptr<Scratch> scratch = std::move(idle_.back());
  idle_.pop_back();
  return scratch;
}

void Checker::check_unit(size_t unit) {
  const uint64_t begin = unit * unit_bytes_;
  const uint64_t end = std::min(file_bytes_, begin + std::min(unit_bytes_, file_bytes_ - begin));
  // The block's end as the manifest has it; a block that the file does not hold whole is damage of its size.
  const bool hashed = hashes_ && unit < findings_.bad_blocks.size();
  const uint64_t hash_end =
      hashed ? begin + std::min(unit_bytes_, hashes_->bytes - std::min(hashes_->bytes, begin)) : 0;
  auto scratch = take_scratch();
  if (hashed) XXH3_64bits_reset(scratch->hash.get());
  const auto first = std::upper_bound(stored_.begin(), stored_.end(), begin, [](uint64_t at, const ZipRecord* record) {
    return at < record->data_offset + record->stored_bytes;
  });
  auto next = static_cast<size_t>(first - stored_.begin());
  Part part;
  for (uint64_t at = begin; at < end; at += kPieceBytes) {
    const auto bytes = static_cast<size_t>(std::min(kPieceBytes, end - at));
    const auto piece = std::span(scratch->buffer.data(), bytes);
    file_.read_at(at, piece);
    if (hashed && at < hash_end) {
      XXH3_64bits_update(scratch->hash.get(), piece.data(),
                         static_cast<size_t>(std::min<uint64_t>(bytes, hash_end - at)));
    }
    if (!stored_.empty()) add_piece(unit, at, piece, next, part);
  }
  if (part.bytes != 0) {
    const bool began_before = stored_[next]->data_offset < begin;
    (began_before ? edges_[unit].first : edges_[unit].last) = part;
  }
  if (hashed && hash_end <= file_bytes_ && XXH3_64bits_digest(scratch->hash.get()) != hashes_->xxh3_64[unit]) {
    findings_.bad_blocks[unit] = 1;
  }
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(scratch));
}

/// Goes on with the records that have bytes in `piece`: `next` is the first that does not end before it, `part` what
/// was seen of it in this unit.
void Checker::add_piece(size_t unit, uint64_t begin, ByteView piece, size_t& next, Part& part) {
  const uint64_t end = begin + piece.size();
  while (next < stored_.size() && stored_[next]->data_offset < end) {
    const ZipRecord& record = *stored_[next];
    const uint64_t from = std::max(record.data_offset, begin);
    const uint64_t record_end = record.data_offset + record.stored_bytes;
    const uint64_t to = std::min(record_end, end);
    if (from < to) {
      part.crc = crc32(piece.subspan(static_cast<size_t>(from - begin), static_cast<size_t>(to - from)), part.crc);
      part.bytes += to - from;
    }
    if (record_end > end) return;
    if (part.bytes == record.stored_bytes)
      finish(record, part.crc);
    else
      edges_[unit].first = part;
    part = {};
    ++next;
  }
}

void Checker::check_deflated(const ZipRecord& record) {
  uint32_t crc = 0;
  try {
    inflate_record(file_, record, [&](ByteView piece) { crc = crc32(piece, crc); });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) throw;
    crc = ~record.crc;
  }
  finish(record, crc);
}

void Checker::combine_parts() {
  for (const ZipRecord* record : stored_) {
    if (record->stored_bytes == 0) {
      finish(*record, 0);
      continue;
    }
    const auto first = static_cast<size_t>(record->data_offset / unit_bytes_);
    const auto last = static_cast<size_t>((record->data_offset + record->stored_bytes - 1) / unit_bytes_);
    if (first == last) continue;
    uint32_t crc = edges_[first].last.crc;
    for (size_t unit = first + 1; unit <= last; ++unit) {
      crc = crc32_combine(crc, edges_[unit].first.crc, edges_[unit].first.bytes);
    }
    finish(*record, crc);
  }
}

}  // namespace

std::vector<Damage> check_file(const io::File& file, const BlockHashes* hashes, const ZipReader* zip,
                               std::vector<NamedTensor> tensors, unsigned threads) {
  const uint64_t file_bytes = file.stat().bytes;
  if (hashes && hashes->bytes != 0 && (hashes->xxh3_64.empty() || hashes->block_bytes == 0)) hashes = nullptr;
  Findings findings;
  std::vector<Damage> damages;
  try {
    findings = Checker(file, file_bytes, hashes, zip).run(threads);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) throw;
    damages.push_back({.offset = error.offset().value_or(0), .reason = error.message()});  // it shrank meanwhile
    return damages;
  }
  return locate_damage(findings, file_bytes, hashes, zip, std::move(tensors));
}

}  // namespace ckpt::format
