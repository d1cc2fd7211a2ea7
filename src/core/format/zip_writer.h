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
#include "core/format/zip_wire.h"
#include "core/io/block_writer.h"

namespace ckpt::format {

class ZipWriter {
 public:
  /// `writer` is at the start of its file. `top_folder`: UTF-8, one name.
  ZipWriter(io::BlockWriter& writer, std::string top_folder);

  /// Appends a record. Names are the caller's care: UTF-8, each once. kInvalid for one of more than 65,535 bytes;
  /// kInternal where `data.produce` gives another count of bytes than it said.
  void add(std::string_view name, const BytesToWrite& data);
  /// Of a text that need not outlive the call.
  void add_text(std::string_view name, std::string_view text);
  /// 40 digits that tell files of different content apart, as torch writes them into `.data/serialization_id`: made of
  /// the names and CRCs of the records added so far.
  std::string content_id() const;
  /// The central directory. Nothing may be added afterwards.
  void finish();

 private:
  void append(std::string_view bytes);
  void begin(std::string_view name, uint64_t bytes);
  void end(uint32_t crc);

  io::BlockWriter& writer_;
  std::string top_;
  uint64_t position_ = 0;
  std::vector<zip::WrittenRecord> records_;
};

}  // namespace ckpt::format
