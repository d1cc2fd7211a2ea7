#include "core/format/torch_writer.h"

#include <gtest/gtest.h>

#include "core/base/checksum.h"
#include "core/format/torch_file.h"
#include "core/format/zip_reader.h"
#include "support/made_tensors.h"
#include "support/python.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using Json = nlohmann::ordered_json;

Json told(const std::vector<std::pair<Json, Json>>& items, bool ordered = false, const Json& metadata = nullptr) {
  Json list = Json::array();
  for (const auto& [key, value] : items) list.push_back(Json::array({key, value}));
  return {{"dict", list}, {"ordered", ordered}, {"metadata", metadata}};
}
Json told_tuple(const Json::array_t& items) { return {{"tuple", items}}; }
Json told(double number) {
  char text[64];
  std::snprintf(text, sizeof text, "%a", number);
  return {{"float", text}};
}

PickleValue none() { return {PickleValue::None()}; }

/// A state_dict's `_metadata`: module path -> {"version": 2}.
PickleValue metadata_of(const std::string& module) {
  PickleValue::Dict version, modules{.items = {}, .ordered = true};
  version.items.emplace_back(PickleValue{std::string("version")}, PickleValue{int64_t{2}});
  modules.items.emplace_back(PickleValue{module}, PickleValue{version});
  return {modules};
}

class TorchWriterTest : public testing::Test {
 protected:
  std::string write(const std::string& name, const PickleValue& value, const std::vector<TensorToWrite>& tensors) {
    io::replace_file(dir_ / name, [&](io::BlockWriter& writer) { write_torch(writer, value, tensors); });
    return dir_ / name;
  }
  std::string write_state_dict(const std::string& name, const std::vector<TensorToWrite>& tensors) {
    return write(name, state_dict_value(tensors, none()), tensors);
  }
  std::optional<ErrorCode> error_of(const PickleValue& value, const std::vector<TensorToWrite>& tensors) {
    bool appended = true;
    try {
      io::replace_file(dir_ / "refused.pt", [&](io::BlockWriter& writer) {
        appended = false;
        write_torch(writer, value, tensors);
        appended = true;
      });
      return std::nullopt;
    } catch (const Error& error) {
      EXPECT_FALSE(appended);
      message_ = error.message();
      return error.code();
    }
  }

  test::TempDir dir_;
  std::string message_;
};

/// Every dtype, a number, an empty one, a tie.
test::MadeTensors various() {
  test::MadeTensors made;
  for (const DType dtype : test::plain_dtypes()) made.add(std::string(name(dtype)), dtype, {2, 3});
  made.add("scalar", DType::kFloat32, {});
  made.add("empty", DType::kFloat64, {3, 0, 2});
  made.add("weight", DType::kFloat32, {5, 4}).is_parameter = true;
  made.tie("tied", made.list().size() - 1);
  made.add("with \"quote\".\xc3\xa9", DType::kInt64, {1});
  return made;
}

Json told_dict(const test::MadeTensors& made, const Json& metadata) {
  std::vector<std::pair<Json, Json>> items;
  size_t storages = 0;
  std::vector<size_t> storage_of;
  for (size_t i = 0; i < made.list().size(); ++i) {
    const int64_t tied = made.list()[i].tied_to;
    storage_of.push_back(tied < 0 ? storages++ : storage_of[static_cast<size_t>(tied)]);
    items.emplace_back(made.list()[i].name, made.told(i, storage_of[i]));
  }
  return told(items, true, metadata);
}

TEST_F(TorchWriterTest, WritesTheRecordsThatTorchWritesInItsOrder) {
  test::MadeTensors made;
  made.add("a", DType::kFloat32, {2});
  made.add("b", DType::kInt8, {0});
  made.tie("c", 0);
  const io::File file = io::File::open(write_state_dict("x.pt", made.list()));
  const ZipReader zip(file);
  EXPECT_EQ(zip.top_folder(), "archive");
  std::vector<std::string> names;
  for (const ZipRecord& record : zip.records()) {
    names.push_back(record.name);
    EXPECT_EQ(record.data_offset % 64, 0u) << record.name;
    EXPECT_NO_THROW(zip.read(record, 1 << 20)) << record.name;  // its CRC
  }
  EXPECT_EQ(names, (std::vector<std::string>{"data.pkl", ".format_version", ".storage_alignment", "byteorder", "data/0",
                                             "data/1", "version", ".data/serialization_id"}));
  EXPECT_EQ(zip.find("data/0")->bytes, 8u);
  EXPECT_EQ(zip.find("data/1")->bytes, 0u);
  EXPECT_EQ(as_text(zip.read(*zip.find("version"), 9)), "3\n");
  EXPECT_EQ(zip.find(".data/serialization_id")->bytes, 40u);
  EXPECT_FALSE(zip.crcs_absent());
}

