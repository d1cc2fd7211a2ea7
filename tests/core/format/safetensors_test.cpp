#include "core/format/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/format/safetensors_builder.h"
#include "support/made_tensors.h"
#include "support/python.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using test::safetensors;

const char* const kHeader =
    R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";

class SafetensorsTest : public testing::Test {
 protected:
  io::File file_of(const std::string& bytes) {
    std::filesystem::remove(dir_ / "f.safetensors");  // ext4 flushes a file that was cut to be written again
    test::write_all(dir_ / "f.safetensors", bytes);
    return io::File::open(dir_ / "f.safetensors");
  }
  std::optional<ErrorCode> error_of(const std::string& bytes) {
    const io::File file = file_of(bytes);
    try {
      read_safetensors(file);
      return std::nullopt;
    } catch (const Error& error) {
      EXPECT_EQ(error.path(), file.path());
      message_ = error.what();
      return error.code();
    }
  }
  static TensorToWrite tensor(const std::string& name, DType dtype, std::vector<int64_t> shape, std::string_view data) {
    return {.name = name, .dtype = dtype, .shape = std::move(shape), .data = as_bytes(data)};
  }
  std::string write(std::vector<TensorToWrite> tensors, const std::map<std::string, std::string>& metadata) {
    io::replace_file(dir_ / "out.safetensors",
                     [&](io::BlockWriter& writer) { write_safetensors(writer, std::move(tensors), metadata); });
    return test::read_all(dir_ / "out.safetensors");
  }

  test::TempDir dir_;
  std::string message_;
};

TEST_F(SafetensorsTest, ReadsTensorsInTheOrderOfTheirData) {
  const SafetensorsIndex index = read_safetensors(file_of(safetensors(kHeader, "01234567xyz")));
  ASSERT_EQ(index.tensors.size(), 2u);
  EXPECT_EQ(index.tensors[0].name, "b");
  EXPECT_EQ(index.tensors[1].name, "a");
  EXPECT_EQ(index.tensors[1].stored.dtype, DType::kUInt8);
  EXPECT_EQ(index.tensors[1].stored.shape, (std::vector<int64_t>{3}));
  EXPECT_EQ(index.tensors[1].stored.file_offset, index.data_offset + 8);
  EXPECT_TRUE(index.tensors[1].stored.contiguous());
  EXPECT_TRUE(index.metadata.empty());
}

TEST_F(SafetensorsTest, ReadsWhatPythonWrote) {
  const io::File file = io::File::open(std::string(CKPT_TEST_DATA) + "/safetensors/python.safetensors");
  const SafetensorsIndex index = read_safetensors(file);
  EXPECT_EQ(index.metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"a \"key\"", "valu\xc3\xa9\n"}}));
  std::map<std::string, StoredTensor> tensors;
  for (const NamedTensor& named : index.tensors) tensors[named.name] = named.stored;
  for (const char* dtype : {"bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
                            "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2"}) {
    ASSERT_TRUE(tensors.contains(dtype)) << dtype;
    EXPECT_EQ(name(tensors[dtype].dtype), dtype);
    EXPECT_EQ(tensors[dtype].shape, (std::vector<int64_t>{2, 3}));
  }
  EXPECT_TRUE(tensors["scalar"].shape.empty());
  EXPECT_EQ(tensors["empty"].shape, (std::vector<int64_t>{0, 4}));
  const auto bytes = file.read_at(tensors["int32"].file_offset, 24);
  for (int32_t i = 0; i < 6; ++i) EXPECT_EQ(load_le<int32_t>(bytes.data() + 4 * i), i);
}

