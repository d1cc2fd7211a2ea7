#include "core/format/verify.h"

#include <gtest/gtest.h>

#include "core/base/checksum.h"
#include "core/format/archive.h"
#include "core/format/safetensors.h"
#include "core/format/zip_builder.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

constexpr uint64_t kBlock = 1024;

BlockHashes hashes_of(const std::string& bytes) {
  BlockHashes hashes{.bytes = bytes.size(), .block_bytes = kBlock, .xxh3_64 = {}};
  for (size_t at = 0; at < bytes.size(); at += kBlock) {
    hashes.xxh3_64.push_back(xxh3_64(as_bytes(std::string_view(bytes).substr(at, kBlock))));
  }
  return hashes;
}

class VerifyTest : public testing::Test {
 protected:
  static std::string golden(const std::string& name) {
    return test::read_all(std::string(CKPT_TEST_DATA) + "/archives/" + name + ".pt");
  }
  io::File file_of(const std::string& bytes) {
    std::filesystem::remove(dir_ / "f");  // ext4 flushes a file that was cut to be written again
    test::write_all(dir_ / "f", bytes);
    return io::File::open(dir_ / "f");
  }
  /// Checks `changed` with the hashes of `whole`, and as a zip where it can be read as one.
  std::vector<Damage> check(const std::string& changed, const BlockHashes* hashes) {
    const io::File file = file_of(changed);
    try {
      const ArchiveFile archive = ArchiveFile::open(file_of(changed));
      return check_file(archive.file(), hashes, archive.zip(), tensors_of(archive.root()), 2);
    } catch (const Error& error) {
      refused_ = true;
      return check_file(file, hashes, nullptr, {}, 2);
    }
  }

  test::TempDir dir_;
  bool refused_ = false;
};

/// A zip whose records cross many of the units that are checked apart.
test::ZipImage large_zip() {
  std::string big(3 * kBlock + 700, '\0');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 7 + i / 256);
  return {.entries = {test::zip_entry("a/small", "0123456789"), test::zip_entry("a/big", big),
                      test::zip_entry("a/none", ""), test::zip_entry("a/exact", std::string(kBlock, 'e')),
                      test::zip_entry("a/last", "x")}};
}

TEST_F(VerifyTest, AWholeFileHasNoDamage) {
  for (const char* name : {"tensors-1.13.1", "adam-2.13.0", "model-2.13.0"}) {
    const std::string bytes = golden(name);
    const BlockHashes hashes = hashes_of(bytes);
    EXPECT_TRUE(check(bytes, &hashes).empty()) << name;
    EXPECT_TRUE(check(bytes, nullptr).empty()) << name;
  }
  EXPECT_FALSE(refused_);
  const BlockHashes nothing;
  EXPECT_TRUE(check_file(file_of(""), &nothing, nullptr, {}, 2).empty());
}

TEST_F(VerifyTest, EveryFlippedByteIsFoundInItsBlock) {
  const std::string whole = golden("tensor_list-2.13.0");
  const BlockHashes hashes = hashes_of(whole);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    const std::vector<Damage> damages = check(changed, &hashes);
    ASSERT_EQ(damages.size(), 1u) << at;
    EXPECT_GE(damages[0].offset, at / kBlock * kBlock) << at;
    EXPECT_LE(damages[0].offset, at) << at;
  }
}

TEST_F(VerifyTest, WithoutHashesEveryFlipInARecordIsFoundByItsCrc) {
  const std::string whole = golden("tensor_list-2.13.0");
  const io::File original = file_of(whole);
  const ZipReader zip(original);
  for (const ZipRecord& record : zip.records()) {
    for (uint64_t at = record.data_offset; at < record.data_offset + record.stored_bytes; ++at) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ 0x10);
      const io::File file = file_of(changed);
      const ZipReader damaged(file);
      const std::vector<Damage> damages = check_file(file, nullptr, &damaged, {}, 1);
      ASSERT_EQ(damages.size(), 1u) << at;
      EXPECT_EQ(damages[0].record, record.name);
      EXPECT_EQ(damages[0].offset, record.data_offset);
    }
  }
}

TEST_F(VerifyTest, WithoutHashesMostFlipsOutsideRecordsAreRefusedByTheReader) {
  const std::string whole = golden("tensor_list-1.13.1");
  const io::File original = file_of(whole);
  const ZipReader zip(original);
  // Attributes in the directory mean nothing and are repeated nowhere; neither are the kinds of extra fields.
  size_t unnoticed = 0, outside = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    const bool in_record = std::any_of(zip.records().begin(), zip.records().end(), [&](const ZipRecord& record) {
      return at >= record.data_offset && at < record.data_offset + record.stored_bytes;
    });
    if (in_record) continue;
    ++outside;
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x40);
    const io::File file = file_of(changed);
    try {
      const ZipReader damaged(file);
      if (!check_file(file, nullptr, &damaged, {}, 1).empty()) continue;
      ++unnoticed;
      const bool kind_of_extra = std::any_of(zip.records().begin(), zip.records().end(), [&](const ZipRecord& record) {
        const uint64_t extra = record.header_offset + 30 + zip.top_folder().size() + 1 + record.name.size();
        return at == extra || at == extra + 1;
      });
      EXPECT_TRUE(at >= zip.directory_offset() || kind_of_extra) << at;
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kCorrupt || error.code() == ErrorCode::kUnsupported);
    }
  }
  EXPECT_LE(unnoticed, zip.records().size() * 10 + 8);
  EXPECT_GT(outside, 1000u);
}

