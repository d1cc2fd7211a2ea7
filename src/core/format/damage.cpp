#include "core/format/damage.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace ckpt::format {
namespace {

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
};

Range data_of(const ZipRecord& record) { return {record.data_offset, record.data_offset + record.stored_bytes}; }

class Locator {
 public:
  Locator(const Findings& findings, const ZipReader* zip, std::vector<NamedTensor> tensors)
      : findings_(findings), zip_(zip), tensors_(std::move(tensors)) {
    std::stable_sort(tensors_.begin(), tensors_.end(), [](const NamedTensor& a, const NamedTensor& b) {
      return a.stored.storage_offset < b.stored.storage_offset;
    });
  }

  /// `block` has a wrong hash.
  void add_block(Range block);
  /// Records with a wrong CRC that no bad block explained.
  void add_other_records();
  std::vector<Damage> take() {
    std::stable_sort(damages_.begin(), damages_.end(),
                     [](const Damage& a, const Damage& b) { return a.offset < b.offset; });
    return std::move(damages_);
  }
  void add(Range range, const std::string& record, const std::string& reason) {
    damages_.push_back({.record = record, .tensor = tensor_in(range), .offset = range.begin, .reason = reason});
  }

 private:
  bool is_bad(const ZipRecord& record) const { return findings_.bad_records[index(record)] != 0; }
  size_t index(const ZipRecord& record) const { return static_cast<size_t>(&record - zip_->records().data()); }
  void add_block_of_good_records(Range block, size_t first);
  std::string tensor_in(Range range) const;

  const Findings& findings_;
  const ZipReader* zip_;
  std::vector<NamedTensor> tensors_;  // by storage
  std::vector<Damage> damages_;
  uint64_t last_block_end_ = 0;
  std::vector<uint8_t> explained_ = std::vector<uint8_t>(findings_.bad_records.size(), 0);
};

/// The first tensor with an element in `range`, else the first whose storage it touches.
std::string Locator::tensor_in(Range range) const {
  // Storages do not overlap, so those that end after the range's begin are behind those that end before.
  auto at = std::partition_point(tensors_.begin(), tensors_.end(), [&](const NamedTensor& named) {
    return named.stored.storage_offset + named.stored.storage_bytes <= range.begin;
  });
  const NamedTensor* in_storage = nullptr;
  for (; at != tensors_.end() && at->stored.storage_offset < range.end; ++at) {
    const StoredTensor& tensor = at->stored;
    const bool inside =
        tensor.contiguous() && tensor.file_offset < range.end && range.begin < tensor.file_offset + tensor.bytes;
    if (inside) return at->name;
    if (!in_storage) in_storage = &*at;
  }
  return in_storage ? in_storage->name : "";
}

void Locator::add_block(Range block) {
  if (!zip_) return add(block, "", "its bytes are not those that were written");
  const std::vector<ZipRecord>& records = zip_->records();
  const auto first = std::partition_point(records.begin(), records.end(),
                                          [&](const ZipRecord& record) { return data_of(record).end <= block.begin; });
  bool found = false;
  for (auto record = first; record != records.end() && record->data_offset < block.end; ++record) {
    if (!is_bad(*record)) continue;
    found = true;
    // One damage for a run of bad blocks in one record.
    const bool goes_on = explained_[index(*record)] && last_block_end_ == block.begin;
    explained_[index(*record)] = 1;
    if (goes_on) continue;
    const Range data = data_of(*record);
    add({std::max(data.begin, block.begin), std::min(data.end, block.end)}, record->name,
        "its bytes are not those that were written");
  }
  last_block_end_ = block.end;
  if (!found) add_block_of_good_records(block, static_cast<size_t>(first - records.begin()));
}

/// The records' CRCs are right (or absent), so the damage is in the headers, padding or directory of the block.
void Locator::add_block_of_good_records(Range block, size_t first) {
  const std::vector<ZipRecord>& records = zip_->records();
  const bool single = first < records.size() && data_of(records[first]).begin <= block.begin &&
                      data_of(records[first]).end >= block.end;
  if (zip_->crcs_absent() || single) {
    return add(block, single ? records[first].name : "", "its bytes are not those that were written");
  }
  uint64_t gap = block.begin;
  for (size_t i = first; i < records.size() && records[i].data_offset <= gap; ++i)
    gap = std::max(gap, data_of(records[i]).end);
  // Whose header it is can be told where the block holds no other.
  const auto next = std::partition_point(records.begin(), records.end(),
                                         [&](const ZipRecord& record) { return record.data_offset <= gap; });
  const bool only = next != records.end() && data_of(*next).end >= block.end;
  damages_.push_back({.record = only ? next->name : "",
                      .offset = gap,
                      .reason = "headers, padding or directory between the records are not what was written"});
}

void Locator::add_other_records() {
  for (size_t i = 0; i < findings_.bad_records.size(); ++i) {
    if (!findings_.bad_records[i] || explained_[i]) continue;
    const ZipRecord& record = zip_->records()[i];
    add(data_of(record), record.name, "its CRC is not the one stored");
  }
}

}  // namespace

std::vector<Damage> locate_damage(const Findings& findings, uint64_t file_bytes, const BlockHashes* hashes,
                                  const ZipReader* zip, std::vector<NamedTensor> tensors) {
  Locator locator(findings, zip, std::move(tensors));
  for (size_t i = 0; i < findings.bad_blocks.size(); ++i) {
    const uint64_t begin = i * hashes->block_bytes;
    if (findings.bad_blocks[i]) locator.add_block({begin, begin + std::min(hashes->block_bytes, file_bytes - begin)});
  }
  locator.add_other_records();
  if (hashes && hashes->bytes != file_bytes) {
    locator.add({std::min(hashes->bytes, file_bytes), std::max(hashes->bytes, file_bytes)}, "",
                "expected " + std::to_string(hashes->bytes) + " bytes, found " + std::to_string(file_bytes));
  }
  return locator.take();
}

}  // namespace ckpt::format
