#include "core/weights/values.h"

#include <gtest/gtest.h>

#include "core/format/torch_builder.h"
#include "support/temp_dir.h"

namespace ckpt::weights {
namespace {

using namespace test::pickled;
using format::TorchFile;
using nlohmann::json;

json values_in(const std::string& path) { return values_of(TorchFile::open(io::File::open(path))); }

TEST(Values, ShowNumbersOfNumpy) {
  const json values = values_in(CKPT_TEST_DATA "/python_checkpoints/odd.pt");
  EXPECT_EQ(values["iterations"], 7000000000);
  EXPECT_EQ(values["best_metric"], double{0.1f});
  EXPECT_EQ(values["gradient_scaler_state_dict"], json::parse(R"({"scale": 2.0, "_growth_tracker": 3})"));
  EXPECT_EQ(values["args"], "<argparse.Namespace>");
}

TEST(Values, ShowATextThatManyAreOnlySoOften) {
  const test::TempDir dir;
  std::string pickle = text(std::string(100000, 't')) + "q\x01](";
  for (int i = 0; i < 50000; ++i) pickle += "h\x01";
  test::write_all(dir / "file", archive(whole(pickle + "e\x86")).bytes());
  const json values = values_in(dir / "file");
  ASSERT_EQ(values[1].size(), 50000u);
  EXPECT_EQ(values[1][0].get<std::string>().size(), 100000u);
  EXPECT_EQ(values[1][49999], "<100000 bytes>");
  EXPECT_LT(values.dump().size(), 3u << 20);
}

}  // namespace
}  // namespace ckpt::weights
