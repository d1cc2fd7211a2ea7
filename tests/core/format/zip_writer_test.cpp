#include "core/format/zip_writer.h"

#include <gtest/gtest.h>

#include <random>

#include "core/base/checksum.h"
#include "core/format/zip_reader.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

class ZipWriterTest : public testing::Test {
 protected:
  template <class Fill>
  std::string write(const std::string& top, const Fill& fill) {
    io::replace_file(dir_ / "x.zip", [&](io::BlockWriter& writer) {
      ZipWriter zip(writer, top);
      fill(zip);
      zip.finish();
    });
    return dir_ / "x.zip";
  }

  test::TempDir dir_;
};

BytesToWrite in_pieces(std::string_view content, size_t piece) {
  return {content.size(), [content, piece](const ByteSink& sink) {
            for (size_t at = 0; at < content.size(); at += piece) sink(as_bytes(content.substr(at, piece)));
          }};
}

// Python wrote these files with torch's own writer. Its records written anew, also its id, must be the same file.
TEST_F(ZipWriterTest, WritesTheBytesThatTorchWrites) {
  for (const char* name : {"state_dict", "dtypes", "shapes", "tensor"}) {
    const std::string path = std::string(CKPT_TEST_DATA) + "/torch/" + name + ".pt";
    const io::File file = io::File::open(path);
    const ZipReader torch(file);
    std::vector<std::vector<std::byte>> contents;
    for (const ZipRecord& record : torch.records()) contents.push_back(torch.read(record, 1 << 20));
    ASSERT_GT(contents.size(), 5u);
    const std::string written = write(torch.top_folder(), [&](ZipWriter& zip) {
      for (size_t i = 0; i < contents.size(); ++i) {
        if (i % 2)
          zip.add(torch.records()[i].name, ByteView(contents[i]));
        else
          zip.add(torch.records()[i].name, in_pieces(as_text(contents[i]), 5));
      }
    });
    EXPECT_TRUE(test::read_all(written) == test::read_all(path)) << name;
  }
}

TEST_F(ZipWriterTest, ReadsBackForAnyNamesAndSizes) {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::pair<std::string, std::string>> records;
    for (unsigned i = 0; i < 1 + random() % 20; ++i) {
      std::string content(random() % 4 ? random() % 300 : 0, '\0');
      for (char& byte : content) byte = static_cast<char>(random());
      records.emplace_back(std::to_string(i) + "/" + std::string(random() % 200, 'n') + "\xc3\xa9", content);
    }
    const io::File file = io::File::open(write("top", [&](ZipWriter& zip) {
      for (const auto& [name, content] : records) {
        if (random() % 2)
          zip.add(name, as_bytes(content));
        else
          zip.add(name, in_pieces(content, 1 + random() % 50));
      }
    }));
    const ZipReader zip(file);
    EXPECT_EQ(zip.top_folder(), "top");
    ASSERT_EQ(zip.records().size(), records.size());
    for (size_t i = 0; i < records.size(); ++i) {
      const ZipRecord& record = zip.records()[i];
      EXPECT_EQ(record.name, records[i].first);
      EXPECT_EQ(record.data_offset % 64, 0u);
      EXPECT_EQ(record.crc, crc32(as_bytes(records[i].second)));
      EXPECT_EQ(as_text(zip.read(record, 1000)), records[i].second);
    }
  }
}

TEST_F(ZipWriterTest, CountsBeyond16Bits) {
  const io::File file = io::File::open(write("a", [&](ZipWriter& zip) {
    for (int i = 0; i < 70000; ++i) zip.add_text("data/" + std::to_string(i), std::to_string(i));
  }));
  const ZipReader zip(file);
  ASSERT_EQ(zip.records().size(), 70000u);
  EXPECT_EQ(as_text(zip.read(*zip.find("data/69999"), 9)), "69999");
}

TEST_F(ZipWriterTest, RefusesWrongCountsAndLongNames) {
  const auto code = [&](const auto& fill) {
    try {
      write("top", fill);
      return std::optional<ErrorCode>();
    } catch (const Error& error) {
      return std::optional(error.code());
    }
  };
  BytesToWrite data = in_pieces("12345", 2);
  data.bytes = 6;
  EXPECT_EQ(code([&](ZipWriter& zip) { zip.add("x", data); }), ErrorCode::kInternal);
  data.bytes = 4;
  EXPECT_EQ(code([&](ZipWriter& zip) { zip.add("x", data); }), ErrorCode::kInternal);
  EXPECT_EQ(code([&](ZipWriter& zip) { zip.add_text(std::string(65532, 'n'), ""); }), ErrorCode::kInvalid);
  EXPECT_EQ(code([&](ZipWriter& zip) { zip.add_text(std::string(65531, 'n'), ""); }), std::nullopt);
}

