#include "core/format/zip_reader.h"

#include <gtest/gtest.h>

#include "core/format/zip_builder.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using test::deflated_entry;
using test::le;
using test::plain_entry;
using test::three_records;
using test::zip_entry;
using test::ZipEntry;
using test::ZipImage;

class ZipReaderTest : public testing::Test {
 protected:
  io::File file_of(const std::string& bytes) {
    std::filesystem::remove(dir_ / "f.zip");  // ext4 flushes a file that was cut to be written again
    test::write_all(dir_ / "f.zip", bytes);
    return io::File::open(dir_ / "f.zip");
  }
  /// The code of the error that opening throws, or nothing; what else is thrown leaves.
  std::optional<ErrorCode> error_of(const std::string& bytes, bool read_all = false) {
    const io::File file = file_of(bytes);
    try {
      const ZipReader zip(file);
      for (const ZipRecord& record : zip.records()) {
        if (read_all) zip.read(record, 1 << 20);
      }
      return std::nullopt;
    } catch (const Error& error) {
      EXPECT_EQ(error.path(), file.path());
      message_ = error.what();
      return error.code();
    }
  }

  test::TempDir dir_;
  std::string message_;
};

TEST_F(ZipReaderTest, ReadsWhatPyTorchWrites) {
  const io::File file = file_of(three_records().bytes());
  const ZipReader zip(file);
  EXPECT_EQ(zip.top_folder(), "a");
  ASSERT_EQ(zip.records().size(), 3u);
  EXPECT_EQ(zip.records()[1].name, "data/0");
  EXPECT_EQ(zip.records()[1].bytes, 100u);
  EXPECT_FALSE(zip.crcs_absent());
  EXPECT_EQ(as_text(zip.read(*zip.find("data.pkl"), 6)), "pickle");
  EXPECT_TRUE(zip.read(*zip.find("data/1"), 0).empty());
  EXPECT_EQ(zip.find("data/2"), nullptr);
  EXPECT_EQ(zip.find("DATA.pkl"), nullptr);
  EXPECT_THROW(zip.read(*zip.find("data.pkl"), 5), Error);
}

TEST_F(ZipReaderTest, ReadsWhatOtherWritersWrite) {
  ZipImage plain{.entries = {plain_entry("m/", ""), plain_entry("m/b", "12"), plain_entry("m/a", "345")},
                 .zip64 = false};
  plain.comment = "a comment";
  std::swap(plain.entries[1].central_extra, plain.entries[1].local_extra);
  plain.entries[1].local_extra = "UT" + le(5, 2) + std::string(5, '\x01');
  const io::File file = file_of(plain.bytes());
  const ZipReader zip(file);
  ASSERT_EQ(zip.records().size(), 2u);  // a folder's entry is no record
  EXPECT_EQ(as_text(zip.read(*zip.find("a"), 10)), "345");

  ZipImage unsigned_descriptor = three_records();
  unsigned_descriptor.entries[0].descriptor.erase(0, 4);
  EXPECT_EQ(error_of(unsigned_descriptor.bytes(), true), std::nullopt) << message_;
  ZipImage wide_descriptor = three_records();
  wide_descriptor.entries[0].descriptor = "PK\x07\x08" + le(wide_descriptor.entries[0].crc, 4) + le(6, 8) + le(6, 8);
  EXPECT_EQ(error_of(wide_descriptor.bytes(), true), std::nullopt) << message_;
  ZipImage wide_directory = three_records();
  wide_directory.entries[0].central_stored = wide_directory.entries[0].central_bytes = 0xffffffff;
  wide_directory.entries[0].central_extra = le(1, 2) + le(16, 2) + le(6, 8) + le(6, 8);
  EXPECT_EQ(error_of(wide_directory.bytes(), true), std::nullopt) << message_;
}