TEST_F(SafetensorsTest, ReadsLegalOddities) {
  EXPECT_EQ(error_of(safetensors("{}", "")), std::nullopt) << message_;
  EXPECT_EQ(error_of(safetensors("  {} \n", "")), std::nullopt) << message_;
  EXPECT_EQ(error_of(safetensors(R"({"__metadata__":{}})", "")), std::nullopt) << message_;
  EXPECT_EQ(error_of(safetensors(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x")), std::nullopt)
      << message_;
  EXPECT_EQ(error_of(safetensors(R"({"x":{"data_offsets":[0,0],"shape":[0,99999999999],"dtype":"F64"}})", "")),
            std::nullopt)
      << message_;
}

TEST_F(SafetensorsTest, ReadsWhatLiesBetweenTensorsOfLessThanAByteAnElement) {
  const SafetensorsIndex index =
      read_safetensors(file_of(safetensors(R"({"b":{"dtype":"F6_E2M3","shape":[2,2],"data_offsets":[3,6]},)"
                                           R"("a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                                           R"("c":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})",
                                           "cdeffg")));
  ASSERT_EQ(index.tensors.size(), 1u);
  EXPECT_EQ(index.tensors[0].name, "a");
  EXPECT_EQ(index.tensors[0].stored.file_offset, index.data_offset + 1);
  ASSERT_EQ(index.opaque.size(), 2u);
  EXPECT_EQ(index.opaque[0].name, "c");
  EXPECT_EQ(index.opaque[0].file_offset, index.data_offset);
  EXPECT_EQ(index.opaque[1].dtype, "F6_E2M3");
  EXPECT_EQ(index.opaque[1].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(index.opaque[1].bytes, 3u);
}

TEST_F(SafetensorsTest, ATextBeyondItsCapIsRefused) {
  EXPECT_EQ(error_of(safetensors("{\"" + std::string(9 << 20, 'n') + "\":1}", "")), ErrorCode::kCorrupt);
}

TEST_F(SafetensorsTest, WritesWidestFirstThenByNameAligned) {
  const std::string bytes(16, 'd');
  const std::string_view data(bytes);
  const std::vector<TensorToWrite> tensors = {
      tensor("z", DType::kUInt8, {3}, data.substr(0, 3)), tensor("b", DType::kFloat32, {2}, data.substr(0, 8)),
      tensor("a", DType::kFloat32, {1, 1}, data.substr(0, 4)), tensor("w", DType::kInt64, {2}, data),
      tensor("empty", DType::kFloat64, {0}, data.substr(0, 0))};
  const std::map<std::string, std::string> metadata = {{"k\"", "v\n"}};
  const std::string written = write(tensors, metadata);
  const SafetensorsIndex index = read_safetensors(io::File::open(dir_ / "out.safetensors"));
  std::vector<std::string> names;
  for (const NamedTensor& named : index.tensors) {
    names.push_back(named.name);
    EXPECT_EQ(named.stored.file_offset % width(named.stored.dtype), 0u) << named.name;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"empty", "w", "a", "b", "z"}));
  EXPECT_EQ(index.metadata, metadata);
  EXPECT_EQ(index.data_offset % 8, 0u);
  EXPECT_EQ(written[8], '{');
  std::vector<TensorToWrite> shuffled(tensors.rbegin(), tensors.rend());
  EXPECT_EQ(write(shuffled, metadata), written);
}

/// What safetensors can hold; its Python package has no float8 of the kinds left out.
std::vector<DType> safetensors_dtypes() {
  std::vector<DType> dtypes = test::plain_dtypes();
  std::erase_if(dtypes, [](DType dtype) { return !safetensors_name(dtype).has_value(); });
  return dtypes;
}

/// Without ties, which safetensors cannot hold.
test::MadeTensors random_tensors(unsigned seed, const std::vector<DType>& dtypes) {
  test::MadeTensors made(seed);
  made.add_random(dtypes, /*ties=*/false);
  for (const DType dtype : dtypes) made.add(std::string(name(dtype)), dtype, {3, 1});
  return made;
}

TEST_F(SafetensorsTest, ReadsBackForAnyDtypeShapeAndName) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const test::MadeTensors made = random_tensors(seed, safetensors_dtypes());
    write(made.list(), {});
    const io::File file = io::File::open(dir_ / "out.safetensors");
    std::map<std::string, StoredTensor> read;
    for (const NamedTensor& named : read_safetensors(file).tensors) read[named.name] = named.stored;
    ASSERT_EQ(read.size(), made.list().size());
    for (size_t i = 0; i < made.list().size(); ++i) {
      const StoredTensor& tensor = read[made.list()[i].name];
      EXPECT_EQ(tensor.dtype, made.list()[i].dtype);
      EXPECT_EQ(tensor.shape, made.list()[i].shape);
      EXPECT_EQ(as_text(file.read_at(tensor.file_offset, tensor.bytes)), made.content(i)) << made.list()[i].name;
    }
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

TEST_F(SafetensorsTest, PythonReadsWhatWasWritten) {
  if (test::python() == nullptr) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  std::vector<DType> dtypes = safetensors_dtypes();
  std::erase(dtypes, DType::kFloat8E4M3FNUZ);
  std::erase(dtypes, DType::kFloat8E5M2FNUZ);
  std::vector<std::string> files;
  for (unsigned seed = 0; seed < 10; ++seed) {
    const std::string path = dir_ / (std::to_string(seed) + ".safetensors");
    write(random_tensors(seed, dtypes).list(), {{"format", "pt"}});
    std::filesystem::rename(dir_ / "out.safetensors", path);
    files.push_back("safe:" + path);
  }
  const auto read = test::read_with_torch(files);
  for (unsigned seed = 0; seed < 10; ++seed) {
    const test::MadeTensors made = random_tensors(seed, dtypes);
    std::map<std::string, nlohmann::ordered_json> told;
    ASSERT_TRUE(read[seed].contains("dict")) << read[seed].dump();
    for (const auto& item : read[seed]["dict"]) told[item[0]] = item[1];
    ASSERT_EQ(told.size(), made.list().size());
    for (size_t i = 0; i < made.list().size(); ++i) {
      nlohmann::ordered_json& tensor = told[made.list()[i].name];
      EXPECT_EQ(tensor, made.told(i, tensor["storage"].get<size_t>())) << made.list()[i].name;
    }
  }
}

TEST_F(SafetensorsTest, AWrongProducerEndsTheWriting) {
  TensorToWrite made = tensor("a", DType::kUInt8, {4}, "");
  for (const size_t count : {0, 1, 3}) {
    made.data = {4, [count](const ByteSink& sink) {
                   for (size_t i = 0; i < count; ++i) sink(as_bytes("12"));
                 }};
    try {
      write({made}, {});
      ADD_FAILURE() << count;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInternal);
      EXPECT_EQ(error.message(), "expected 4 bytes of a tensor, got " + std::to_string(2 * count));
    }
  }
  made.data = {4, [](const ByteSink&) { throw Error(ErrorCode::kCorrupt, "f", "damaged"); }};
  try {
    write({made}, {});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  }
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out.safetensors"));
}

TEST_F(SafetensorsTest, RefusesToWriteWhatCannotBeRead) {
  const auto code_of = [&](std::vector<TensorToWrite> tensors,
                           const std::map<std::string, std::string>& metadata = {}) {
    try {
      write(std::move(tensors), metadata);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  const TensorToWrite good = tensor("a", DType::kUInt8, {1}, "x");
  EXPECT_EQ(code_of({good, good}), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({tensor("a", DType::kUInt8, {2}, "x")}), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({tensor("a", DType::kUInt8, {-1}, "")}), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({tensor("__metadata__", DType::kUInt8, {1}, "x")}), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({tensor("\xff", DType::kUInt8, {1}, "x")}), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({good}, {{"k", "\xff"}}), ErrorCode::kInvalid);
  TensorToWrite tied = tensor("b", DType::kUInt8, {0}, "");
  tied.tied_to = 0;
  EXPECT_EQ(code_of({tensor("a", DType::kUInt8, {0}, ""), tied}), ErrorCode::kInvalid);
  EXPECT_EQ(code_of({tensor("a", DType::kComplex128, {1}, "0123456789abcdef")}), ErrorCode::kUnsupported);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out.safetensors"));
}

}  // namespace
}  // namespace ckpt::format
