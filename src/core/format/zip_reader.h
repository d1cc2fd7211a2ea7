// Reads the directory of a zip file as PyTorch writes it (PKZIP APPNOTE 6.3, ZIP64), checking everything that a hostile
// or damaged file could lie about before a byte of a record is used.
//
// Layout: [local header, name, extra, data [, data descriptor]]*, central directory, [ZIP64 end record and locator],
// end record. All numbers little-endian.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file.h"

namespace ckpt::format {

struct ZipRecord {
  std::string name;            ///< without the top folder
  uint64_t header_offset = 0;  ///< of the local header
  uint64_t data_offset = 0;    ///< of the first byte of data
  uint64_t stored_bytes = 0;   ///< in the file
  uint64_t bytes = 0;          ///< after inflating; the same where stored
  uint32_t crc = 0;            ///< CRC-32 of the data, as the central directory says
  bool deflated = false;
};

class ZipReader {
 public:
  /// Reads and checks the directory and every local header. kCorrupt where it is no zip or damaged; kUnsupported for
  /// encryption, methods other than stored and deflated, and several disks.
  /// Refused: truncation, counts or sizes that lie, duplicate names (also when they differ by case alone), records that
  /// overlap, entries past the end, bytes before the first record, local header and directory that disagree, more than
  /// one top folder, names that are empty, absolute, hold "..", NUL or bad UTF-8.
  explicit ZipReader(const io::File& file);

  const io::File& file() const { return file_; }
  const std::string& top_folder() const { return top_; }
  /// In the order of their data in the file.
  const std::vector<ZipRecord>& records() const { return records_; }
  /// nullptr where there is none.
  const ZipRecord* find(std::string_view name) const;
  /// Where the central directory begins.
  uint64_t directory_offset() const { return directory_offset_; }
  /// What this index takes, at most.
  uint64_t memory() const;
  /// Whether all CRCs are zero: "not computed", an option of newer torch.
  bool crcs_absent() const { return crcs_absent_; }

  /// The whole record, inflated where needed, CRC checked (unless crcs_absent()). Only for records of at most `limit`
  /// bytes (kCorrupt otherwise): the pickle and small texts.
  std::vector<std::byte> read(const ZipRecord& record, uint64_t limit) const;

 private:
  void index_names();

  const io::File& file_;
  std::string top_;
  std::vector<ZipRecord> records_;
  std::vector<uint32_t> by_name_;  // places in records_, sorted by name without regard to case
  uint64_t directory_offset_ = 0;
  bool crcs_absent_ = false;
};

/// One place that is damaged.
struct Damage {
  std::string record = {};  ///< zip record, or empty
  std::string tensor = {};  ///< or empty
  uint64_t offset = 0;      ///< where the smallest range known to be damaged begins, in the file
  std::string reason = {};
};

}  // namespace ckpt::format
