#include "core/run/manifest.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "ckpt/error.h"
#include "core/io/block_writer.h"
#include "core/run/manifest_samples.h"

namespace ckpt::run {
namespace {

using test::kInfinity;
using test::kNaN;
using test::rechecked;
using test::sample;

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