/// Reads the file back and compares names, their order, dtypes, shapes, bytes and ties.
void expect_tensors(const std::string& path, const test::MadeTensors& made) {
  const TorchFile file = TorchFile::open(io::File::open(path));
  EXPECT_FALSE(file.is_script());
  for (const TorchFile::Global& global : file.globals()) EXPECT_TRUE(global.understood) << global.name;
  const TensorsBelow read = tensors_below(file, file.root());
  ASSERT_EQ(read.tensors.size(), made.list().size());
  for (size_t i = 0; i < made.list().size(); ++i) {
    const TensorToWrite& expected = made.list()[i];
    const StoredTensor& tensor = read.tensors[i].stored;
    EXPECT_EQ(read.tensors[i].name, expected.name);
    EXPECT_EQ(tensor.dtype, expected.dtype) << expected.name;
    EXPECT_EQ(tensor.shape, expected.shape) << expected.name;
    EXPECT_TRUE(tensor.contiguous()) << expected.name;
    EXPECT_FALSE(tensor.is_parameter) << expected.name;
    EXPECT_EQ(tensor.storage_bytes, made.content(i).size()) << expected.name;
    EXPECT_EQ(as_text(file.file().read_at(tensor.file_offset, tensor.bytes)), made.content(i)) << expected.name;
    if (expected.tied_to >= 0) {
      EXPECT_EQ(tensor.record, read.tensors[static_cast<size_t>(expected.tied_to)].stored.record) << expected.name;
    }
  }
  for (const ZipRecord& record : file.zip()->records()) EXPECT_NO_THROW(file.zip()->read(record, 1 << 30));
}

