#include "core/run/manifest.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "ckpt/error.h"
#include "core/base/checksum.h"
#include "core/io/block_writer.h"

namespace ckpt::run {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Manifest sample() {
  Manifest manifest;
  manifest.save_id = "00112233445566778899aabbccddeeff";
  manifest.sequence = 12;
  manifest.time = 1'785'000'000.25;
  manifest.iteration = 1200;
  manifest.epoch = 3;
  manifest.metrics = {{"accuracy", 0.1}, {"loss \"x\" \\ \n ü 日本", -1e-300},
                      {"", 1.0},         {"nan", kNaN},
                      {"up", kInfinity}, {"down", -kInfinity}};
  manifest.monitor = Monitor{"accuracy", Mode::kMax};
  manifest.metadata = {{"note", "it's \"quoted\"\t\x01"}, {"größe", {1, 2.5, nullptr, true, {{"a b", -3}}}}, {"", ""}};
  manifest.files = {{"state.pt", io::kBlockBytes + 1, io::kBlockBytes, {1, UINT64_MAX}},
                    {"empty", 0, io::kBlockBytes, {}}};
  return manifest;
}

/// The text of a changed manifest with a check that fits, so that only the change can be what is refused.
std::string rechecked(nlohmann::json whole) {
  whole.erase("check");
  whole["check"] = xxh3_128_hex(as_bytes(whole.dump()));
  return whole.dump(2) + "\n";
}

std::string refusal(const std::string& text) {
  try {
    parse_manifest(text, "run/step/MANIFEST.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    EXPECT_EQ(error.path(), "run/step/MANIFEST.json");
    return error.message();
  }
  return "accepted";
}

TEST(Manifest, RoundTripKeepsEverything) {
  const Manifest before = sample();
  const std::string text = to_text(before);
  const Manifest after = parse_manifest(text, "MANIFEST.json");
  EXPECT_EQ(to_text(after), text);
  EXPECT_EQ(after.save_id, before.save_id);
  EXPECT_EQ(after.sequence, 12u);
  EXPECT_EQ(after.time, before.time);
  EXPECT_EQ(after.iteration, 1200u);
  EXPECT_EQ(after.epoch, 3u);
  ASSERT_EQ(after.metrics.size(), before.metrics.size());
  for (const auto& [name, value] : before.metrics) {
    EXPECT_TRUE(after.metrics.at(name) == value || (std::isnan(value) && std::isnan(after.metrics.at(name)))) << name;
  }
  EXPECT_EQ(after.monitor, before.monitor);
  EXPECT_EQ(after.metadata, before.metadata);
  ASSERT_EQ(after.files.size(), 2u);
  EXPECT_EQ(after.files[0].path, "state.pt");
  EXPECT_EQ(after.files[0].xxh3_64, before.files[0].xxh3_64);
  EXPECT_EQ(after.total_bytes(), io::kBlockBytes + 1);
}

TEST(Manifest, TextIsCanonicalAndItsCheckCoversTheRest) {
  const std::string text = to_text(sample());
  EXPECT_EQ(text.back(), '\n');
  nlohmann::json whole = nlohmann::json::parse(text);
  EXPECT_EQ(whole.dump(2) + "\n", text);
  EXPECT_EQ(rechecked(whole), text);
  EXPECT_EQ(whole["format"], "ckpt-checkpoint");
  EXPECT_EQ(whole["version"], 1);
  EXPECT_EQ(whole["monitor"]["mode"], "max");
  EXPECT_EQ(whole["metrics"]["nan"], "NaN");
  EXPECT_EQ(whole["metrics"]["down"], "-Infinity");
  EXPECT_EQ(whole["files"][0]["block_bytes"], 4194304);
  EXPECT_EQ(whole["files"][0]["xxh3_64"][1], "ffffffffffffffff");
}

TEST(Manifest, EveryChangedByteIsRefused) {
  const std::string text = to_text(sample());
  for (size_t i = 0; i < text.size(); ++i) {
    for (int flip : {0x01, 0x20, 0x80, 0xff}) {
      std::string changed = text;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      ASSERT_NE(refusal(changed), "accepted") << "byte " << i << " ^ " << flip;
    }
    ASSERT_NE(refusal(text.substr(0, i)), "accepted") << "cut at " << i;
  }
  EXPECT_NE(refusal(text + " "), "accepted");
  EXPECT_NE(refusal(nlohmann::json::parse(text).dump()), "accepted");
}

TEST(Manifest, WrongFieldsAreNamed) {
  using nlohmann::json;
  const json good = json::parse(to_text(sample()));
  const auto with = [&](const char* pointer, json value) {
    json changed = good;
    changed[json::json_pointer(pointer)] = std::move(value);
    return refusal(rechecked(changed));
  };
  const std::vector<std::tuple<const char*, json, const char*>> table{
      {"/format", "other", "not a ckpt-checkpoint"},
      {"/version", 2, "version: expected 1, found 2"},
      {"/save_id", "xyz", "save_id: expected 32 hex digits"},
      {"/save_id", "00112233445566778899AABBCCDDEEFF", "save_id"},
      {"/sequence", -1, "sequence: expected a whole number, found -1"},
      {"/sequence", 1.0, "sequence"},
      {"/time", 1, "time: expected a floating-point number"},
      {"/time", "NaN", "time"},
      {"/iteration", "12", "iteration"},
      {"/epoch", nullptr, "epoch"},
      {"/metrics", json::array(), "metrics: expected an object"},
      {"/metrics/accuracy", 1, "metrics.accuracy"},
      {"/metrics/accuracy", "nan", "metrics.accuracy"},
      {"/monitor", 3, "monitor"},
      {"/monitor/mode", "most", "mode"},
      {"/monitor/extra", 1, "unknown field monitor.\"extra\""},
      {"/metadata", "text", "metadata"},
      {"/world_size", 1.5, "world_size"},
      {"/files", json::object(), "files"},
      {"/files/0", 1, "files[0]"},
      {"/files/0/path", "a/b", "files[0].path: expected a plain file name"},
      {"/files/0/path", "..", "files[0].path"},
      {"/files/0/path", "MANIFEST.json", "files[0].path"},
      {"/files/0/path", "empty", "is there twice"},
      {"/files/0/bytes", 1, "expected 1 hashes for 1 bytes, found 2"},
      {"/files/0/bytes", UINT64_MAX, "hashes for 18446744073709551615 bytes"},
      {"/files/0/block_bytes", 0, "files[0].block_bytes: expected 4194304"},
      {"/files/0/xxh3_64", json::array({"0000000000000001"}), "found 1"},
      {"/files/0/xxh3_64/0", "1", "16 hex digits"},
      {"/files/0/xxh3_64/0", 1, "16 hex digits"},
      {"/surplus", 1, "unknown field \"surplus\""},
  };
  for (const auto& [pointer, value, expected] : table) {
    EXPECT_NE(with(pointer, value).find(expected), std::string::npos) << pointer << ": " << with(pointer, value);
  }
  for (const auto& [key, value] : good.items()) {
    json changed = good;
    changed.erase(key);
    if (key == "check") {
      EXPECT_NE(refusal(changed.dump(2) + "\n").find("check is missing"), std::string::npos);
    } else {
      EXPECT_NE(refusal(rechecked(changed)), "accepted") << key;
    }
  }
}

TEST(Manifest, NoJsonAtAllIsRefused) {
  for (const char* text :
       {"", "{}", "[]", "null", "1", "{\"format\": \"ckpt-checkpoint\"}", "\xff\xfe", "{\"a\":1,\"a\":1}"}) {
    EXPECT_NE(refusal(text), "accepted") << text;
  }
}

TEST(Manifest, WhatCouldNotBeReadBackIsNotWritten) {
  const auto code = [](const Manifest& manifest) {
    try {
      to_text(manifest);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  Manifest manifest = sample();
  manifest.metrics["\xff"] = 1;
  EXPECT_EQ(code(manifest), ErrorCode::kInvalid);
  manifest = sample();
  manifest.metadata["x"] = "\xc3";
  EXPECT_EQ(code(manifest), ErrorCode::kInvalid);
  manifest = sample();
  manifest.metadata = nlohmann::json::array();
  EXPECT_EQ(code(manifest), ErrorCode::kInvalid);
  manifest = sample();
  manifest.files[0].path = "../x";
  EXPECT_EQ(code(manifest), ErrorCode::kInvalid);
  manifest = sample();
  nlohmann::json deep = 1;
  for (int i = 0; i < 2000; ++i) deep = nlohmann::json::array({std::move(deep)});
  manifest.metadata["deep"] = std::move(deep);
  EXPECT_EQ(code(manifest), ErrorCode::kInvalid);
}

TEST(Manifest, NonFiniteMetadataBecomesText) {
  Manifest manifest = sample();
  manifest.metadata = {{"a", {kNaN, -kInfinity, 1.5}}};
  EXPECT_EQ(parse_manifest(to_text(manifest), "m").metadata.dump(), R"({"a":["NaN","-Infinity",1.5]})");
}

TEST(Manifest, PlainNames) {
  for (const char* name : {"state.pt", "state-00001-of-00004.pt", "weights.safetensors", "a b", "ü"})
    EXPECT_TRUE(is_plain_name(name)) << name;
  for (const std::string& name : {std::string(), std::string("."), std::string(".."), std::string(".hidden"),
                                  std::string("a/b"), std::string("/a"), std::string("a\nb"), std::string("a\0b", 3),
                                  std::string("\xff"), std::string(256, 'a'), std::string("MANIFEST.json")}) {
    EXPECT_FALSE(is_plain_name(name)) << name;
  }
}

}  // namespace
}  // namespace ckpt::run
