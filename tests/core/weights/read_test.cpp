// Elements of tensors of any strides, read and streamed.
#include <gtest/gtest.h>

#include <random>

#include "core/base/checksum.h"
#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

/// Element by element, by the definition of strides.
std::string naive(const std::string& file, const format::StoredTensor& tensor) {
  const size_t bytes = width(tensor.dtype);
  std::string result(tensor.bytes, '\0');
  std::vector<int64_t> index(tensor.shape.size(), 0);
  for (uint64_t i = 0; i < tensor.elements; ++i) {
    uint64_t at = tensor.file_offset;
    for (size_t d = 0; d < index.size(); ++d) at += static_cast<uint64_t>(index[d] * tensor.strides[d]) * bytes;
    std::memcpy(result.data() + i * bytes, file.data() + at, bytes);
    for (size_t d = index.size(); d-- > 0 && ++index[d] == tensor.shape[d];) index[d] = 0;
  }
  return result;
}

std::string streamed(const Weights& weights, const Tensor& tensor) {
  std::string bytes;
  weights.stream(tensor, [&](ByteView piece) {
    EXPECT_LE(piece.size(), 4u << 20);
    bytes += as_text(piece);
  });
  return bytes;
}

class ReadTest : public testing::Test {
 protected:
  Weights weights_with(const std::string& bytes, std::vector<format::StoredTensor> tensors) {
    if (test::read_all(dir_ / "file") != bytes) test::write_all(dir_ / "file", bytes);
    std::vector<Tensor> named;
    for (format::StoredTensor& tensor : tensors)
      named.push_back({"t" + std::to_string(named.size()), std::move(tensor)});
    return test::weights_over(dir_ / "file", std::move(named));
  }
  std::string random_bytes(size_t count) {
    std::string bytes(count, '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    return bytes;
  }

  test::TempDir dir_;
  std::mt19937_64 random_{1};
};

TEST_F(ReadTest, TensorsOfRandomShapesAndStridesAreWhatTheirStridesSay) {
  constexpr std::array kDTypes = {DType::kUInt8, DType::kFloat16, DType::kFloat32, DType::kInt64, DType::kComplex128};
  const auto below = [&](uint64_t limit) { return random_() % limit; };
  const std::string bytes = random_bytes(60000);
  for (int round = 0; round < 400; ++round) {
    const DType dtype = kDTypes[below(kDTypes.size())];
    std::vector<int64_t> shape, strides;
    for (uint64_t d = below(5); d > 0; --d) {
      shape.push_back(static_cast<int64_t>(below(6)));
      strides.push_back(static_cast<int64_t>(below(12)) * (below(4) == 0 ? 13 : 1));
    }
    if (below(3) == 0) strides = format::contiguous_strides(shape);
    const uint64_t begin = below(100) * 8;
    const format::StoredTensor tensor =
        test::stored(dtype, shape, strides, begin, (bytes.size() - begin) / 16 * 16, static_cast<int64_t>(below(50)));
    const Weights weights = weights_with(bytes, {tensor});
    const std::string expected = naive(bytes, tensor);
    ASSERT_EQ(test::read(weights, "t0"), expected) << "round " << round;
    ASSERT_EQ(streamed(weights, weights.tensors()[0]), expected) << "round " << round;
  }
}

TEST_F(ReadTest, LargeTransposedAndSlicedTensorsAreGatheredInParts) {
  const std::string bytes = random_bytes(2600000);
  const uint64_t size = bytes.size();
  const std::vector<format::StoredTensor> tensors = {
      test::stored(DType::kFloat32, {512, 1100}, {1, 512}, 0, size),         // Fortran order
      test::stored(DType::kFloat32, {300, 3}, {1500, 1}, 0, size, 7),        // three columns of a wide matrix
      test::stored(DType::kUInt8, {2, 1200000}, {1200001, 1}, 0, size, 5),   // rows larger than the buffer
      test::stored(DType::kInt16, {2, 100, 400}, {1, 2, 3000}, 0, size),     // overlapping
      test::stored(DType::kFloat64, {40, 2, 300}, {0, 300000, 7}, 0, size),  // expanded
  };
  const Weights weights = weights_with(bytes, tensors);
  for (const Tensor& tensor : weights.tensors()) {
    const std::string expected = naive(bytes, tensor.stored);
    EXPECT_TRUE(test::read(weights, tensor) == expected) << tensor.name;
    EXPECT_TRUE(streamed(weights, tensor) == expected) << tensor.name;
  }
}

TEST_F(ReadTest, RowsLargerThanTheBufferAreExpandedFromOneReading) {
  const std::string bytes = random_bytes(2300000);
  const Weights weights =
      weights_with(bytes, {test::stored(DType::kUInt8, {2, 2, 2, 1100000}, {0, 1100000, 0, 1}, 0, bytes.size())});
  EXPECT_TRUE(test::read(weights, "t0") == naive(bytes, weights.tensors()[0].stored));
}

TEST_F(ReadTest, ASliceIsReadWithoutTheRest) {
  const std::string bytes = test::bytes_of(std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7});
  const Weights weights = weights_with(bytes, {test::stored(DType::kInt32, {4, 2}, {2, 1}, 0, bytes.size())});
  const Tensor& tensor = weights.tensors()[0];
  const format::StoredTensor slice = format::narrow(tensor.stored, 0, 1, 3);
  std::string read(slice.bytes, '?');
  weights.read(tensor, slice, std::as_writable_bytes(std::span(read)));
  EXPECT_EQ(test::values_of<int32_t>(read), (std::vector<int32_t>{2, 3, 4, 5}));
}

