// A part of a file whose checksum is known.
#pragma once

#include <cstdint>

namespace ckpt::format {

struct ChecksummedRange {
  uint64_t offset = 0;  ///< in the file
  uint64_t bytes = 0;
  uint32_t crc = 0;  ///< CRC-32
};

}  // namespace ckpt::format
