// Files of many entries, written piece by piece: the tests measure what reading them takes.
#pragma once

#include <fstream>
#include <string>

#include "core/format/torch_builder.h"

namespace ckpt::test {

/// A zip of stored records without padding or descriptors.
class ZipFile {
 public:
  explicit ZipFile(const std::string& path) : file_(path, std::ios::binary) {}

  void add(const std::string& name, const std::string& data) { add(name, data, data.size(), crc32(as_bytes(data)), 0); }
  /// Deflated data that is said to inflate to so many bytes.
  void add_deflated(const std::string& name, const std::string& packed, uint64_t bytes, uint32_t crc) {
    add(name, packed, bytes, crc, 8);
  }
  void finish() {
    const uint64_t directory = bytes_;
    write(directory_);
    const uint64_t end = bytes_;
    write("PK\x06\x06" + le(44, 8) + le(0, 12) + le(records_, 8) + le(records_, 8) + le(directory_.size(), 8) +
          le(directory, 8) + "PK\x06\x07" + le(0, 4) + le(end, 8) + le(1, 4) + "PK\x05\x06" + le(0, 4) +
          le(0xffffffff, 4) + le(0xffffffff, 4) + le(0xffffffff, 4) + le(0, 2));
    file_.close();
  }

 private:
  void add(const std::string& record, const std::string& data, uint64_t bytes, uint32_t crc, uint64_t method) {
    const std::string name = "a/" + record;
    const std::string repeated = le(0, 2) + le(0, 2) + le(method, 2) + le(0, 4) + le(crc, 4) + le(data.size(), 4) +
                                 le(bytes, 4) + le(name.size(), 2) + le(0, 2);
    directory_ += "PK\x01\x02" + le(0, 2) + repeated + le(0, 10) + le(bytes_, 4) + name;
    write("PK\x03\x04" + repeated + name + data);
    ++records_;
  }
  void write(const std::string& bytes) {
    file_ << bytes;
    bytes_ += bytes.size();
  }

  std::ofstream file_;
  std::string directory_;
  uint64_t bytes_ = 0, records_ = 0;
};

}  // namespace ckpt::test
