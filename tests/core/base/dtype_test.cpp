#include "core/base/dtype.h"

#include <gtest/gtest.h>

#include <set>

namespace ckpt {
namespace {

TEST(DType, NamesGoBothWays) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(DType::kQUInt2x4); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(name(dtype)), dtype);
    EXPECT_TRUE(names.insert(name(dtype)).second) << name(dtype);
    if (auto spelling = safetensors_name(dtype)) {
      EXPECT_EQ(dtype_from_safetensors(*spelling), dtype);
    }
  }
  EXPECT_EQ(dtype_from_name("bf16"), DType::kBFloat16);
  EXPECT_EQ(dtype_from_name("f16"), DType::kFloat16);
  EXPECT_EQ(dtype_from_name("f32"), DType::kFloat32);
  EXPECT_EQ(dtype_from_name("f64"), DType::kFloat64);
  EXPECT_EQ(dtype_from_name("Float32"), std::nullopt);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
}

TEST(DType, KnowsWidthsAndSpellingsOfOthers) {
  EXPECT_EQ(width(DType::kBool), 1u);
  EXPECT_EQ(width(DType::kBFloat16), 2u);
  EXPECT_EQ(width(DType::kFloat32), 4u);
  EXPECT_EQ(width(DType::kComplex128), 16u);
  EXPECT_EQ(width(DType::kFloat8E4M3FN), 1u);
  EXPECT_EQ(dtype_from_storage_class("LongStorage"), DType::kInt64);
  EXPECT_EQ(dtype_from_storage_class("BFloat16Storage"), DType::kBFloat16);
  EXPECT_EQ(dtype_from_storage_class("ByteStorage"), DType::kUInt8);
  EXPECT_EQ(dtype_from_storage_class("UntypedStorage"), std::nullopt);
  EXPECT_EQ(dtype_from_storage_class(""), std::nullopt);
  EXPECT_EQ(safetensors_name(DType::kInt64), "I64");
  EXPECT_EQ(safetensors_name(DType::kComplex128), std::nullopt);
  EXPECT_EQ(dtype_from_safetensors(""), std::nullopt);
  EXPECT_EQ(dtype_from_safetensors("F4"), std::nullopt);
}

}  // namespace
}  // namespace ckpt
