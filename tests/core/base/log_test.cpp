#include "core/base/log.h"

#include <gtest/gtest.h>

namespace ckpt {
namespace {

TEST(Log, WritesOneLineEachWithItsLevel) {
  ::testing::internal::CaptureStderr();
  log(LogLevel::kDebug, "not shown by default");
  log(LogLevel::kInfo, "braces {} and %s stay");
  log(LogLevel::kWarning, "two\nlines");
  log(LogLevel::kError, "bad");
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(text, "ckpt: info: braces {} and %s stay\nckpt: warning: two lines\nckpt: error: bad\n");
}

}  // namespace
}  // namespace ckpt