TEST_F(TorchWriterTest, ReadsBackForAnyDtypeShapeTieAndName) {
  expect_tensors(write_state_dict("x.pt", various().list()), various());
  for (unsigned seed = 0; seed < 40; ++seed) {
    test::MadeTensors made(seed);
    made.add_random(test::plain_dtypes());
    expect_tensors(write_state_dict("x.pt", made.list()), made);
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

TEST_F(TorchWriterTest, PythonReadsWhatWasWritten) {
  if (test::python() == nullptr) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  const test::MadeTensors made = various();
  const std::string plain = write("dict.pt", state_dict_value(made.list(), metadata_of("bn")), made.list());

  PickleValue::Dict dict;
  const auto put = [&](const char* key, PickleValue value) {
    dict.items.emplace_back(PickleValue{std::string(key)}, std::move(value));
  };
  PickleItems integers;
  Json::array_t told_integers;
  for (const int64_t integer :
       {int64_t{0}, int64_t{255}, int64_t{256}, int64_t{65535}, int64_t{65536}, int64_t{INT32_MAX},
        int64_t{INT32_MAX} + 1, INT64_MAX, int64_t{-1}, int64_t{INT32_MIN}, int64_t{INT32_MIN} - 1, INT64_MIN}) {
    integers.push_back({integer});
    told_integers.push_back(integer);
  }
  put("integers", {PickleValue::List{integers}});
  put("one", {PickleValue::Tuple{{{0.1}}}});
  put("two", {PickleValue::Tuple{{{true}, {false}}}});
  put("three", {PickleValue::Tuple{{{std::string("three")}, none(), {std::string()}}}});
  put("four", {PickleValue::Tuple{{{int64_t{1}}, {int64_t{2}}, {int64_t{3}}, {int64_t{4}}}}});
  put("nothing", {PickleValue::Tuple{}});
  put("list", {PickleValue::List{}});
  put("dict", {PickleValue::Dict{}});
  put("numbers", {PickleValue::List{{{-1e300}, {0.0}}}});
  put("state", state_dict_value(made.list(), none()));
  dict.items.emplace_back(PickleValue{int64_t{7}}, PickleValue{PickleValue::Tensor{0}});
  const std::string nested = write("nested.pt", {dict}, made.list());

  std::vector<std::string> files = {"load:" + plain, "mmap:" + plain, "offsets:" + plain, "load:" + nested,
                                    "mmap:" + nested};
  std::deque<test::MadeTensors> any;
  for (unsigned seed = 100; seed < 120; ++seed) {
    any.emplace_back(seed).add_random(test::plain_dtypes());
    files.push_back("load:" + write_state_dict(std::to_string(seed) + ".pt", any.back().list()));
  }
  const auto read = test::read_with_torch(files);
  const Json expected = told_dict(made, told({{"bn", told({{"version", 2}})}}, true));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(read[i], expected) << read[i].dump(1);
  const Json expected_nested = told({{"integers", told_integers},
                                     {"one", told_tuple({told(0.1)})},
                                     {"two", told_tuple({true, false})},
                                     {"three", told_tuple({"three", nullptr, ""})},
                                     {"four", told_tuple({1, 2, 3, 4})},
                                     {"nothing", told_tuple({})},
                                     {"list", Json::array()},
                                     {"dict", told(std::vector<std::pair<Json, Json>>())},
                                     {"numbers", Json::array({told(-1e300), {{"float", "0x0.0p+0"}}})},
                                     {"state", told_dict(made, nullptr)},
                                     {7, made.told(0, 0)}});
  for (size_t i = 3; i < 5; ++i) EXPECT_EQ(read[i], expected_nested) << read[i].dump(1);
  for (size_t i = 5; i < read.size(); ++i) EXPECT_EQ(read[i], told_dict(any[i - 5], nullptr)) << read[i].dump(1);
}

// Where no Python is at hand: the file that the test above has had read. To be changed when that test has passed.
TEST_F(TorchWriterTest, WritesTheBytesThatPythonHasRead) {
  const test::MadeTensors made = various();
  const std::string path = write("dict.pt", state_dict_value(made.list(), metadata_of("bn")), made.list());
  EXPECT_EQ(xxh3_128_hex(as_bytes(test::read_all(path))), "73872ce4686718d62f7040c23532ad4e");
}

TEST_F(TorchWriterTest, RefusesWhatDoesNotFitBeforeTheFirstByte) {
  const auto refuse = [&](auto change) {
    test::MadeTensors made;
    made.add("a", DType::kFloat32, {2, 3});
    made.tie("b", 0);
    change(made.list());
    return error_of(state_dict_value(made.list(), none()), made.list());
  };
  using List = std::vector<TensorToWrite>;
  EXPECT_EQ(refuse([](List&) {}), std::nullopt) << message_;
  EXPECT_EQ(refuse([](List& list) { list[0].shape = {7}; }), ErrorCode::kInvalid);
  EXPECT_EQ(message_, "tensor \"a\": expected 28 bytes, found 24");
  EXPECT_EQ(refuse([](List& list) { list[0].shape = {-2, -3}; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[0].shape.assign(65, 1); }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[0].data.bytes += 4; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[0].dtype = DType::kQInt32; }), ErrorCode::kUnsupported);
  EXPECT_EQ(refuse([](List& list) { list[1].tied_to = 2; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[1].tied_to = -2; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[1].tied_to = 1; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[1].shape = {3, 2}; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[1].dtype = DType::kInt32; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[1].data = list[0].data; }), ErrorCode::kInvalid);
  EXPECT_EQ(refuse([](List& list) { list[1].name = "a"; }), ErrorCode::kInvalid);
  EXPECT_EQ(message_, "pickle: a dictionary with two keys \"a\"");
  EXPECT_EQ(refuse([](List& list) { list[1].name = "\xff"; }), ErrorCode::kInvalid);
}

TEST_F(TorchWriterTest, GivesTheSameBytesForTheSameInput) {
  const std::string first = test::read_all(write_state_dict("1.pt", various().list()));
  EXPECT_EQ(first, test::read_all(write_state_dict("2.pt", various().list())));
  test::MadeTensors other = various();
  other.list()[0].name = "renamed";
  EXPECT_NE(first, test::read_all(write_state_dict("3.pt", other.list())));
}

TEST_F(TorchWriterTest, WhatAProducerThrowsEndsTheWriting) {
  test::MadeTensors made;
  made.add("a", DType::kFloat32, {2}).data = {8, [](const ByteSink&) { throw Error(ErrorCode::kCorrupt, "f", "bad"); }};
  EXPECT_THROW(write_state_dict("x.pt", made.list()), Error);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "x.pt"));
  for (const size_t count : {1, 3}) {
    made.list()[0].data = {8, [&](const ByteSink& sink) {
                             for (size_t i = 0; i < count; ++i) sink(as_bytes("1234"));
                           }};
    EXPECT_THROW(write_state_dict("x.pt", made.list()), Error);
    EXPECT_FALSE(std::filesystem::exists(dir_ / "x.pt"));
  }
}

TEST_F(TorchWriterTest, ManyTensorsTakeFewBytesEach) {
  test::MadeTensors made;
  for (int i = 0; i < 10000; ++i) made.add("layers." + std::to_string(i) + ".weight", DType::kFloat32, {1, 1});
  const io::File file = io::File::open(write_state_dict("x.pt", made.list()));
  const ZipReader zip(file);
  EXPECT_LT(zip.find("data.pkl")->bytes, 10000u * 100);
}

}  // namespace
}  // namespace ckpt::format
