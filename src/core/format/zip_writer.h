// Writes a zip file as PyTorch does: one top folder, stored records, sizes and CRC in data descriptors (flag 0x08),
// ZIP64 where a size, offset or count needs it, each record's data aligned to 64 bytes by an extra field "FB". All
// CRC-32s are true. The same input gives the same bytes: no times.
//
// Layout: see zip_reader.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/bytes_to_write.h"
#include "core/io/block_writer.h"

namespace ckpt::format {

class ZipWriter {
 public:
  /// `top_folder`: UTF-8, one name.
  ZipWriter(io::BlockWriter& writer, std::string top_folder);

  /// Appends a record. kInternal where `data.produce` gives another count of bytes than it said.
  void add(std::string_view name, const BytesToWrite& data);
  /// The central directory. Nothing may be added afterwards.
  void finish();

 private:
  struct Entry {
    std::string name;
    uint64_t header_offset = 0;
    uint64_t bytes = 0;
    uint32_t crc = 0;
  };
  io::BlockWriter& writer_;
  std::string top_;
  uint64_t position_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace ckpt::format
