#include "core/base/checksum.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ckpt {
namespace {

std::string counting(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 131 + i / 251);
  return text;
}

TEST(Crc32, IsThatOfZip) {
  EXPECT_EQ(crc32(as_bytes("123456789")), 0xCBF43926u);
  EXPECT_EQ(crc32({}), 0u);
}

TEST(Crc32, GoesOnFromACrc) {
  const std::string text = counting(1000);
  const ByteView bytes = as_bytes(text);
  for (size_t cut : {0, 1, 7, 500, 999, 1000}) {
    EXPECT_EQ(crc32(bytes.subspan(cut), crc32(bytes.first(cut))), crc32(bytes)) << cut;
  }
}

TEST(Crc32, CombinesTwoParts) {
  const std::string text = counting(100'000);
  const ByteView bytes = as_bytes(text);
  for (size_t cut : {0, 1, 4096, 99'999, 100'000}) {
    const ByteView b = bytes.subspan(cut);
    EXPECT_EQ(crc32_combine(crc32(bytes.first(cut)), crc32(b), b.size()), crc32(bytes)) << cut;
  }
}

TEST(Crc32, CombinesLengthsBeyond32Bits) {
  // 2^33 zeros in one step are as good as in two.
  const uint32_t a = crc32(as_bytes("head"));
  const std::string zeros(1 << 20, '\0');
  uint32_t crc_zeros = crc32(as_bytes(zeros));
  uint64_t length = zeros.size();
  while (length < uint64_t{1} << 33) {
    crc_zeros = crc32_combine(crc_zeros, crc_zeros, length);
    length *= 2;
  }
  uint32_t halves = a;
  uint32_t crc_half = crc32(as_bytes(zeros));
  for (uint64_t bytes = zeros.size(); bytes < length / 2; bytes *= 2)
    crc_half = crc32_combine(crc_half, crc_half, bytes);
  for (int i = 0; i < 2; ++i) halves = crc32_combine(halves, crc_half, length / 2);
  EXPECT_EQ(crc32_combine(a, crc_zeros, length), halves);
}

// Values of xxhsum 0.8 (-H3 and -H2).
TEST(Xxh3, IsThatOfXxhsum) {
  EXPECT_EQ(xxh3_64({}), 0x2d06800538d394c2u);
  EXPECT_EQ(xxh3_64(as_bytes("a")), 0xe6c632b61e964e1fu);
  EXPECT_EQ(xxh3_128_hex({}), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(xxh3_128_hex(as_bytes("a")), "a96faf705af16834e6c632b61e964e1f");
}

TEST(Xxh3, SeesEveryByteOfALongText) {
  std::string text = counting(100'000);
  const uint64_t whole = xxh3_64(as_bytes(text));
  const std::string whole_128 = xxh3_128_hex(as_bytes(text));
  for (size_t at : {0, 63, 1024, 50'000, 99'999}) {
    text[at] ^= 1;
    EXPECT_NE(xxh3_64(as_bytes(text)), whole) << at;
    EXPECT_NE(xxh3_128_hex(as_bytes(text)), whole_128) << at;
    text[at] ^= 1;
  }
}

TEST(Hex, HasSixteenDigits) {
  EXPECT_EQ(to_hex(0), "0000000000000000");
  EXPECT_EQ(to_hex(0x0123456789abcdefu), "0123456789abcdef");
}

}  // namespace
}  // namespace ckpt
