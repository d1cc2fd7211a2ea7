// Checksums: CRC-32 as in zip (libdeflate), XXH3 as in manifests (xxHash).
#pragma once

#include <cstdint>
#include <string>

#include "core/base/bytes.h"

namespace ckpt {

/// CRC-32 (IEEE, as zip uses it) of `bytes`, going on from `crc` (0 at the start).
uint32_t crc32(ByteView bytes, uint32_t crc = 0);

/// The CRC-32 of A followed by B from those of A and B.
uint32_t crc32_combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_of_b);

uint64_t xxh3_64(ByteView bytes);

/// XXH3-128 as 32 lower-case hex digits, high half first (as `xxhsum -H2` prints it).
std::string xxh3_128_hex(ByteView bytes);

/// 16 lower-case hex digits.
std::string to_hex(uint64_t value);

}  // namespace ckpt
