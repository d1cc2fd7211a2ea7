#include "core/format/verify.h"

#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "core/base/checksum.h"
#include "core/base/parallel.h"
#include "core/format/damage.h"
#include "core/format/range_crcs.h"
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

class Checker {
 public:
  Checker(const io::File& file, uint64_t file_bytes, const BlockHashes* hashes, const ZipReader* zip)
      : file_(file), file_bytes_(file_bytes), hashes_(hashes), zip_(zip) {
    if (hashes_ && hashes_->block_bytes != 0) unit_bytes_ = hashes_->block_bytes;
    units_ = static_cast<size_t>(file_bytes_ / unit_bytes_ + (file_bytes_ % unit_bytes_ != 0));
    if (zip_ && !zip_->crcs_absent()) list_records();
    findings_.bad_blocks.assign(hashes_ ? hashes_->xxh3_64.size() : 0, 0);
    findings_.bad_records.assign(zip_ ? zip_->records().size() : 0, 0);
  }

  Findings run(unsigned threads) {
    RangeCrcs crcs(std::move(ranges_), file_bytes_, unit_bytes_);
    parallel_for(units_ + deflated_.size(), threads, [&](size_t i) {
      if (i < units_)
        check_unit(crcs, i);
      else
        check_deflated(deflated_[i - units_]);
    });
    const std::vector<uint8_t> wrong = crcs.wrong();
    for (size_t i = 0; i < wrong.size(); ++i) findings_.bad_records[stored_[i]] = wrong[i];
    return std::move(findings_);
  }

 private:
  void list_records();
  void check_unit(RangeCrcs& crcs, size_t unit);
  void check_deflated(size_t record);
  std::unique_ptr<Scratch> take_scratch();

  const io::File& file_;
  uint64_t file_bytes_;
  const BlockHashes* hashes_;
  const ZipReader* zip_;
  uint64_t unit_bytes_ = kUnitBytes;
  size_t units_ = 0;
  std::vector<size_t> stored_, deflated_;  // records of each kind, by place
  std::vector<ChecksummedRange> ranges_;   // of the stored ones
  Findings findings_;                      // threads write to different elements
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

void Checker::list_records() {
  for (size_t i = 0; i < zip_->records().size(); ++i) {
    const ZipRecord& record = zip_->records()[i];
    if (record.deflated) {
      deflated_.push_back(i);
      continue;
    }
    stored_.push_back(i);
    ranges_.push_back({record.data_offset, record.stored_bytes, record.crc});
  }
}

void Checker::check_unit(RangeCrcs& crcs, size_t unit) {
  const uint64_t begin = unit * unit_bytes_;
  const uint64_t end = std::min(file_bytes_, begin + std::min(unit_bytes_, file_bytes_ - begin));
  // The block's end as the manifest has it; a block that the file does not hold whole is damage of its size.
  const bool hashed = hashes_ && unit < findings_.bad_blocks.size();
  const uint64_t hash_end =
      hashed ? begin + std::min(unit_bytes_, hashes_->bytes - std::min(hashes_->bytes, begin)) : 0;
  auto scratch = take_scratch();
  if (hashed) XXH3_64bits_reset(scratch->hash.get());
  RangeCrcs::Unit records(crcs, unit);
  for (uint64_t at = begin; at < end; at += kPieceBytes) {
    const auto bytes = static_cast<size_t>(std::min(kPieceBytes, end - at));
    const auto piece = std::span(scratch->buffer.data(), bytes);
    file_.read_at(at, piece);
    if (hashed && at < hash_end) {
      XXH3_64bits_update(scratch->hash.get(), piece.data(),
                         static_cast<size_t>(std::min<uint64_t>(bytes, hash_end - at)));
    }
    records.add(at, piece);
  }
  records.finish();
  if (hashed && hash_end <= file_bytes_ && XXH3_64bits_digest(scratch->hash.get()) != hashes_->xxh3_64[unit]) {
    findings_.bad_blocks[unit] = 1;
  }
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(scratch));
}

void Checker::check_deflated(size_t place) {
  const ZipRecord& record = zip_->records()[place];
  uint32_t crc = 0;
  try {
    inflate_record(file_, record, [&](ByteView piece) { crc = crc32(piece, crc); });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) throw;
    crc = ~record.crc;
  }
  findings_.bad_records[place] = crc != record.crc;
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