TEST_F(VerifyTest, NamesTheSmallestRangeRecordAndTensor) {
  const std::string whole = golden("tensors-2.13.0");
  const BlockHashes hashes = hashes_of(whole);
  const io::File original = file_of(whole);
  const ArchiveFile archive = ArchiveFile::open(dir_ / "f");
  const StoredTensor& row = *archive.root().get<StoredTensor>("base");
  std::string changed = whole;
  changed[row.file_offset + 50] ^= 1;
  const std::vector<Damage> damages = check(changed, &hashes);
  ASSERT_EQ(damages.size(), 1u);
  EXPECT_EQ(damages[0].record, "data/14");
  EXPECT_EQ(damages[0].tensor, "base");
  EXPECT_EQ(damages[0].offset, std::max(row.file_offset, row.file_offset / kBlock * kBlock));
}

TEST_F(VerifyTest, ChecksRecordsThatCrossUnits) {
  const std::string whole = large_zip().bytes();
  const BlockHashes hashes = hashes_of(whole);
  const io::File original = file_of(whole);
  const ZipReader zip(original);
  EXPECT_TRUE(check_file(original, &hashes, &zip, {}, 2).empty());
  const ZipRecord big = *zip.find("big");
  for (size_t at = 0; at < whole.size(); at += 13) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x40);
    const bool in_big = at >= big.data_offset && at < big.data_offset + big.bytes;
    const io::File file = file_of(changed);
    try {
      const ZipReader damaged(file);
      const std::vector<Damage> damages = check_file(file, &hashes, &damaged, {}, 2);
      ASSERT_EQ(damages.size(), 1u) << at;
      EXPECT_LE(damages[0].offset, at);
      if (in_big) {
        EXPECT_EQ(damages[0].record, "big");
        EXPECT_EQ(damages[0].offset, std::max<uint64_t>(big.data_offset, at / kBlock * kBlock));
      }
    } catch (const Error&) {
      EXPECT_FALSE(in_big) << at;
    }
  }
}

TEST_F(VerifyTest, ManyBadBlocksOfOneRecordAreOneDamage) {
  const std::string whole = large_zip().bytes();
  const BlockHashes hashes = hashes_of(whole);
  std::string changed = whole;
  const size_t begin = changed.find(large_zip().entries[1].data);
  std::fill_n(changed.begin() + static_cast<ptrdiff_t>(begin), 3 * kBlock + 700, '\0');
  const io::File file = file_of(changed);
  const ZipReader zip(file);
  const std::vector<Damage> damages = check_file(file, &hashes, &zip, {}, 2);
  ASSERT_EQ(damages.size(), 1u);
  EXPECT_EQ(damages[0].record, "big");
  EXPECT_EQ(damages[0].offset, begin);
}

TEST_F(VerifyTest, TruncationAndGrowthAreDamageWhereTheyBegin) {
  const std::string whole = golden("tensors-2.13.0");
  const BlockHashes hashes = hashes_of(whole);
  for (const std::string& changed : {whole.substr(0, 1500), whole.substr(0, 0), whole + "more"}) {
    const std::vector<Damage> damages = check_file(file_of(changed), &hashes, nullptr, {}, 2);
    ASSERT_EQ(damages.size(), 1u) << changed.size();
    EXPECT_EQ(damages[0].offset, std::min(changed.size(), whole.size()));
  }
  const BlockHashes empty{.bytes = 0, .block_bytes = kBlock, .xxh3_64 = {}};
  EXPECT_EQ(check_file(file_of("x"), &empty, nullptr, {}, 1).size(), 1u);
}

TEST_F(VerifyTest, NamesTensorsOfOtherFormatsByTheirPlace) {
  std::vector<NamedTensor> tensors;
  for (int i = 0; i < 3; ++i) {
    StoredTensor tensor;
    tensor.shape = {2000};
    tensor.strides = {1};
    tensor.elements = 2000;
    tensor.bytes = tensor.storage_bytes = 8000;
    tensor.file_offset = tensor.storage_offset = static_cast<uint64_t>(100 + 8000 * i);
    tensors.push_back({"t" + std::to_string(i), tensor});
  }
  std::string bytes(24100, 'd');
  const BlockHashes hashes = hashes_of(bytes);
  bytes[12000] = 'D';
  const std::vector<Damage> damages = check_file(file_of(bytes), &hashes, nullptr, tensors, 2);
  ASSERT_EQ(damages.size(), 1u);
  EXPECT_EQ(damages[0].tensor, "t1");
  EXPECT_EQ(damages[0].offset, 12000 / kBlock * kBlock);
}

}  // namespace
}  // namespace ckpt::format