TEST_F(ZipWriterTest, ContentIdTellsNamesAndContentApart) {
  std::vector<std::string> ids;
  const auto add = [&](std::string_view name, std::string_view content) {
    write("a", [&](ZipWriter& zip) {
      zip.add_text(name, content);
      ids.push_back(zip.content_id());
    });
  };
  add("x", "content");
  add("x", "content");
  add("y", "content");
  add("x", "Content");
  for (const std::string& id : ids) {
    EXPECT_EQ(id.size(), 40u);
    EXPECT_EQ(id.find_first_not_of("0123456789"), std::string::npos);
  }
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_NE(ids[0], ids[2]);
  EXPECT_NE(ids[0], ids[3]);
}

/// Headers alone, of records and offsets that no test wants to write.
TEST_F(ZipWriterTest, HeadersHoldSizesAndOffsetsBeyond32Bits) {
  for (const uint64_t bytes : {uint64_t{1}, zip::kMax32 - 1, zip::kMax32, uint64_t{1} << 40}) {
    for (const uint64_t offset : {uint64_t{0}, zip::kMax32 - 1, zip::kMax32, uint64_t{5} << 40}) {
      const zip::WrittenRecord record{.name = "a/data/0", .header_offset = offset, .bytes = bytes, .crc = 0x12345678};
      const std::string local_bytes = zip::local_header_of(record), central_bytes = zip::central_header_of(record);
      std::filesystem::remove(dir_ / "headers");
      test::write_all(dir_ / "headers", local_bytes + central_bytes);
      const io::File file = io::File::open(dir_ / "headers");
      Window window(file, local_bytes.size() + central_bytes.size(), 4096);
      const zip::LocalHeader local = zip::local_header(window, 0, file.path());
      EXPECT_EQ(local.name, record.name);
      EXPECT_EQ(local.length, local_bytes.size());
      EXPECT_EQ((offset + local.length) % 64, 0u);
      const size_t wide = (bytes >= zip::kMax32 ? 16 : 0) + (offset >= zip::kMax32 ? 8 : 0);
      EXPECT_EQ(local.zip64.size(), wide);
      const zip::CentralHeader central = zip::central_header(window, local_bytes.size(), file.path());
      EXPECT_EQ(central.bytes, bytes);
      EXPECT_EQ(central.stored_bytes, bytes);
      EXPECT_EQ(central.header_offset, offset);
      EXPECT_EQ(central.crc, record.crc);
      EXPECT_EQ(central.name, record.name);
      EXPECT_EQ(zip::descriptor_of(record).size(), wide ? 24u : 16u);
    }
  }
}

// Writes 9 GiB; run by hand: CKPT_TEST_LARGE_FILES=1.
TEST_F(ZipWriterTest, LargeRecordsReadBack) {
  if (std::getenv("CKPT_TEST_LARGE_FILES") == nullptr) GTEST_SKIP() << "CKPT_TEST_LARGE_FILES is not set";
  const std::string piece(4 << 20, 'x');
  const uint64_t pieces = 1025;
  const BytesToWrite large = {pieces * piece.size(), [&](const ByteSink& sink) {
                                for (uint64_t i = 0; i < pieces; ++i) sink(as_bytes(piece));
                              }};
  const io::File file = io::File::open(write("a", [&](ZipWriter& zip) {
    zip.add("data/0", large);
    zip.add_text("data/1", "between");
    zip.add("data/2", large);
    zip.add_text("version", "3\n");
  }));
  const ZipReader zip(file);
  ASSERT_EQ(zip.records().size(), 4u);
  EXPECT_EQ(zip.find("data/0")->bytes, large.bytes);
  EXPECT_EQ(zip.find("data/2")->crc, zip.find("data/0")->crc);
  EXPECT_EQ(as_text(zip.read(*zip.find("data/1"), 10)), "between");
  EXPECT_EQ(as_text(zip.read(*zip.find("version"), 10)), "3\n");
}

}  // namespace
}  // namespace ckpt::format
