#include <gtest/gtest.h>

#include "core/format/zip_builder.h"
#include "core/format/zip_reader.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

using test::le;
using test::plain_entry;
using test::ZipEntry;
using test::ZipImage;

/// Three records as PyTorch writes them, and a deflated one.
ZipImage good() {
  ZipImage image = test::three_records();
  std::string code;
  for (int i = 0; i < 200; ++i) code += std::to_string(1000000000 + i * i * 7919);
  image.entries.push_back(test::deflated_entry("a/code", code));
  return image;
}

void rename(ZipEntry& entry, const std::string& name) { entry.name = entry.local_name = name; }

/// Lies, everywhere, about the size after inflating.
void state_bytes(ZipEntry& entry, uint64_t bytes) {
  entry.central_bytes = bytes;
  entry.descriptor.replace(12, 4, le(bytes, 4));
}

std::vector<test::Corruption<ZipImage>> corruptions() {
  return {
      {"NoRecords", [](ZipImage& z) { z.entries.clear(); }},
      {"CountTooHigh", [](ZipImage& z) { z.entry_count = 5; }},
      {"CountTooLow", [](ZipImage& z) { z.entry_count = 3; }},
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
      {"SameName", [](ZipImage& z) { rename(z.entries[1], "a/data.pkl"); }},
      {"SameNameInOtherCase", [](ZipImage& z) { rename(z.entries[1], "a/DATA.pkl"); }},
      {"SecondTopFolder", [](ZipImage& z) { rename(z.entries[1], "b/data"); }},
      {"NoFolder", [](ZipImage& z) { rename(z.entries[1], "data"); }},
      {"EmptyName", [](ZipImage& z) { rename(z.entries[1], ""); }},
      {"AbsoluteName", [](ZipImage& z) { rename(z.entries[1], "/a/data"); }},
      {"ParentName", [](ZipImage& z) { rename(z.entries[1], "a/../data"); }},
      {"EmptyPartOfName", [](ZipImage& z) { rename(z.entries[1], "a//data"); }},
      {"NulInName", [](ZipImage& z) { rename(z.entries[1], std::string("a/d\0t", 5)); }},
      {"NameNotUtf8", [](ZipImage& z) { rename(z.entries[1], "a/\xc3\x28"); }},
      {"FolderWithBytes", [](ZipImage& z) { rename(z.entries[0], "a/d/"); }},
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
      {"Encrypted", [](ZipImage& z) { z.entries[1].flags = z.entries[1].local_flags = 0x0809; },
       ErrorCode::kUnsupported},
      {"UnknownMethod", [](ZipImage& z) { z.entries[1].method = z.entries[1].local_method = 12; },
       ErrorCode::kUnsupported},
      {"SeveralDisks", [](ZipImage& z) { z.disk = 1; }, ErrorCode::kUnsupported},
      {"RecordOnOtherDisk", [](ZipImage& z) { z.entries[1].central_disk = 1; }, ErrorCode::kUnsupported},
      {"EmptyFile", [](ZipImage& z) { z.entries.clear(), z.zip64 = false, z.no_end = true; }},
      {"NoEndRecord", [](ZipImage& z) { z.no_end = true; }},
      {"CommentLongerThanStated", [](ZipImage& z) { z.comment = "PK\x05\x06", z.tail = "xx"; }},
      {"CommentThatLooksLikeAnEnd", [](ZipImage& z) { z.comment = "PK\x05\x06" + std::string(18, '\0'); }},
      {"OneFolderInsideTheNameOfAnother", [](ZipImage& z) { rename(z.entries[1], "ab/data"); }},
      {"DotInName", [](ZipImage& z) { rename(z.entries[1], "a/./data"); }},
      {"ParentAtEndOfName", [](ZipImage& z) { rename(z.entries[1], "a/data/.."); }},
      {"OverlongUtf8InName", [](ZipImage& z) { rename(z.entries[1], "a/\xc0\xaf"); }},
      {"SurrogateInName", [](ZipImage& z) { rename(z.entries[1], "a/\xed\xa0\x80"); }},
      {"RecordsSwapped", [](ZipImage& z) { std::swap(z.entries[0].local_name, z.entries[1].local_name); }},
      {"Zip64FieldTwice",
       [](ZipImage& z) {
         z.entries[1].central_bytes = z.entries[1].central_stored = 0xffffffff;
         z.entries[1].central_extra = le(1, 2) + le(8, 2) + le(100, 8) + le(1, 2) + le(8, 2) + le(100, 8);
       }},
      {"Zip64OffsetPastEnd",
       [](ZipImage& z) {
         z.entries[1].central_offset = 0xffffffff;
         z.entries[1].central_extra = le(1, 2) + le(8, 2) + le(uint64_t{1} << 40, 8);
       }},
      {"Zip64EndLongerThanItIs",
       [](ZipImage& z) {
         z.end64_override = "PK\x06\x06" + le(UINT64_MAX, 8) + le(0, 4) + le(0, 8) + le(4, 8) + le(4, 8) + le(0, 16);
       }},
      {"InflatesToMore", [](ZipImage& z) { state_bytes(z.entries[3], 1999); }},
      {"InflatesToMuchMore", [](ZipImage& z) { state_bytes(z.entries[3], 1); }},
      {"InflatesToLess", [](ZipImage& z) { state_bytes(z.entries[3], 2001); }},
      {"InflatesToNothing",
       [](ZipImage& z) { z.entries[3] = test::deflated_entry("a/code", ""), state_bytes(z.entries[3], 2000); }},
      {"DeflatedDataDamaged", [](ZipImage& z) { z.entries[3].data[z.entries[3].data.size() / 2] ^= 0x55; }},
      {"DeflatedDataHoldsAnotherBlockType", [](ZipImage& z) { z.entries[3].data[0] |= 0x06; }},
      {"StatedBeyondTheLimit", [](ZipImage& z) { state_bytes(z.entries[3], 0xfffffffe); }},
      {"StoredCalledDeflated", [](ZipImage& z) { z.entries[1].method = z.entries[1].local_method = 8; }},
      {"PatchedData", [](ZipImage& z) { z.entries[1].flags = z.entries[1].local_flags = 0x0828; },
       ErrorCode::kUnsupported},
      {"StronglyEncrypted", [](ZipImage& z) { z.entries[1].flags = z.entries[1].local_flags = 0x0848; },
       ErrorCode::kUnsupported},
      {"LinkOfUnix", [](ZipImage& z) { z.entries[1].central_attributes = 0xa1ff0000; }, std::nullopt},
      {"AComment", [](ZipImage& z) { z.comment = "a comment"; }, std::nullopt},
      {"NoZip64Records", [](ZipImage& z) { z.zip64 = false; }, std::nullopt},
      {"AFolderOfItsOwn", [](ZipImage& z) { z.entries.push_back(plain_entry("a/folder/", "")); }, std::nullopt},
      {"CrcsAbsent",
       [](ZipImage& z) {
         for (ZipEntry& entry : z.entries) {
           entry.crc = 0;
           if (!entry.descriptor.empty()) entry.descriptor.replace(4, 4, le(0, 4));
         }
       },
       std::nullopt},
  };
}

void read_all(const std::string& path) {
  const io::File file = io::File::open(path);
  const ZipReader zip(file);
  for (const ZipRecord& record : zip.records()) zip.read(record, 1 << 20);
}

std::string bytes_of(const ZipImage& image) { return image.bytes(); }

TEST(ZipCorruptions, EachIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(good(), corruptions(), bytes_of, read_all, folder);
}

TEST(ZipCorruptions, AnyByteMayBeWrongOrMissing) { test::check_every_place(good().bytes(), read_all); }

}  // namespace
}  // namespace ckpt::format
