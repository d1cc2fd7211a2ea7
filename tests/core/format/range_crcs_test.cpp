#include "core/format/range_crcs.h"

#include <gtest/gtest.h>

#include <random>

#include "core/base/checksum.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

class RangeCrcsTest : public testing::Test {
 protected:
  RangeCrcsTest() {
    std::mt19937_64 random(1);
    for (char& c : bytes_) c = static_cast<char>(random());
    // Some in one unit of 4 MiB, some over its border, one over three units, an empty one, gaps between.
    for (const auto& [begin, end] : {std::pair(0, 10),
                                     {10, 11},
                                     {4000, 300000},
                                     {4194300, 4194310},
                                     {4194310, 4194310},
                                     {4194400, 9000000},
                                     {9000001, 9000064},
                                     {9100000, 9437184}}) {
      const auto size = static_cast<size_t>(end - begin);
      ranges_.push_back({static_cast<uint64_t>(begin), size,
                         crc32(as_bytes(std::string_view(bytes_).substr(static_cast<size_t>(begin), size)))});
    }
  }
  std::vector<uint8_t> wrong(const std::string& bytes, std::vector<ChecksummedRange> ranges) {
    std::filesystem::remove(dir_ / "f");
    test::write_all(dir_ / "f", bytes);
    return find_wrong_ranges(io::File::open(dir_ / "f"), std::move(ranges), 2);
  }

  test::TempDir dir_;
  std::string bytes_ = std::string(9 << 20, '\0');
  std::vector<ChecksummedRange> ranges_;
};

TEST_F(RangeCrcsTest, WholeRangesAreNotWrong) {
  EXPECT_EQ(wrong(bytes_, ranges_), std::vector<uint8_t>(ranges_.size(), 0));
  EXPECT_TRUE(wrong(bytes_, {}).empty());
}

TEST_F(RangeCrcsTest, TheRangeThatABitWasFlippedInIsWrong) {
  for (size_t i = 0; i < ranges_.size(); ++i) {
    if (ranges_[i].bytes == 0) continue;
    std::string changed = bytes_;
    changed[ranges_[i].offset + ranges_[i].bytes - 1] ^= 4;
    std::vector<uint8_t> expected(ranges_.size(), 0);
    expected[i] = 1;
    EXPECT_EQ(wrong(changed, ranges_), expected);
    EXPECT_EQ(wrong(changed, {ranges_[i]}), (std::vector<uint8_t>{1}));
  }
}

TEST_F(RangeCrcsTest, AnEmptyRangeHasTheChecksumZero) {
  ranges_[4].crc = 1;
  EXPECT_EQ(wrong(bytes_, ranges_)[4], 1);
}

TEST_F(RangeCrcsTest, AFileThatEndsBeforeIsDamage) { EXPECT_THROW(wrong(bytes_.substr(0, 9400000), ranges_), Error); }

}  // namespace
}  // namespace ckpt::format
