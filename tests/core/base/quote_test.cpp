#include "core/base/quote.h"

#include <gtest/gtest.h>

namespace ckpt {
namespace {

TEST(Quote, EscapesWhatATerminalShouldNotGet) {
  const struct {
    std::string name, quoted;
  } kCases[] = {
      {"", "\"\""},
      {"layer.weight", "\"layer.weight\""},
      {"a b", "\"a b\""},
      {"a\"b\\c", "\"a\\\"b\\\\c\""},
      {"a\nb\r\t", "\"a\\nb\\r\\t\""},
      {std::string("\0\x1b[2J\x7f", 6), "\"\\x00\\x1b[2J\\x7f\""},
      {"gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\""},
      {"\xff\xc3", "\"\\xff\\xc3\""},
      {"\xc2\x9b", "\"\\xc2\\x9b\""},  // a control character of the C1 set
      {"\xe2\x80\xae"
       "evil",
       "\"\\xe2\\x80\\xaeevil\""},              // right-to-left override
      {"\xe2\x80\xa8", "\"\\xe2\\x80\\xa8\""},  // line separator
      {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\""},  // surrogate
  };
  for (const auto& one : kCases) EXPECT_EQ(quote(one.name), one.quoted);
}

TEST(Quote, CutsLongNamesBetweenCharacters) {
  EXPECT_EQ(quote("abcdef", 6), "\"abcdef\"");
  EXPECT_EQ(quote("abcdef", 5), "\"abcde\"...");
  EXPECT_EQ(quote("ab\xc3\xbc"
                  "d",
                  3),
            "\"ab\"...");
  EXPECT_EQ(quote(std::string(10'000, 'x')).size(), 205u);
}

TEST(Utf8, KnowsWellFormedText) {
  const struct {
    std::string text;
    bool good;
  } kCases[] = {
      {"", true},
      {std::string("\0", 1), true},
      {"\x7f", true},
      {"\xc2\x80", true},
      {"\xdf\xbf", true},
      {"\xe0\xa0\x80", true},
      {"\xed\x9f\xbf", true},
      {"\xee\x80\x80", true},
      {"\xef\xbf\xbf", true},
      {"\xf0\x90\x80\x80", true},
      {"\xf4\x8f\xbf\xbf", true},
      {"a\xe2\x82\xac"
       "b",
       true},
      {"\x80", false},
      {"\xbf", false},
      {"\xc0\x80", false},          // overlong
      {"\xc1\xbf", false},          // overlong
      {"\xe0\x9f\xbf", false},      // overlong
      {"\xf0\x8f\xbf\xbf", false},  // overlong
      {"\xed\xa0\x80", false},      // surrogate
      {"\xed\xbf\xbf", false},      // surrogate
      {"\xf4\x90\x80\x80", false},  // beyond U+10FFFF
      {"\xf5\x80\x80\x80", false},
      {"\xff", false},
      {"\xc2", false},
      {"\xe2\x82", false},
      {"\xf0\x90\x80", false},
      {"\xc2\x41", false},
      {"\xe2\x82\x41", false},
  };
  for (const auto& one : kCases) EXPECT_EQ(is_utf8(one.text), one.good) << quote(one.text);
}

}  // namespace
}  // namespace ckpt
