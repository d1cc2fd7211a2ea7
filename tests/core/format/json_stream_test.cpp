#include "core/format/json_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

/// Writes down what comes, as JSON again; passes over the values of keys that are called "skip".
class Echo : public JsonHandler {
 public:
  explicit Echo(JsonText& text) : JsonHandler(text, 0) {}
  std::string seen;

 private:
  void add(const std::string& text) { seen += text + ","; }
  void on_null() override { add("null"); }
  void on_boolean(bool value) override { add(value ? "true" : "false"); }
  void on_negative(int64_t value) override { add(std::to_string(value)); }
  void on_unsigned(uint64_t value) override { add(std::to_string(value)); }
  void on_text(std::string& value) override { add(nlohmann::json(value).dump()); }
  void on_object() override { seen += "{"; }
  void on_key(std::string& name) override {
    if (name == "skip") return skip_value();
    seen += nlohmann::json(name).dump() + ":";
  }
  void on_object_end() override { add("}"); }
  void on_array() override { seen += "["; }
  void on_array_end() override { add("]"); }
};

bool has_fraction(const nlohmann::json& value) {
  if (!value.is_structured()) return value.is_number_float();
  return std::any_of(value.begin(), value.end(), has_fraction);
}

class JsonStreamTest : public testing::Test {
 protected:
  std::string echo(const std::string& text) {
    test::write_all(dir_ / "text", "before" + text + "after");
    const io::File file = io::File::open(dir_ / "text");
    JsonText json(file, 6, 6 + text.size(), "header");
    Echo handler(json);
    handler.parse();
    return handler.seen;
  }

  void expect_refused(const std::string& text) {
    try {
      const std::string seen = echo(text);
      ADD_FAILURE() << nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) << " gave "
                    << seen;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt) << error.what();
      EXPECT_NE(error.message().find("header: "), std::string::npos) << error.what();
      EXPECT_TRUE(error.offset() && *error.offset() >= 6 && *error.offset() <= 6 + text.size()) << error.what();
    }
  }

  test::TempDir dir_;
};

TEST_F(JsonStreamTest, GivesTheValuesInOrder) {
  EXPECT_EQ(echo(R"( {"a" : [1, -2, "x", true ,false,null], "b":{}, "c":[]}  )"),
            R"({"a":[1,-2,"x",true,false,null,],"b":{},"c":[],},)");
  EXPECT_EQ(echo("18446744073709551615"), "18446744073709551615,");
  EXPECT_EQ(echo("-9223372036854775808"), "-9223372036854775808,");
}

TEST_F(JsonStreamTest, ReadsEscapes) {
  EXPECT_EQ(echo(R"("\"\\\/\b\f\n\r\té\u20AC\ud83d\ude00")"), nlohmann::json("\"\\/\b\f\n\r\té€😀").dump() + ",");
  EXPECT_EQ(echo("\"\\u0000\""), "\"\\u0000\",");
  EXPECT_EQ(echo("\"é€😀\x7f\""), nlohmann::json("é€😀\x7f").dump() + ",");
}

TEST_F(JsonStreamTest, PassesOverWhatIsNotWanted) {
  EXPECT_EQ(echo(R"({"skip": {"a": [1.5, {"skip": []}], "b": "x"}, "c": 1, "skip": 1e400, "d": 2})"),
            R"({"c":1,"d":2,},)");
}

TEST_F(JsonStreamTest, ReadsTextsAcrossItsBuffer) {
  for (const size_t blanks : {65530, 65531, 65532, 65533, 65534, 65535}) {
    EXPECT_EQ(echo(std::string(blanks, ' ') + R"(["ab\u00e9", 123, true])"), R"(["abé",123,true,],)");
  }
  const std::string text(200000, 'x');
  EXPECT_EQ(echo("\"" + text + "\""), "\"" + text + "\",");
}

TEST_F(JsonStreamTest, RefusesWhatIsNotJson) {
  const std::vector<std::string> refused = {"",
                                            " ",
                                            "{",
                                            "[",
                                            "}",
                                            "]",
                                            "[1",
                                            "[1,",
                                            "[1,]",
                                            "[,1]",
                                            "{\"a\"",
                                            "{\"a\":",
                                            "{\"a\":1",
                                            "{\"a\":1,",
                                            "{\"a\":1,}",
                                            "{\"a\" 1}",
                                            "{a:1}",
                                            "{1:2}",
                                            "{\"a\":1]",
                                            "[1}",
                                            "[1 2]",
                                            "1 2",
                                            "{} x",
                                            "tru",
                                            "truE",
                                            "nul",
                                            "falsey",
                                            "nan",
                                            "01",
                                            "-",
                                            "-01",
                                            "+1",
                                            ".5",
                                            "1.",
                                            "1.e5",
                                            "1e",
                                            "1e+",
                                            "--1",
                                            "0x10",
                                            "\"",
                                            "\"a",
                                            "\"\\",
                                            "\"\\x\"",
                                            "\"\\u12\"",
                                            "\"\\u123g\"",
                                            "\"\\ud800\"",
                                            "\"\\ud800\\u0041\"",
                                            "\"\\udc00\"",
                                            "\"\\ud800\\n\"",
                                            "\"\x80\"",
                                            "\"\xc0\x80\"",
                                            "\"\xed\xa0\x80\"",
                                            "\"\n\"",
                                            "\"\x1f\"",
                                            "\xef\xbb\xbf{}",
                                            "[1,\v2]",
                                            "/**/1",
                                            "'a'"};
  for (const std::string& text : refused) expect_refused(text);
  using namespace std::string_literals;
  expect_refused("[1]\0"s);
  expect_refused("[\0]"s);
  expect_refused("\"\0\""s);
}

TEST_F(JsonStreamTest, RefusesWhatIsTooLarge) {
  expect_refused("1.5");
  expect_refused("18446744073709551616");
  expect_refused("-9223372036854775809");
  expect_refused("{\"skip\":" + std::string(5000, '1') + "}");
  expect_refused("\"" + std::string((6 << 20) + 1, 'x') + "\"");
  expect_refused(std::string(1001, '['));
  expect_refused("{\"skip\":" + std::string(1001, '[') + std::string(1001, ']') + "}");
  EXPECT_EQ(echo("{\"skip\":" + std::string(999, '[') + std::string(999, ']') + "}"), "{},");
}

TEST_F(JsonStreamTest, AgreesWithAnotherParser) {
  const std::string text = R"({"a":[1,-2,"x\u00e9",true,null],"b":{"c":"d"}})";
  for (size_t at = 0; at < text.size(); ++at) {
    for (const char c : std::string("{}[]\",:\\ 0-ten")) {
      std::string changed = text;
      changed[at] = c;
      const nlohmann::json expected = nlohmann::json::parse(changed, nullptr, /*allow_exceptions=*/false);
      if (expected.is_discarded()) {
        expect_refused(changed);
      } else if (!has_fraction(expected)) {
        EXPECT_NO_THROW(echo(changed)) << changed;
      }
    }
  }
}

}  // namespace
}  // namespace ckpt::format
