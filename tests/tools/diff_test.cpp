#include <gtest/gtest.h>

#include <cmath>

#include "program.h"
#include "weights_files.h"

namespace ckpt::test {
namespace {

class Diff : public ::testing::Test {
 protected:
  TempDir dir_;
  std::string a_ = dir_ / "a.safetensors";
  std::string b_ = dir_ / "b.safetensors";
};

TEST_F(Diff, EqualWeightsExitWithZero) {
  write_floats(a_, {{"w", {{2}, {1, std::nanf("")}}}});
  write_floats(b_, {{"w", {{2}, {1, std::nanf("")}}}}, {{"other", "metadata"}});
  const Outcome text = ckpt({"diff", a_, b_});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(text.out, "equal  1 tensor\n");
  const Outcome json = ckpt({"diff", "--json", a_, b_});
  EXPECT_EQ(json.json(), (nlohmann::json{{"schema", 1},
                                         {"equal", true},
                                         {"added", nlohmann::json::array()},
                                         {"removed", nlohmann::json::array()},
                                         {"changed", nlohmann::json::array()}}));
}

TEST_F(Diff, ReportsWhatDiffersAndExitsWithOne) {
  write_floats(a_, {{"gone", {{1}, {1}}}, {"same", {{1}, {1}}}, {"shape", {{2}, {1, 2}}}, {"value", {{2}, {3, 4}}}});
  write_floats(b_, {{"new", {{1}, {1}}}, {"same", {{1}, {1}}}, {"shape", {{1, 2}, {1, 2}}}, {"value", {{2}, {3, 5}}}});
  const Outcome outcome = ckpt({"diff", "--json", a_, b_});
  EXPECT_EQ(outcome.code, 1);
  const nlohmann::json json = outcome.json();
  EXPECT_EQ(json.at("equal"), false);
  EXPECT_EQ(json.at("added"), nlohmann::json{"new"});
  EXPECT_EQ(json.at("removed"), nlohmann::json{"gone"});
  ASSERT_EQ(json.at("changed").size(), 2u);
  const nlohmann::json& shape = json.at("changed").at(0);
  EXPECT_EQ(shape.at("kind"), "shape");
  EXPECT_EQ(shape.at("a"), "float32 [2]");
  EXPECT_EQ(shape.at("b"), "float32 [1, 2]");
  const nlohmann::json& value = json.at("changed").at(1);
  EXPECT_EQ(value.at("name"), "value");
  EXPECT_EQ(value.at("kind"), "value");
  EXPECT_EQ(value.at("max_abs"), 1.0);
  EXPECT_EQ(value.at("max_rel"), 0.2);
  EXPECT_NEAR(value.at("cosine").get<double>(), 29 / (5 * std::sqrt(34.0)), 1e-12);
  EXPECT_EQ(value.at("max_ulp"), std::bit_cast<uint32_t>(5.0f) - std::bit_cast<uint32_t>(4.0f));
  const Outcome text = ckpt({"diff", a_, b_});
  for (const char* expected : {"removed", "gone", "added", "new", "shape", "[1, 2]", "value", "0.2"}) {
    EXPECT_NE(text.out.find(expected), std::string::npos) << expected << " in " << text.out;
  }
}

TEST_F(Diff, TolerancesDecideWhatIsEqual) {
  write_floats(a_, {{"w", {{2}, {100, 1}}}});
  write_floats(b_, {{"w", {{2}, {101, 1}}}});
  EXPECT_EQ(ckpt({"diff", a_, b_}).code, 1);
  EXPECT_EQ(ckpt({"diff", a_, b_, "--atol", "1"}).code, 0);
  EXPECT_EQ(ckpt({"diff", a_, b_, "--rtol", "0.01"}).code, 0);
  EXPECT_EQ(ckpt({"diff", a_, b_, "--rtol", "0.001"}).code, 1);
  EXPECT_EQ(ckpt({"diff", a_, b_, "--atol", "-1"}).code, 2);
  EXPECT_EQ(ckpt({"diff", a_, b_, "--rtol", "much"}).code, 2);
}

TEST_F(Diff, NonFiniteNumbersAreSpelledOut) {
  write_floats(a_, {{"w", {{1}, {std::nanf("")}}}});
  write_floats(b_, {{"w", {{1}, {1}}}});
  const nlohmann::json json = ckpt({"diff", "--json", a_, b_}).json();
  EXPECT_EQ(json.at("changed").at(0).at("max_abs"), "Infinity");
}

TEST_F(Diff, ComparesAnyTwoFormats) {
  add_checkpoint(dir_ / "run", {.iteration = 1, .state = data("tools/parts.pt")});
  ASSERT_EQ(ckpt({"convert", dir_ / "run", a_}).code, 0);
  const Outcome outcome = ckpt({"diff", dir_ / "run", a_});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(ckpt({"diff", dir_ / "run/step-000000000001", dir_ / "run/latest"}).code, 0);
}

TEST_F(Diff, TellsWhatCannotBeCompared) {
  write_floats(a_, {{"w", {{1}, {1}}}});
  EXPECT_EQ(ckpt({"diff", a_, dir_ / "absent"}).code, 6);
  EXPECT_EQ(ckpt({"diff", a_, a_, "--key", "nothing"}).code, 6);
  write_all(b_, read_all(a_).substr(0, 20));
  EXPECT_EQ(ckpt({"diff", a_, b_}).code, 4);
  EXPECT_EQ(ckpt({"diff", a_}).code, 2);
}

}  // namespace
}  // namespace ckpt::test
