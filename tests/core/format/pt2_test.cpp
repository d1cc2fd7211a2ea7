#include "core/format/pt2.h"

#include <gtest/gtest.h>

#include <map>

#include "core/format/zip_builder.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using test::zip_entry;

class Pt2Test : public testing::Test {
 protected:
  void read(const std::string& path) {
    file_ = std::make_unique<io::File>(io::File::open(path));
    const ZipReader zip(*file_);
    EXPECT_TRUE(is_pt2(zip));
    names_.clear();
    for (NamedTensor& named : read_pt2(zip)) {
      names_.push_back(named.name);
      weights_[named.name] = std::move(named.stored);
    }
  }
  /// What stands where the first element of a weight should be.
  float first_of(const std::string& name) {
    const auto bytes = file_->read_at(weights_.at(name).file_offset, 4);
    return std::bit_cast<float>(load_le<uint32_t>(bytes.data()));
  }

  test::TempDir dir_;
  std::unique_ptr<io::File> file_;
  std::vector<std::string> names_;
  std::map<std::string, StoredTensor> weights_;
};

TEST_F(Pt2Test, ReadsTheWeightsThatTorchExportSaved) {
  read(std::string(CKPT_TEST_DATA) + "/pt2/net.pt2");
  EXPECT_EQ(names_, (std::vector<std::string>{"low", "embedding.weight", "out.weight", "norm.weight", "norm.bias",
                                              "view", "transposed", "scalar", "empty", "norm.running_mean",
                                              "norm.running_var", "norm.num_batches_tracked"}));
  EXPECT_EQ(weights_["low"].dtype, DType::kBFloat16);
  EXPECT_EQ(weights_["low"].bytes, 12u);
  EXPECT_TRUE(weights_["low"].is_parameter);
  EXPECT_FALSE(weights_["norm.running_mean"].is_parameter);
  EXPECT_EQ(weights_["scalar"].dtype, DType::kInt64);
  EXPECT_TRUE(weights_["scalar"].shape.empty());
  EXPECT_EQ(weights_["empty"].shape, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(weights_["transposed"].strides, (std::vector<int64_t>{1, 3}));
}

TEST_F(Pt2Test, KeepsTiesAndViews) {
  read(std::string(CKPT_TEST_DATA) + "/pt2/net.pt2");
  EXPECT_EQ(weights_["out.weight"].file_offset, weights_["embedding.weight"].file_offset);
  EXPECT_EQ(weights_["out.weight"].record, "data/weights/weight_1");
  EXPECT_EQ(first_of("embedding.weight"), 0.0f);
  EXPECT_EQ(weights_["view"].strides, (std::vector<int64_t>{4, 1}));
  EXPECT_EQ(weights_["view"].storage_bytes, 48u);
  EXPECT_EQ(first_of("view"), 1.0f);
}

TEST_F(Pt2Test, NamesWeightsOfSeveralModelsAfterThem) {
  read(std::string(CKPT_TEST_DATA) + "/pt2/two.pt2");
  EXPECT_EQ(names_, (std::vector<std::string>{"a.w", "b.w"}));
  EXPECT_EQ(first_of("a.w"), 1.0f);
  EXPECT_EQ(first_of("b.w"), 2.0f);
}

TEST_F(Pt2Test, TakesTheHintOfASizeThatIsAnExpressionAndPassesOverNewFields) {
  const std::string table =
      R"({"new": [1, {"x": null}], "config": {"w": {"path_name": "weight_0", "is_param": true, "use_pickle": false,
      "more": {"a": [1.5]}, "tensor_meta": {"dtype": 1, "sizes": [{"as_expr": {"expr_str": "s0", "hint": {"as_int": 3}}}],
      "strides": [{"as_int": 1}], "storage_offset": {"as_int": 1}, "requires_grad": false, "layout": 7,
      "device": {"type": "cpu", "index": null}}}}})";
  test::write_all(dir_ / "f.pt2",
                  test::ZipImage{.entries = {zip_entry("a/archive_format", "pt2"), zip_entry("a/byteorder", "big"),
                                             zip_entry("a/data/weights/weight_0", "wxyz"),
                                             zip_entry("a/data/weights/model_weights_config.json", table)}}
                      .bytes());
  read(dir_ / "f.pt2");
  EXPECT_EQ(weights_.at("w").shape, (std::vector<int64_t>{3}));
  EXPECT_EQ(file_->read_at(weights_.at("w").file_offset, 1)[0], std::byte{'x'});
  EXPECT_TRUE(weights_.at("w").big_endian);
}

}  // namespace
}  // namespace ckpt::format