TEST_F(ZipReaderTest, OrdersRecordsByTheirPlace) {
  ZipImage image = three_records();
  const std::string forward = image.bytes();
  // The directory lists them backwards.
  std::vector<int64_t> offsets;
  for (size_t at = forward.find("PK\x03\x04"); at != std::string::npos; at = forward.find("PK\x03\x04", at + 1)) {
    offsets.push_back(static_cast<int64_t>(at));
  }
  ASSERT_EQ(offsets.size(), 3u);
  const size_t directory = forward.find("PK\x01\x02");
  std::vector<std::string> parts;
  for (size_t at = directory, next; at < forward.find("PK\x06\x06"); at = next) {
    next = std::min(forward.find("PK\x01\x02", at + 1), forward.find("PK\x06\x06"));
    parts.push_back(forward.substr(at, next - at));
  }
  const std::string backward =
      forward.substr(0, directory) + parts[2] + parts[0] + parts[1] + forward.substr(forward.find("PK\x06\x06"));
  const io::File file = file_of(backward);
  const ZipReader zip(file);
  EXPECT_EQ(zip.records()[0].name, "data.pkl");
  EXPECT_EQ(zip.records()[1].name, "data/0");
  EXPECT_EQ(zip.records()[2].name, "data/1");
  EXPECT_EQ(zip.find("data/0"), &zip.records()[1]);
}

TEST_F(ZipReaderTest, InflatesWithinTheStatedSize) {
  const std::string data(200000, 'z');
  ZipImage image{.entries = {deflated_entry("a/code", data)}};
  const io::File file = file_of(image.bytes());
  const ZipReader zip(file);
  EXPECT_TRUE(zip.records()[0].deflated);
  EXPECT_EQ(as_text(zip.read(zip.records()[0], 1 << 20)), data);
}

TEST_F(ZipReaderTest, ReadsAbsentCrcsUnverified) {
  ZipImage image = three_records();
  for (ZipEntry& entry : image.entries) {
    entry.crc = 0;
    if (!entry.descriptor.empty()) entry.descriptor.replace(4, 4, le(0, 4));
  }
  const io::File file = file_of(image.bytes());
  const ZipReader zip(file);
  EXPECT_TRUE(zip.crcs_absent());
  EXPECT_EQ(as_text(zip.read(zip.records()[0], 100)), "pickle");
}

TEST_F(ZipReaderTest, DoesNotLookForEndsInsideRecords) {
  ZipImage outer{.entries = {zip_entry("a/inner", three_records().bytes())}};
  const std::string bytes = outer.bytes();
  const io::File file = file_of(bytes);
  EXPECT_EQ(ZipReader(file).records().size(), 1u);
  EXPECT_EQ(error_of(bytes.substr(0, bytes.rfind("PK\x05\x06"))), ErrorCode::kCorrupt);
}

TEST_F(ZipReaderTest, ManyEmptyRecordsTakeLittle) {
  constexpr uint64_t kCount = 100000;
  std::string locals, directory;
  for (uint64_t i = 0; i < kCount; ++i) {
    std::string name = "a/" + std::to_string(i);
    directory += "PK\x01\x02" + le(0, 4) + le(0x0800, 2) + le(0, 18) + le(name.size(), 2) + le(0, 12) +
                 le(locals.size(), 4) + name;
    locals += "PK\x03\x04" + le(0, 2) + le(0x0800, 2) + le(0, 18) + le(name.size(), 2) + le(0, 2) + name;
  }
  const std::string end = "PK\x06\x06" + le(44, 8) + le(0, 12) + le(kCount, 8) + le(kCount, 8) +
                          le(directory.size(), 8) + le(locals.size(), 8) + "PK\x06\x07" + le(0, 4) +
                          le(locals.size() + directory.size(), 8) + le(1, 4) + "PK\x05\x06" + le(0, 4) +
                          le(0xffffffff, 4) + le(0xffffffff, 4) + le(0xffffffff, 4) + le(0, 2);
  const io::File file = file_of(locals + directory + end);
  const ZipReader zip(file);
  EXPECT_EQ(zip.records().size(), kCount);
  EXPECT_NE(zip.find("99999"), nullptr);
  EXPECT_LT(sizeof(ZipRecord), 88u);  // the file takes 88 bytes for each
}

}  // namespace
}  // namespace ckpt::format