TEST_F(ReadTest, BigEndianElementsAreTurnedAround) {
  format::StoredTensor tensor = test::stored(DType::kInt32, {2}, {1}, 0, 8);
  tensor.big_endian = true;
  const Weights weights = weights_with(std::string("\0\0\0\1\0\0\1\0", 8), {tensor});
  EXPECT_EQ(test::values_of<int32_t>(test::read(weights, "t0")), (std::vector<int32_t>{1, 256}));
  EXPECT_EQ(test::values_of<int32_t>(streamed(weights, weights.tensors()[0])), (std::vector<int32_t>{1, 256}));
}

TEST_F(ReadTest, BoolsOfAnyBytesBecomeZeroOrOne) {
  const Weights weights = weights_with("\x02\xff\x01\x03", {test::stored(DType::kBool, {4}, {1}, 0, 4)});
  EXPECT_EQ(test::read(weights, "t0"), "\1\1\1\1");
  EXPECT_EQ(streamed(weights, weights.tensors()[0]), "\1\1\1\1");
}

TEST_F(ReadTest, AFileThatShrinksIsDamageThatNamesTheTensor) {
  const std::string bytes = random_bytes(4096);
  const Weights weights = weights_with(
      bytes, {test::stored(DType::kUInt8, {4096}, {1}, 0, 4096), test::stored(DType::kUInt8, {64}, {64}, 0, 4096)});
  std::filesystem::resize_file(dir_ / "file", 100);
  for (const Tensor& tensor : weights.tensors()) {
    for (const Error& error :
         {test::error_of([&] { test::read(weights, tensor); }), test::error_of([&] { streamed(weights, tensor); })}) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_EQ(error.tensor(), tensor.name);
      EXPECT_NE(std::string(error.what()).find("cut off"), std::string::npos) << error.what();
    }
  }
}

TEST_F(ReadTest, RoomOfAnotherSizeIsRefused) {
  const Weights weights = weights_with("12345678", {test::stored(DType::kUInt8, {8}, {1}, 0, 8)});
  std::string room(7, '\0');
  const Error error =
      test::error_of([&] { weights.read(weights.tensors()[0], std::as_writable_bytes(std::span(room))); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
}

TEST_F(ReadTest, QuantizedAndSparseTensorsHaveNoPlainElements) {
  format::StoredTensor quantized = test::stored(DType::kQInt8, {8}, {1}, 0, 8);
  quantized.layout = format::TensorLayout::kQuantized;
  format::StoredTensor sparse;
  sparse.shape = {1000};
  sparse.elements = 1000;
  sparse.bytes = 4000;
  sparse.layout = format::TensorLayout::kSparse;
  const Weights weights = weights_with("12345678", {quantized, sparse});
  for (const Tensor& tensor : weights.tensors()) {
    EXPECT_EQ(test::error_of([&] { test::read(weights, tensor); }).code(), ErrorCode::kUnsupported);
    EXPECT_EQ(test::error_of([&] { streamed(weights, tensor); }).code(), ErrorCode::kUnsupported);
  }
}

}  // namespace
}  // namespace ckpt::weights
