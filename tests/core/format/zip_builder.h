// Writes zip files field by field, so that any of them can be made to lie.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/checksum.h"

namespace ckpt::test {

inline std::string le(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += i < 8 ? static_cast<char>(value >> (8 * i)) : char{0};
  return text;
}

/// One record as PyTorch writes it: stored, sizes and CRC in a data descriptor, data at a multiple of 64.
struct ZipEntry {
  std::string name;
  std::string data;
  uint16_t flags = 0x0808;
  uint16_t method = 0;
  uint64_t bytes = 0;  ///< after inflating
  uint32_t crc = 0;
  // What the local header, the descriptor and the directory say.
  std::string local_name;
  uint16_t local_flags = 0x0808, local_method = 0, local_time = 0;
  uint32_t local_crc = 0;
  uint64_t local_stored = 0, local_bytes = 0;
  std::string local_extra;
  std::string descriptor;  ///< whole, with signature
  std::string before;      ///< bytes between the record before and this one
  uint64_t central_stored = 0, central_bytes = 0;
  std::string central_extra;
  uint16_t central_disk = 0;
  uint32_t central_attributes = 0;
  int64_t central_offset = -1;  ///< -1: where it is
};

struct ZipImage {
  std::vector<ZipEntry> entries = {};
  bool zip64 = true;  ///< with ZIP64 end record and locator, as PyTorch does
  std::string before_directory = {}, after_directory = {}, comment = {}, tail = {};
  int64_t entry_count = -1, directory_bytes = -1, directory_offset = -1;  ///< -1: as it is
  uint16_t disk = 0;
  std::string end64_override = {}, locator_override = {};  ///< whole records
  bool no_end = false;                                     ///< leave out the end record

  std::string bytes() const;
};

inline ZipEntry zip_entry(const std::string& name, const std::string& data) {
  ZipEntry entry;
  entry.name = entry.local_name = name;
  entry.data = data;
  entry.bytes = entry.central_stored = entry.central_bytes = data.size();
  entry.crc = crc32(as_bytes(data));
  if (data.empty()) {
    entry.flags = entry.local_flags = 0x0800;
  } else {
    entry.descriptor = "PK\x07\x08" + le(entry.crc, 4) + le(data.size(), 4) + le(data.size(), 4);
  }
  return entry;
}

/// The same without a descriptor, as `zip -0` writes it.
inline ZipEntry plain_entry(const std::string& name, const std::string& data) {
  ZipEntry entry = zip_entry(name, data);
  entry.flags = entry.local_flags = 0;
  entry.descriptor.clear();
  entry.local_crc = entry.crc;
  entry.local_stored = entry.local_bytes = data.size();
  return entry;
}

inline std::string ZipImage::bytes() const {
  std::string file;
  std::vector<uint64_t> offsets;
  for (const ZipEntry& entry : entries) {
    file += entry.before;
    offsets.push_back(file.size());
    file += "PK\x03\x04" + le(0, 2) + le(entry.local_flags, 2) + le(entry.local_method, 2) + le(entry.local_time, 2) +
            le(0, 2) + le(entry.local_crc, 4) + le(entry.local_stored, 4) + le(entry.local_bytes, 4) +
            le(entry.local_name.size(), 2) + le(entry.local_extra.size(), 2) + entry.local_name + entry.local_extra +
            entry.data + entry.descriptor;
  }
  file += before_directory;
  const uint64_t directory = file.size();
  for (size_t i = 0; i < entries.size(); ++i) {
    const ZipEntry& entry = entries[i];
    const uint64_t offset = entry.central_offset < 0 ? offsets[i] : static_cast<uint64_t>(entry.central_offset);
    file += "PK\x01\x02" + le(0, 2) + le(0, 2) + le(entry.flags, 2) + le(entry.method, 2) + le(0, 4) +
            le(entry.crc, 4) + le(entry.central_stored, 4) + le(entry.central_bytes, 4) + le(entry.name.size(), 2) +
            le(entry.central_extra.size(), 2) + le(0, 2) + le(entry.central_disk, 2) + le(0, 2) +
            le(entry.central_attributes, 4) + le(offset, 4) + entry.name + entry.central_extra;
  }
  const uint64_t size = directory_bytes < 0 ? file.size() - directory : static_cast<uint64_t>(directory_bytes);
  const uint64_t start = directory_offset < 0 ? directory : static_cast<uint64_t>(directory_offset);
  const uint64_t count = entry_count < 0 ? entries.size() : static_cast<uint64_t>(entry_count);
  file += after_directory;
  if (zip64) {
    const uint64_t end64 = file.size();
    file += !end64_override.empty() ? end64_override
                                    : "PK\x06\x06" + le(44, 8) + le(798, 2) + le(45, 2) + le(0, 8) + le(count, 8) +
                                          le(count, 8) + le(size, 8) + le(start, 8);
    file += !locator_override.empty() ? locator_override : "PK\x06\x07" + le(0, 4) + le(end64, 8) + le(1, 4);
  }
  if (no_end) return file;
  file += "PK\x05\x06" + le(disk, 2) + le(disk, 2) + le(count, 2) + le(count, 2) + le(size, 4) + le(start, 4) +
          le(comment.size(), 2) + comment + tail;
  return file;
}

inline ZipImage three_records() {
  return {.entries = {zip_entry("a/data.pkl", "pickle"), zip_entry("a/data/0", std::string(100, 'x')),
                      zip_entry("a/data/1", "")}};
}

inline std::string deflated(const std::string& data) {
  std::string packed(compressBound(data.size()) + 64, '\0');
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string input = data;
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(packed.size() - stream.avail_out);
  deflateEnd(&stream);
  return packed;
}

inline ZipEntry deflated_entry(const std::string& name, const std::string& data) {
  ZipEntry entry = zip_entry(name, deflated(data));
  entry.method = entry.local_method = 8;
  entry.central_bytes = data.size();
  entry.crc = crc32(as_bytes(data));
  entry.descriptor = "PK\x07\x08" + le(entry.crc, 4) + le(entry.central_stored, 4) + le(data.size(), 4);
  return entry;
}

}  // namespace ckpt::test
