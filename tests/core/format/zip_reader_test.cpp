#include "core/format/zip_reader.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "core/format/zip_builder.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using test::le;
using test::plain_entry;
using test::zip_entry;
using test::ZipEntry;
using test::ZipImage;

ZipImage three_records() {
  return {.entries = {zip_entry("a/data.pkl", "pickle"), zip_entry("a/data/0", std::string(100, 'x')),
                      zip_entry("a/data/1", "")}};
}

std::string deflated(const std::string& data) {
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

ZipEntry deflated_entry(const std::string& name, const std::string& data) {
  ZipEntry entry = zip_entry(name, deflated(data));
  entry.method = entry.local_method = 8;
  entry.central_bytes = data.size();
  entry.crc = crc32(as_bytes(data));
  entry.descriptor = "PK\x07\x08" + le(entry.crc, 4) + le(entry.central_stored, 4) + le(data.size(), 4);
  return entry;
}

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

  for (uint64_t lie : {uint64_t{199999}, uint64_t{200001}, uint64_t{1}}) {
    ZipImage lying = image;
    lying.entries[0].central_bytes = lie;
    lying.entries[0].descriptor.replace(12, 4, le(lie, 4));
    EXPECT_EQ(error_of(lying.bytes(), true), ErrorCode::kCorrupt) << lie;
  }
  ZipImage broken = image;
  broken.entries[0].data[10] ^= 0x55;
  EXPECT_EQ(error_of(broken.bytes(), true), ErrorCode::kCorrupt);
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

// One table of corruptions: what is changed, and what opening (or reading) must throw.
struct Corruption {
  const char* name;
  std::function<void(ZipImage&)> change;
  ErrorCode code = ErrorCode::kCorrupt;
};

const Corruption kCorruptions[] = {
    {"NoRecords", [](ZipImage& z) { z.entries.clear(); }},
    {"CountTooHigh", [](ZipImage& z) { z.entry_count = 4; }},
    {"CountTooLow", [](ZipImage& z) { z.entry_count = 2; }},
    {"CountAbsurd", [](ZipImage& z) { z.entry_count = 0x7fffffffffffffff; }},
    {"DirectoryOffsetTooLow", [](ZipImage& z) { z.directory_offset = 1; }},
    {"DirectoryOffsetHuge", [](ZipImage& z) { z.directory_offset = INT64_MAX; }},
    {"DirectoryTooLong", [](ZipImage& z) { z.directory_bytes = 100000; }},
    {"BytesAfterEnd", [](ZipImage& z) { z.tail = "x"; }},
    {"BytesAfterDirectory", [](ZipImage& z) { z.after_directory = "x"; }},
    {"BytesBeforeFirst", [](ZipImage& z) { z.entries[0].before = "x"; }},
    {"BytesBetween", [](ZipImage& z) { z.entries[1].before = "x"; }},
    {"BytesBetweenAsLongAsAnotherDescriptor", [](ZipImage& z) { z.entries[1].before = "12345678"; }},
    {"BytesBeforeDirectory", [](ZipImage& z) { z.before_directory = "x"; }},
    {"SameName", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "a/data.pkl"; }},
    {"SameNameInOtherCase", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "a/DATA.pkl"; }},
    {"SecondTopFolder", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "b/data"; }},
    {"NoFolder", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "data"; }},
    {"EmptyName", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = ""; }},
    {"AbsoluteName", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "/a/data"; }},
    {"ParentName", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "a/../data"; }},
    {"EmptyPartOfName", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "a//data"; }},
    {"NulInName", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = std::string("a/d\0t", 5); }},
    {"NameNotUtf8", [](ZipImage& z) { z.entries[1].name = z.entries[1].local_name = "a/\xc3\x28"; }},
    {"FolderWithBytes", [](ZipImage& z) { z.entries[0].name = z.entries[0].local_name = "a/d/"; }},
    {"LocalNameDiffers", [](ZipImage& z) { z.entries[1].local_name = "a/data/9"; }},
    {"LocalNameShorter", [](ZipImage& z) { z.entries[1].local_name = "a/data"; }},
    {"LocalFlagsDiffer", [](ZipImage& z) { z.entries[1].local_flags = 0x0008; }},
    {"LocalMethodDiffers", [](ZipImage& z) { z.entries[1].local_method = 8; }},
    {"LocalTimeDiffers", [](ZipImage& z) { z.entries[1].local_time = 1; }},
    {"LocalCrcDiffers", [](ZipImage& z) { z.entries[1].local_crc = 5; }},
    {"LocalSizeDiffers", [](ZipImage& z) { z.entries[1].local_stored = 99; }},
    {"PlainLocalCrcDiffers",
     [](ZipImage& z) { z.entries[0] = plain_entry("a/data.pkl", "pickle"), z.entries[0].local_crc ^= 1; }},
    {"PlainLocalSizeDiffers",
     [](ZipImage& z) { z.entries[0] = plain_entry("a/data.pkl", "pickle"), z.entries[0].local_bytes = 7; }},
    {"LocalExtraCutOff", [](ZipImage& z) { z.entries[1].local_extra = "FB\x09"; }},
    {"LocalExtraTooLong", [](ZipImage& z) { z.entries[1].local_extra = "FB" + le(9, 2) + "ZZZ"; }},
    {"PaddingDamaged", [](ZipImage& z) { z.entries[1].local_extra = "FB" + le(3, 2) + "ZYZ"; }},
    {"DescriptorMissing", [](ZipImage& z) { z.entries[1].descriptor.clear(); }},
    {"DescriptorUnexpected", [](ZipImage& z) { z.entries[1].flags = z.entries[1].local_flags = 0x0800; }},
    {"DescriptorCrcDiffers", [](ZipImage& z) { z.entries[1].descriptor[4] ^= 1; }},
    {"DescriptorSizeDiffers", [](ZipImage& z) { z.entries[1].descriptor[8] ^= 1; }},
    {"DescriptorSignatureWrong", [](ZipImage& z) { z.entries[1].descriptor[0] = 'X'; }},
    {"CrcOfDataWrong", [](ZipImage& z) { z.entries[1].data[5] ^= 1; }},
    {"StoredSizesDiffer", [](ZipImage& z) { z.entries[1].central_bytes = 99; }},
    {"SizePastNextRecord", [](ZipImage& z) { z.entries[0].central_bytes = z.entries[0].central_stored = 60; }},
    {"SizeHuge", [](ZipImage& z) { z.entries[1].central_bytes = z.entries[1].central_stored = 0xfffffffe; }},
    {"Zip64FieldMissing", [](ZipImage& z) { z.entries[1].central_bytes = z.entries[1].central_stored = 0xffffffff; }},
    {"Zip64FieldTooLong", [](ZipImage& z) { z.entries[1].central_extra = le(1, 2) + le(8, 2) + le(100, 8); }},
    {"Zip64SizeOverflows",
     [](ZipImage& z) {
       z.entries[1].central_bytes = z.entries[1].central_stored = 0xffffffff;
       z.entries[1].central_extra = le(1, 2) + le(16, 2) + le(UINT64_MAX - 10, 8) + le(UINT64_MAX - 10, 8);
     }},
    {"TwoRecordsAtOnePlace", [](ZipImage& z) { z.entries[1].central_offset = 0; }},
    {"OffsetPastDirectory", [](ZipImage& z) { z.entries[2].central_offset = 100000; }},
    {"OffsetInsideRecord", [](ZipImage& z) { z.entries[2].central_offset = 60; }},
    {"Zip64EndDamaged", [](ZipImage& z) { z.end64_override = std::string(56, 'x'); }},
    {"Zip64LocatorPointsElsewhere",
     [](ZipImage& z) { z.locator_override = "PK\x06\x07" + le(0, 4) + le(3, 8) + le(1, 4); }},
    {"Zip64LocatorMissing", [](ZipImage& z) { z.locator_override = std::string(20, 'x'); }},
    {"Zip64CountDiffers",
     [](ZipImage& z) {
       z.end64_override = "PK\x06\x06" + le(44, 8) + le(0, 4) + le(0, 8) + le(9, 8) + le(9, 8) + le(0, 8) + le(0, 8);
     }},
    {"Encrypted", [](ZipImage& z) { z.entries[1].flags = z.entries[1].local_flags = 0x0809; }, ErrorCode::kUnsupported},
    {"UnknownMethod", [](ZipImage& z) { z.entries[1].method = z.entries[1].local_method = 12; },
     ErrorCode::kUnsupported},
    {"SeveralDisks", [](ZipImage& z) { z.disk = 1; }, ErrorCode::kUnsupported},
    {"RecordOnOtherDisk", [](ZipImage& z) { z.entries[1].central_disk = 1; }, ErrorCode::kUnsupported},
};

TEST_F(ZipReaderTest, RefusesEveryCorruptionOfTheTable) {
  EXPECT_EQ(error_of(three_records().bytes(), true), std::nullopt);
  for (const Corruption& corruption : kCorruptions) {
    ZipImage image = three_records();
    corruption.change(image);
    EXPECT_EQ(error_of(image.bytes(), true), corruption.code) << corruption.name << ": " << message_;
  }
}

TEST_F(ZipReaderTest, RefusesEveryTruncation) {
  const std::string whole = three_records().bytes();
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_EQ(error_of(whole.substr(0, bytes), true), ErrorCode::kCorrupt) << bytes;
  }
}

TEST_F(ZipReaderTest, NeverCrashesOnChangedBytes) {
  const std::string whole = three_records().bytes();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int change : {0x01, 0xff}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ change);
      error_of(changed, true);
    }
  }
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
