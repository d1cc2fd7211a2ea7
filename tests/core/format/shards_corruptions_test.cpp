#include <gtest/gtest.h>

#include "core/format/safetensors_builder.h"
#include "core/format/safetensors_shards.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

using test::becomes;

std::string index_of(const std::string& map) { return "{\"metadata\":{\"total_size\":3},\"weight_map\":" + map + "}"; }

const std::string kGood = index_of(R"({"x":"s-1.safetensors","y":"s-2.safetensors"})");

/// An index in which the file of "y" is this JSON text.
std::string file_of_y(const std::string& json) { return index_of(R"({"x":"s-1.safetensors","y":)" + json + "}"); }

constexpr auto kUnsafe = ErrorCode::kUnsafe;
constexpr auto kNotFound = ErrorCode::kNotFound;

std::vector<test::Corruption<std::string>> corruptions() {
  return {
      becomes("Empty", ""),
      becomes("Blank", "  \n"),
      becomes("NoJson", "PK\x03\x04"),
      becomes("AList", "[]"),
      becomes("ANumber", "1"),
      becomes("CutOff", kGood.substr(0, kGood.size() - 1)),
      becomes("Twice", kGood + kGood),
      becomes("BytesAfter", kGood + "x"),
      becomes("NulAfter", kGood + '\0'),
      becomes("ByteOrderMark", "\xef\xbb\xbf" + kGood),
      becomes("NotUtf8", index_of("{\"\xff\":\"s-1.safetensors\"}")),
      becomes("NoMap", R"({"metadata":{}})"),
      becomes("MapAList", index_of("[]")),
      becomes("MapAText", index_of("\"s-1.safetensors\"")),
      becomes("MapNull", index_of("null")),
      becomes("MapTwice", R"({"weight_map":{},"weight_map":{}})"),
      becomes("MapInsideMetadata", R"({"metadata":{"weight_map":{"x":"s-1.safetensors"}}})"),
      becomes("NameTwice", index_of(R"({"x":"s-1.safetensors","y":"s-2.safetensors","x":"s-1.safetensors"})")),
      becomes("NameTwiceSpelledDifferently",
              index_of(R"({"x":"s-1.safetensors","y":"s-2.safetensors","\u0078":"s-1.safetensors"})")),
      becomes("NameTooLong", index_of("{\"" + std::string(70000, 'n') + "\":\"s-1.safetensors\"}")),
      becomes("FileANumber", file_of_y("1")),
      becomes("FileNull", file_of_y("null")),
      becomes("FileAList", file_of_y(R"(["s-2.safetensors"])")),
      becomes("FileAnObject", file_of_y(R"({"file":"s-2.safetensors"})")),
      becomes("MetadataDeep",
              "{\"metadata\":" + std::string(2000, '[') + std::string(2000, ']') + "," + kGood.substr(1)),
      becomes("FileEmpty", file_of_y("\"\""), kUnsafe),
      becomes("FileInAnotherFolder", file_of_y("\"other/s-2.safetensors\""), kUnsafe),
      becomes("FileInTheParent", file_of_y("\"../s-2.safetensors\""), kUnsafe),
      becomes("FileInThisFolder", file_of_y("\"./s-2.safetensors\""), kUnsafe),
      becomes("FileTheParent", file_of_y("\"..\""), kUnsafe),
      becomes("FileThisFolder", file_of_y("\".\""), kUnsafe),
      becomes("FileAbsolute", file_of_y("\"/etc/passwd\""), kUnsafe),
      becomes("FileOfWindows", file_of_y(R"("..\\s-2.safetensors")"), kUnsafe),
      becomes("FileHoldsNul", file_of_y(R"("s-2.safetensors\u0000.json")"), kUnsafe),
      becomes("FileTooLong", file_of_y("\"" + std::string(300, 'f') + "\""), kUnsafe),
      becomes("FileALink", file_of_y("\"link.safetensors\""), kUnsafe),
      becomes("FileALinkOutOfTheFolder", file_of_y("\"out.safetensors\""), kUnsafe),
      becomes("FileAbsent", file_of_y("\"s-3.safetensors\""), kNotFound),
      becomes("FileInOtherCase", file_of_y("\"S-2.safetensors\""), kNotFound),
      becomes("FileAFolder", file_of_y("\"folder\""), ErrorCode::kIo),
      becomes("FileTheIndexItself", file_of_y("\"file\"")),
      becomes("FileNoSafetensors", file_of_y("\"text\"")),
      becomes("TensorInAnotherFile", index_of(R"({"x":"s-2.safetensors","y":"s-1.safetensors"})")),
      becomes("TensorInNoFile", index_of(R"({"x":"s-1.safetensors","y":"s-2.safetensors","z":"s-1.safetensors"})")),
      becomes("ShardThatIsNotNamed", index_of(R"({"x":"s-1.safetensors"})"), std::nullopt),
      becomes("TensorOfAShardNotInTheIndex", file_of_y("\"both.safetensors\"")),
      becomes("TensorInTwoShards", index_of(R"({"x":"s-1.safetensors","y":"both.safetensors"})")),
      becomes("EmptyMap", index_of("{}"), std::nullopt),
      becomes("NoMetadata", R"({"weight_map":{"x":"s-1.safetensors","y":"s-2.safetensors"}})", std::nullopt),
      becomes("UnknownFields", R"({"a":[{"b":null}],"weight_map":{"x":"s-1.safetensors"},"c":1.5})", std::nullopt),
  };
}

void read(const std::string& path) { read_sharded(io::File::open(path)); }

std::string shard(const std::string& names) {
  std::string header = "{", data;
  for (char name : names) {
    header += (data.empty() ? "\"" : ",\"") + std::string(1, name) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" +
              std::to_string(data.size()) + "," + std::to_string(data.size() + 1) + "]}";
    data += name;
  }
  return test::safetensors(header + "}", data);
}

void write_shards(const test::TempDir& folder) {
  test::write_all(folder / "s-1.safetensors", shard("x"));
  test::write_all(folder / "s-2.safetensors", shard("y"));
  test::write_all(folder / "both.safetensors", shard("xy"));
  test::write_all(folder / "text", "no tensors");
  std::filesystem::create_symlink("s-2.safetensors", folder / "link.safetensors");
  std::filesystem::create_symlink("/etc/passwd", folder / "out.safetensors");
  std::filesystem::create_directory(folder / "folder");
}

TEST(ShardsCorruptions, EachIsRefusedForWhatItIs) {
  const test::TempDir folder;
  write_shards(folder);
  test::check_corruptions(kGood, corruptions(), test::as_they_are, read, folder);
}

TEST(ShardsCorruptions, AnyByteOfTheIndexMayBeWrongOrMissing) {
  const test::TempDir folder;
  write_shards(folder);
  test::check_every_place(kGood, read, folder);
}

TEST(ShardsCorruptions, AnyByteOfAShardMayBeWrongOrMissing) {
  const test::TempDir folder;
  write_shards(folder);
  test::write_all(folder / "index", index_of(R"({"x":"file"})"));
  test::check_every_place(
      shard("x"), [&](const std::string&) { read(folder / "index"); }, folder);
}

}  // namespace
}  // namespace ckpt::format
