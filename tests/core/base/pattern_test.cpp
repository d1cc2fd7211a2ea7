#include "core/base/pattern.h"

#include <gtest/gtest.h>

#include "ckpt/error.h"

namespace ckpt {
namespace {

TEST(Pattern, IsMatchedAnywhereUnlessAnchored) {
  EXPECT_TRUE(Pattern("fc\\.", "exclude").matches("model.fc.weight"));
  EXPECT_FALSE(Pattern("^fc\\.", "exclude").matches("model.fc.weight"));
  EXPECT_TRUE(Pattern("weight$", "exclude").matches("model.fc.weight"));
}

TEST(Pattern, ReplacesEveryMatchWithGroups) {
  EXPECT_EQ(Pattern("block(\\d+)", "rename").replaced("block1.block22.w", "layers.\\1"), "layers.1.layers.22.w");
  EXPECT_EQ(Pattern("^model\\.", "rename").replaced("model.model.w", ""), "model.w");
  EXPECT_EQ(Pattern("x", "rename").replaced("abc", "y"), "abc");
}

TEST(Pattern, TellsAReplacementThatNamesAGroupItHasNot) {
  EXPECT_EQ(Pattern("(a)", "rename").problem_with("\\1"), "");
  EXPECT_NE(Pattern("a", "rename").problem_with("\\1"), "");
}

TEST(Pattern, RefusesWhatIsNoPattern) {
  try {
    Pattern("(", "exclude");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalid);
    EXPECT_NE(std::string(error.what()).find("exclude: \"(\""), std::string::npos) << error.what();
  }
}

TEST(Pattern, ALongHostileNameTakesLinearTime) {
  const std::string name(1 << 20, 'a');
  EXPECT_FALSE(Pattern("(a+)+$b", "exclude").matches(name));
}

TEST(Pattern, MatchesBytesThatAreNotUtf8WithoutFailing) {
  EXPECT_TRUE(Pattern("w", "exclude").matches("\xff.w"));
}

}  // namespace
}  // namespace ckpt
