#include "core/base/checksum.h"

#include <libdeflate.h>
#include <xxhash.h>
#include <zlib.h>

#include <limits>

// Debian's and many other libxxhash carry a build for each x86 instruction set and choose while running; this header's
// names for it are declared weak here, so that a library without it still links and runs the plain functions.
#if defined(__x86_64__) && defined(__ELF__)
#define CKPT_XXHASH_DISPATCH 1
extern "C" {
__attribute__((weak)) XXH64_hash_t XXH3_64bits_dispatch(const void* input, size_t bytes);
__attribute__((weak)) XXH128_hash_t XXH3_128bits_dispatch(const void* input, size_t bytes);
}
#endif

namespace ckpt {

uint32_t crc32(ByteView bytes, uint32_t crc) { return libdeflate_crc32(crc, bytes.data(), bytes.size()); }

uint32_t crc32_combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_of_b) {
  // zlib takes a signed length, of 32 bits on some systems: longer ones are combined in steps over zeros, whose CRC
  // contribution is linear.
  constexpr uint64_t kLongest = std::numeric_limits<z_off_t>::max();
  uint32_t crc = crc_a;
  while (bytes_of_b > kLongest) {
    crc = static_cast<uint32_t>(::crc32_combine(crc, 0, std::numeric_limits<z_off_t>::max()));
    bytes_of_b -= kLongest;
  }
  return static_cast<uint32_t>(::crc32_combine(crc, crc_b, static_cast<z_off_t>(bytes_of_b)));
}

uint64_t xxh3_64(ByteView bytes) {
#ifdef CKPT_XXHASH_DISPATCH
  if (XXH3_64bits_dispatch != nullptr) return XXH3_64bits_dispatch(bytes.data(), bytes.size());
#endif
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string xxh3_128_hex(ByteView bytes) {
#ifdef CKPT_XXHASH_DISPATCH
  if (XXH3_128bits_dispatch != nullptr) {
    XXH128_hash_t hash = XXH3_128bits_dispatch(bytes.data(), bytes.size());
    return to_hex(hash.high64) + to_hex(hash.low64);
  }
#endif
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return to_hex(hash.high64) + to_hex(hash.low64);
}

std::string to_hex(uint64_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (size_t i = 16; i-- > 0; value >>= 4) text[i] = kDigits[value & 15];
  return text;
}

}  // namespace ckpt
