// Tensors in the memory of a mapped file.
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "core/io/hooks.h"
#include "libtorch/weights_helpers.h"
#include "support/fault_hook.h"

namespace ckpt {
namespace {

using test::error_of;
using test::identical;
using test::read_all;
using test::TempDir;

constexpr ReadOptions kUnverified = {.verify = false};

std::string golden(const std::string& name) { return std::string(CKPT_TEST_DATA) + "/" + name; }

TEST(MappedTensors, HaveTheValuesAndStridesOfTheFile) {
  for (const char* name : {"torch/dtypes.pt", "torch/shapes.pt", "torch/dtypes-legacy.pt", "torch/state_dict.pt",
                           "torch/traced.pt", "archives/model-2.13.0.pt"}) {
    const auto weights = ModelState::open(golden(name));
    for (const TensorInfo& info : weights.tensors()) {
      torch::Tensor expected;
      try {
        expected = weights.tensor(info.name);
      } catch (const Error& error) {
        EXPECT_EQ(error_of([&] { weights.mapped(info.name); }).code(), error.code()) << name << " " << info.name;
        continue;
      }
      EXPECT_TRUE(identical(weights.mapped(info.name), expected)) << name << " " << info.name;
    }
  }
  const auto weights = ModelState::open(golden("torch/shapes.pt"));
  size_t with_gaps = 0;
  for (const TensorInfo& info : weights.tensors()) {
    const torch::Tensor mapped = weights.mapped(info.name);
    if (info.bytes == 0 || mapped.is_contiguous()) continue;
    EXPECT_EQ(mapped.strides().vec(), info.strides) << info.name;
    ++with_gaps;
  }
  EXPECT_GT(with_gaps, 0u);
}

/// A file of one million numbers and two more tensors.
class MappedFileOfTensors : public ::testing::Test {
 protected:
  MappedFileOfTensors() {
    ModelState::of({{"a", a_}, {"tied", a_}, {"b", b_}, {"flags", b_ > 0.5}}).save(path_, Format::kTorch);
  }

  const TempDir dir_;
  const std::string path_ = dir_ / "w.pt";
  const torch::Tensor a_ = torch::randn({1000, 1000}), b_ = torch::rand({7});
};

TEST_F(MappedFileOfTensors, OutliveTheModelStateAndTheName) {
  std::optional<ModelState> weights = ModelState::open(path_);
  const torch::Tensor a = weights->mapped("a"), b = weights->mapped("b");
  weights.reset();
  ModelState::of({{"a", torch::zeros({1000, 1000})}}).save(path_, Format::kTorch);
  EXPECT_TRUE(identical(a, a_));
  std::filesystem::remove(path_);
  EXPECT_TRUE(identical(b, b_));
}

TEST_F(MappedFileOfTensors, KeepWhatIsWrittenIntoThem) {
  const std::string before = read_all(path_);
  const auto weights = ModelState::open(path_);
  torch::Tensor a = weights.mapped("a");
  a.fill_(3);
  EXPECT_EQ(a.sum().item<double>(), 3e6);
  EXPECT_TRUE(identical(weights.tensor("a"), a_));
  EXPECT_TRUE(read_all(path_) == before);
  EXPECT_TRUE(identical(ModelState::open(path_).mapped("a"), a_));
}

TEST_F(MappedFileOfTensors, ShareMemoryWhereTheyAreTied) {
  const auto weights = ModelState::open(path_);
  const torch::Tensor a = weights.mapped("a"), tied = weights.mapped("tied"), b = weights.mapped("b");
  EXPECT_EQ(a.data_ptr(), tied.data_ptr());
  EXPECT_NE(a.data_ptr(), b.data_ptr());
  a[5][5] = 77;
  EXPECT_EQ(tied[5][5].item<float>(), 77);
  EXPECT_NE(weights.mapped("flags").data_ptr(), weights.mapped("flags").data_ptr()) << "bools are read";
}

TEST_F(MappedFileOfTensors, TakeOneMappingAndReadNothing) {
  const auto weights = ModelState::open(path_);
  test::FaultHook maps({.mutating_only = false, .only = io::Op::kMap});
  {
    const test::ScopedHook scoped(&maps);
    std::vector<torch::Tensor> all;
    for (int i = 0; i < 10; ++i) {
      for (const char* name : {"a", "tied", "b"}) all.push_back(weights.mapped(name, kUnverified));
    }
  }
  EXPECT_EQ(maps.calls(), 1u);
  test::FaultHook reads({.mutating_only = false, .only = io::Op::kRead});
  const test::ScopedHook scoped(&reads);
  weights.mapped("a", kUnverified);
  EXPECT_EQ(reads.calls(), 0u);
}

TEST_F(MappedFileOfTensors, OfAFileThatIsNoLongerWhatItWasAreAnError) {
  const auto weights = ModelState::open(path_), mapped_before = ModelState::open(path_);
  const torch::Tensor b = mapped_before.mapped("b", kUnverified);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  for (const char* name : {"a", "b"}) {
    const Error error = error_of([&] { weights.mapped(name, kUnverified); });
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    EXPECT_TRUE(test::mentions({error.what()}, "changed since it was opened")) << error.what();
    EXPECT_EQ(error_of([&] { mapped_before.mapped(name, kUnverified); }).code(), ErrorCode::kCorrupt);
  }
}

TEST_F(MappedFileOfTensors, AreVerifiedUnlessToldOtherwise) {
  std::string bytes = read_all(path_);
  const std::string value(static_cast<const char*>(b_.data_ptr()), b_.nbytes());
  bytes[bytes.find(value)] ^= 1;
  test::write_all(path_, bytes);
  const auto weights = ModelState::open(path_);
  EXPECT_EQ(error_of([&] { weights.mapped("b"); }).code(), ErrorCode::kCorrupt);
  EXPECT_FALSE(identical(weights.mapped("b", kUnverified), b_));
  EXPECT_TRUE(identical(weights.mapped("a"), a_));
}

TEST(MappedTensors, ThatDoNotLieAtAMultipleOfTheirSizeAreRead) {
  const TempDir dir;
  const std::string header = R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("y":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  const float values[2] = {1.5f, -2};
  bytes += header + "\x07" + std::string(reinterpret_cast<const char*>(values), sizeof values);
  test::write_all(dir / "w", bytes);
  const auto weights = ModelState::open(dir / "w");
  EXPECT_TRUE(identical(weights.mapped("x"), torch::tensor({7}, torch::kByte)));
  const torch::Tensor y = weights.mapped("y");
  EXPECT_TRUE(identical(y, torch::tensor({1.5f, -2.f})));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(y.data_ptr()) % alignof(float), 0u);
}

TEST(MappedTensors, OfLiveOnesAreThemselves) {
  const torch::Tensor a = torch::ones({2});
  EXPECT_TRUE(ModelState::of({{"a", a}}).mapped("a").is_same(a));
}

}  // namespace
}  // namespace ckpt
