#include "core/run/names.h"

#include <gtest/gtest.h>

namespace ckpt::run {
namespace {

TEST(RunNames, StepHasTwelveDigitsAtLeast) {
  EXPECT_EQ(step_name(1200), "step-000000001200");
  EXPECT_EQ(step_name(0), "step-000000000000");
  EXPECT_EQ(step_name(UINT64_MAX), "step-18446744073709551615");
}

TEST(RunNames, IterationOfUndoesStepName) {
  for (uint64_t iteration :
       {uint64_t{0}, uint64_t{7}, uint64_t{999'999'999'999}, uint64_t{1'000'000'000'000}, UINT64_MAX}) {
    EXPECT_EQ(iteration_of(step_name(iteration)), iteration);
  }
}

TEST(RunNames, OtherNamesAreNoSteps) {
  for (const char* name :
       {"", "step-", "step-1", "step-00000000001", "step-0000000000001", "step-00000000000a", "step--00000000001",
        "step-+00000000001", "step- 00000000001", "Step-000000000001", "step-000000000001 ", "step-000000000001/",
        "step-18446744073709551616", "step-99999999999999999999999", "latest", ".lock", "xstep-000000000001"}) {
    EXPECT_EQ(iteration_of(name), std::nullopt) << name;
  }
}

TEST(RunNames, LeftoversAreToldApartAndNameTheirStep) {
  std::string step;
  EXPECT_EQ(leftover_of(temporary_name(5), &step), Leftover::kTemporary);
  EXPECT_EQ(step, step_name(5));
  EXPECT_EQ(leftover_of(replaced_name(step_name(6)), &step), Leftover::kReplaced);
  EXPECT_EQ(step, step_name(6));
  EXPECT_EQ(leftover_of(trash_name(step_name(7)), &step), Leftover::kTrash);
  EXPECT_EQ(step, step_name(7));
  EXPECT_EQ(leftover_of("latest.tmp-0123456789abcdef0123456789abcdef", &step), Leftover::kTemporary);
  EXPECT_EQ(step, "latest");
  EXPECT_NE(temporary_name(5), temporary_name(5));
}

TEST(RunNames, WhatAUserMadeIsNoLeftover) {
  const std::string good = temporary_name(5);
  for (const std::string& name :
       {std::string("step-000000000005"), good + "0", good.substr(0, good.size() - 1), "x" + good,
        std::string("step-000000000005.tmp-"), std::string("step-000000000005.bak"),
        std::string("latest.old-0123456789abcdef0123456789abcdef"),
        std::string("x.tmp-0123456789abcdef0123456789abcdef"),
        std::string("step-5.tmp-0123456789abcdef0123456789abcdef"),
        std::string("step-000000000005.tmp-0123456789ABCDEF0123456789abcdef")}) {
    EXPECT_EQ(leftover_of(name), Leftover::kNone) << name;
  }
}

}  // namespace
}  // namespace ckpt::run
