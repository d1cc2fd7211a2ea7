#include <gtest/gtest.h>

#include "core/run/manifest_samples.h"
#include "support/corruptions.h"

namespace ckpt::run {
namespace {

using nlohmann::json;
using test::becomes;
using Corruption = test::Corruption<std::string>;

/// Another value at `pointer`, in a manifest whose check fits.
Corruption field(std::string name, const char* pointer, json value, std::string says) {
  return {std::move(name),
          [pointer, value = std::move(value)](std::string& text) {
            json whole = json::parse(text);
            whole[json::json_pointer(pointer)] = value;
            text = test::rechecked(whole);
          },
          ErrorCode::kCorrupt, std::move(says)};
}

Corruption without(const std::string& key) {
  return {"Without_" + key,
          [key](std::string& text) {
            json whole = json::parse(text);
            whole.erase(key);
            text = key == "check" ? whole.dump(2) + "\n" : test::rechecked(whole);
          },
          ErrorCode::kCorrupt, key == "format" ? "not a ckpt-checkpoint" : key + " is missing"};
}

std::vector<Corruption> corruptions() {
  const std::string good = to_text(test::sample());
  std::vector<Corruption> table = {
      field("OtherFormat", "/format", "other", "not a ckpt-checkpoint"),
      field("NewerVersion", "/version", 2, "version: expected 1, found 2"),
      field("SaveIdNoHex", "/save_id", "xyz", "save_id: expected 32 hex digits"),
      field("SaveIdInUpperCase", "/save_id", "00112233445566778899AABBCCDDEEFF", "save_id"),
      field("SequenceNegative", "/sequence", -1, "sequence: expected a whole number, found -1"),
      field("SequenceFractional", "/sequence", 1.0, "sequence"),
      field("TimeAnInteger", "/time", 1, "time: expected a floating-point number"),
      field("TimeNotFinite", "/time", "NaN", "time"),
      field("IterationAText", "/iteration", "12", "iteration"),
      field("EpochNull", "/epoch", nullptr, "epoch"),
      field("MetricsAList", "/metrics", json::array(), "metrics: expected an object"),
      field("MetricAnInteger", "/metrics/accuracy", 1, "metrics.accuracy"),
      field("MetricMisspelled", "/metrics/accuracy", "nan", "metrics.accuracy"),
      field("MonitorANumber", "/monitor", 3, "monitor"),
      field("MonitorModeUnknown", "/monitor/mode", "most", "mode"),
      field("MonitorFieldUnknown", "/monitor/extra", 1, "unknown field monitor.\"extra\""),
      field("MetadataAText", "/metadata", "text", "metadata"),
      field("WorldSizeFractional", "/world_size", 1.5, "world_size"),
      field("FilesAnObject", "/files", json::object(), "files"),
      field("FileANumber", "/files/0", 1, "files[0]"),
      field("FileInAnotherFolder", "/files/0/path", "a/b", "files[0].path: expected a plain file name"),
      field("FileTheParent", "/files/0/path", "..", "files[0].path"),
      field("FileTheManifest", "/files/0/path", "MANIFEST.json", "files[0].path"),
      field("FileTwice", "/files/0/path", "empty", "is there twice"),
      field("FewerBytesThanBlocks", "/files/0/bytes", 1, "expected 1 hashes for 1 bytes, found 2"),
      field("BytesHuge", "/files/0/bytes", UINT64_MAX, "hashes for 18446744073709551615 bytes"),
      field("BlocksEmpty", "/files/0/block_bytes", 0, "files[0].block_bytes: expected 4194304"),
      field("FewerHashes", "/files/0/xxh3_64", json::array({"0000000000000001"}), "found 1"),
      field("HashShort", "/files/0/xxh3_64/0", "1", "16 hex digits"),
      field("HashANumber", "/files/0/xxh3_64/0", 1, "16 hex digits"),
      field("FieldUnknown", "/surplus", 1, "unknown field \"surplus\""),
      field("FileHidden", "/files/0/path", ".hidden", "files[0].path"),
      field("FileWithNewline", "/files/0/path", "a\nb", "files[0].path"),
      field("FileEmpty", "/files/0/path", "", "files[0].path"),
      field("BytesNegative", "/files/0/bytes", -1, "files[0].bytes"),
      field("HashInUpperCase", "/files/0/xxh3_64/0", "ABCDEFABCDEFABCD", "16 hex digits"),
      field("SumOfBytesOverflows", "/files/1",
            {{"path", "x"}, {"bytes", UINT64_MAX}, {"block_bytes", 4194304}, {"xxh3_64", json::array()}}, "hashes for"),
      becomes("Empty", ""),
      becomes("EmptyObject", "{}"),
      becomes("AList", "[]"),
      becomes("Null", "null"),
      becomes("ANumber", "1"),
      becomes("NothingButTheFormat", R"({"format": "ckpt-checkpoint"})"),
      becomes("NoJson", "\xff\xfe"),
      becomes("KeyTwice", R"({"a":1,"a":1})"),
      becomes("ByteOrderMark", "\xef\xbb\xbf" + good),
      becomes("BlankAfter", good + " "),
      becomes("NulAfter", good + '\0'),
      becomes("Twice", good + good),
      becomes("Compact", json::parse(good).dump()),
      becomes("Deep", std::string(100000, '[')),
      becomes("NumberHuge", "1" + std::string(100000, '0')),
  };
  const json whole = json::parse(good);
  for (const auto& [key, value] : whole.items()) table.push_back(without(key));
  return table;
}

void read(const std::string& path) { parse_manifest(test::read_all(path), path); }

TEST(ManifestCorruptions, EachIsRefusedAndNamesTheField) {
  const test::TempDir folder;
  test::check_corruptions(to_text(test::sample()), corruptions(), test::as_they_are, read, folder);
}

TEST(ManifestCorruptions, AnyWrongOrMissingByteShows) {
  test::check_every_place(to_text(test::sample()), read, {.changes_show = true});
}

}  // namespace
}  // namespace ckpt::run
