#include "core/base/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ckpt/error.h"

namespace ckpt {
namespace {

using nlohmann::json;

TEST(Json, ParsesWhatIsJson) {
  const json value = parse_json(R"( {"b": [1, -2, 3.5, true, null, "x\n\u00e9"], "a": {"c": {}}, "d": []} )", "f");
  EXPECT_EQ(value, json::parse(R"({"a":{"c":{}},"b":[1,-2,3.5,true,null,"x\né"],"d":[]})"));
  EXPECT_EQ(parse_json("18446744073709551615", "f").get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(parse_json("\"\"", "f"), "");
}

TEST(Json, RefusesWhatIsNot) {
  const struct {
    std::string text;
    std::string part;
    uint64_t offset;
  } kCases[] = {
      {"", "not valid JSON", 0},
      {"{", "not valid JSON", 1},
      {"{}x", "not valid JSON", 2},
      {"{} {}", "not valid JSON", 3},
      {"[1,]", "not valid JSON", 3},
      {"{\"a\":1,}", "not valid JSON", 7},
      {"{a:1}", "not valid JSON", 1},
      {"'a'", "not valid JSON", 0},
      {"[01]", "not valid JSON", 2},
      {"[NaN]", "not valid JSON", 1},
      {"// x\n1", "not valid JSON", 0},
      {"\"\x01\"", "not valid JSON", 1},
      {"\"\\ud800\"", "not valid JSON", 7},
      {"\"\xff\"", "not valid JSON", 1},
      {"1e999", "out of range", 4},
      {std::string("{}\0x", 4), "NUL byte", 2},
      {"\xEF\xBB\xBF{}", "byte order mark", 0},
      {"{\"a\":1,\"a\":2}", "duplicate key \"a\"", 10},
      {"{\"x\":{\"a\":1,\"\\u0061\":2}}", "duplicate key \"a\"", 20},
      {"{\"\\u0007\":1,\"\\u0007\":1}", "duplicate key \"\\x07\"", 20},
  };
  for (const auto& one : kCases) {
    try {
      parse_json(one.text, "f");
      ADD_FAILURE() << one.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_NE(error.message().find(one.part), std::string::npos) << one.text << ": " << error.what();
      EXPECT_EQ(error.offset(), one.offset) << one.text << ": " << error.what();
      EXPECT_EQ(std::string(error.what()).substr(0, 3), "f: ");
    }
  }
}

TEST(Json, NestsAThousandDeepAndNoDeeper) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(1000), "f").is_array());
  EXPECT_THROW(parse_json(nested(1001), "f"), Error);
  EXPECT_THROW(parse_json(std::string(10'000'000, '['), "f"), Error);
}

TEST(Json, WritesNumbersThatAreNone) {
  const double kInfinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(json_number(std::nan("")), "NaN");
  EXPECT_EQ(json_number(kInfinity), "Infinity");
  EXPECT_EQ(json_number(-kInfinity), "-Infinity");
  EXPECT_EQ(json_number(0.5), 0.5);
  EXPECT_TRUE(std::isnan(*number_from_json("NaN")));
  EXPECT_EQ(number_from_json("Infinity"), kInfinity);
  EXPECT_EQ(number_from_json("-Infinity"), -kInfinity);
  EXPECT_EQ(number_from_json(7), 7.0);
  EXPECT_EQ(number_from_json("nan"), std::nullopt);
  EXPECT_EQ(number_from_json(nullptr), std::nullopt);
  EXPECT_EQ(number_from_json(true), std::nullopt);
}

TEST(Json, DumpsSortedCompactAndAlwaysUtf8) {
  EXPECT_EQ(dump_json({{"b", 1}, {"a", "\xff"}}), "{\"a\":\"\xEF\xBF\xBD\",\"b\":1}");
}

TEST(Json, KeepsEveryBitOfADouble) {
  for (double value : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 3.0}) {
    EXPECT_EQ(parse_json(dump_json(json_number(value)), "f").get<double>(), value);
  }
}

}  // namespace
}  // namespace ckpt
