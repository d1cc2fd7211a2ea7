#include "core/format/archive_writer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "core/base/checksum.h"
#include "core/format/archive.h"
#include "support/made_tensors.h"
#include "support/python.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using Json = nlohmann::ordered_json;

class ArchiveWriterTest : public testing::Test {
 protected:
  std::string write(const std::string& name, const ArchiveToWrite& root, const std::vector<TensorToWrite>& tensors) {
    io::replace_file(dir_ / name, [&](io::BlockWriter& writer) { write_archive(writer, root, tensors); });
    return dir_ / name;
  }
  std::string write(const std::string& name, const std::vector<TensorToWrite>& tensors) {
    return write(name, archive_of(tensors), tensors);
  }
  std::vector<std::string> problems_of(const ArchiveToWrite& root, const std::vector<TensorToWrite>& tensors) {
    bool appended = true;
    try {
      io::replace_file(dir_ / "refused.pt", [&](io::BlockWriter& writer) {
        appended = false;
        write_archive(writer, root, tensors);
        appended = true;
      });
      return {};
    } catch (const Error& error) {
      EXPECT_FALSE(appended);
      EXPECT_EQ(error.code(), ErrorCode::kInvalid);
      return error.details();
    }
  }
  /// Reads the file back and compares names, dtypes, shapes, bytes, ties and what is a parameter.
  static void expect_tensors(const std::string& path, const test::MadeTensors& made) {
    const ArchiveFile file = ArchiveFile::open(path);
    std::map<std::string, StoredTensor> stored;
    for (const NamedTensor& named : tensors_of(file.root(), false)) {
      EXPECT_TRUE(stored.emplace(named.name, named.stored).second) << named.name;
    }
    ASSERT_EQ(stored.size(), made.list().size());
    for (size_t i = 0; i < made.list().size(); ++i) {
      const TensorToWrite& tensor = made.list()[i];
      ASSERT_TRUE(stored.contains(tensor.name)) << tensor.name;
      const StoredTensor& read = stored[tensor.name];
      EXPECT_EQ(read.dtype, tensor.dtype) << tensor.name;
      EXPECT_EQ(read.shape, tensor.shape) << tensor.name;
      EXPECT_TRUE(read.contiguous()) << tensor.name;
      EXPECT_EQ(read.storage_bytes, made.content(i).size()) << tensor.name;
      EXPECT_EQ(as_text(file.file().read_at(read.file_offset, read.bytes)), made.content(i)) << tensor.name;
      EXPECT_EQ(read.is_parameter, tensor.is_parameter && (is_floating(tensor.dtype) || is_complex(tensor.dtype)))
          << tensor.name;
      if (tensor.tied_to >= 0) {
        EXPECT_EQ(read.record, stored[made.list()[static_cast<size_t>(tensor.tied_to)].name].record) << tensor.name;
      }
    }
    for (const ZipRecord& record : file.zip()->records()) EXPECT_NO_THROW(file.zip()->read(record, 1 << 30));
  }

  test::TempDir dir_;
};

TEST_F(ArchiveWriterTest, WritesEveryDtypeShapeAndTie) {
  test::MadeTensors made;
  for (const DType dtype : test::plain_dtypes()) made.add(std::string(name(dtype)), dtype, {2, 3});
  made.add("layer.0.weight", DType::kFloat32, {3, 2}).is_parameter = true;
  made.add("layer.0.count", DType::kInt64, {}).is_parameter = true;
  made.add("layer.empty", DType::kFloat64, {0, 4});
  made.tie("tied.weight", made.list().size() - 3);
  expect_tensors(write("x.pt", made.list()), made);
}

TEST_F(ArchiveWriterTest, WritesEveryKindOfValue) {
  test::MadeTensors made;
  made.add("a", DType::kFloat32, {2});
  made.add("b", DType::kInt32, {1});
  ArchiveToWrite inner, root;
  inner.members = {{"n", int64_t{1}}, {"w", TensorPlace{1}}};
  root.members = {{"none", std::monostate()},
                  {"true", true},
                  {"int", int64_t{-9000000000000000000}},
                  {"float", 0.1},
                  {"text", std::string("a \"text\"\n\xc3\xa9")},
                  {"ints", std::vector<int64_t>{1, -2, int64_t{1} << 40}},
                  {"no_ints", std::vector<int64_t>{}},
                  {"floats", std::vector<double>{0.5, -1e300}},
                  {"tensors", std::vector<TensorPlace>{{0}, {1}, {0}}},
                  {"inner", std::make_shared<const ArchiveToWrite>(inner)},
                  {"hollow", std::make_shared<const ArchiveToWrite>()}};
  const ArchiveFile file = ArchiveFile::open(write("x.pt", root, made.list()));
  const Archive& read = file.root();
  ASSERT_EQ(read.members.size(), root.members.size());
  for (size_t i = 0; i < read.members.size(); ++i) EXPECT_EQ(read.members[i].first, root.members[i].first);
  EXPECT_NE(read.get<std::monostate>("none"), nullptr);
  EXPECT_EQ(*read.get<bool>("true"), true);
  EXPECT_EQ(*read.get<int64_t>("int"), -9000000000000000000);
  EXPECT_EQ(*read.get<double>("float"), 0.1);
  EXPECT_EQ(*read.get<std::string>("text"), "a \"text\"\n\xc3\xa9");
  EXPECT_EQ(*read.get<std::vector<int64_t>>("ints"), (std::vector<int64_t>{1, -2, int64_t{1} << 40}));
  EXPECT_TRUE(read.get<std::vector<int64_t>>("no_ints")->empty());
  EXPECT_EQ(*read.get<std::vector<double>>("floats"), (std::vector<double>{0.5, -1e300}));
  const auto& tensors = *read.get<std::vector<StoredTensor>>("tensors");
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].record, tensors[2].record);
  EXPECT_EQ(*read.nested("inner")->get<int64_t>("n"), 1);
  EXPECT_EQ(read.nested("inner")->get<StoredTensor>("w")->record, tensors[1].record);
  EXPECT_TRUE(read.nested("hollow")->members.empty());
}

TEST_F(ArchiveWriterTest, MakesLevelsOfDotsUnlessANameIsInTheWay) {
  test::MadeTensors made;
  for (const char* name : {"a.b.c", "a.b.d", "x", "x.y", "x.y.z", "p.q.r", "p.q", ".", "..", "end."}) {
    made.add(name, DType::kUInt8, {1});
  }
  const std::string path = write("x.pt", made.list());
  expect_tensors(path, made);
  const ArchiveFile file = ArchiveFile::open(path);
  std::vector<std::string> names;
  for (const auto& [name, value] : file.root().members) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "x", "x.y", "x.y.z", "p", "", "end"}));
  EXPECT_EQ(file.root().nested("a")->nested("b")->members.size(), 2u);
  EXPECT_EQ(file.root().nested("p")->members[0].first, "q.r");
}

TEST_F(ArchiveWriterTest, WritesAnyNameOfUtf8) {
  test::MadeTensors made;
  for (const std::string& name : test::odd_names()) {
    made.add(name, DType::kFloat32, {1});
    made.add("level." + name, DType::kFloat32, {1}).is_parameter = true;
  }
  expect_tensors(write("x.pt", made.list()), made);
}

TEST_F(ArchiveWriterTest, ReadsBackForAnyDtypeShapeTieAndName) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    test::MadeTensors made(seed);
    made.add_random(test::plain_dtypes());
    expect_tensors(write("x.pt", made.list()), made);
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

TEST_F(ArchiveWriterTest, TellsAllProblemsBeforeTheFirstByte) {
  test::MadeTensors made;
  made.add("a", DType::kFloat32, {2});
  ArchiveToWrite inner, root;
  inner.members = {{"\xff", int64_t{1}}, {"t", TensorPlace{1}}, {"l", std::vector<TensorPlace>{{0}, {7}}}};
  root.members = {{"in", std::make_shared<const ArchiveToWrite>(inner)},
                  {"twice", 0.5},
                  {"twice", true},
                  {"text", std::string("\x80")},
                  {std::string(70000, 'n'), true},
                  {"null", std::shared_ptr<const ArchiveToWrite>()}};
  const std::vector<std::string> problems = problems_of(root, made.list());
  ASSERT_EQ(problems.size(), 7u);
  EXPECT_EQ(problems[0], "\"in.\\xff\": a name that is not UTF-8");
  EXPECT_EQ(problems[1], "\"in.t\": tensor 1 of 1");
  EXPECT_EQ(problems[2], "\"in.l\": tensor 7 of 1");
  EXPECT_EQ(problems[3], "\"twice\": two members of this name");
  EXPECT_EQ(problems[4], "\"text\": a text that is not UTF-8");
  EXPECT_EQ(problems[6], "\"null\": no level");

  auto level = std::make_shared<ArchiveToWrite>();
  for (int i = 1; i < 1000; ++i) {
    auto outer = std::make_shared<ArchiveToWrite>();
    outer->members.emplace_back("n", level);
    level = outer;
  }
  EXPECT_TRUE(problems_of(*level, {}).empty());
  ArchiveToWrite outermost;
  outermost.members.emplace_back("n", level);
  EXPECT_EQ(problems_of(outermost, {}).size(), 1u);
  EXPECT_NO_THROW(ArchiveFile::open(write("deep.pt", *level, {})));
}

TEST_F(ArchiveWriterTest, DotsBeyondTheDeepestLevelStay) {
  test::MadeTensors made;
  made.add(std::string(65536, '.'), DType::kUInt8, {1});
  made.add(std::string(999, '.') + "w", DType::kUInt8, {1});
  EXPECT_EQ(tensors_of(ArchiveFile::open(write("x.pt", made.list())).root(), false).size(), 2u);
}

TEST_F(ArchiveWriterTest, GivesTheSameBytesForTheSameInput) {
  const auto bytes = [&](const std::string& name, unsigned seed) {
    test::MadeTensors made(seed);
    made.add("a.b", DType::kFloat32, {3});
    made.add("a.c", DType::kInt8, {3});
    made.add("d.b", DType::kFloat32, {3});
    return test::read_all(write(name, made.list()));
  };
  EXPECT_EQ(bytes("1.pt", 1), bytes("2.pt", 1));
  EXPECT_NE(bytes("1.pt", 1), bytes("2.pt", 2));
}

TEST_F(ArchiveWriterTest, LevelsOfTheSameMembersShareAClass) {
  test::MadeTensors made;
  for (int i = 0; i < 1000; ++i) made.add("layers." + std::to_string(i) + ".weight", DType::kFloat32, {1});
  const ArchiveFile file = ArchiveFile::open(write("x.pt", made.list()));
  const auto code = file.zip()->read(*file.zip()->find("code/__torch__.py"), 1 << 20);
  EXPECT_EQ(as_text(code).find("class Module0(Module):\n  __parameters__ = []\n  __buffers__ = [\"weight\", ]\n"), 0u);
  EXPECT_NE(as_text(code).find("class Module2"), std::string_view::npos);
  EXPECT_EQ(as_text(code).find("class Module3"), std::string_view::npos);
}

TEST_F(ArchiveWriterTest, TenThousandTensorsInOneLevelOrAThousandTakeLinearTime) {
  const auto seconds_for = [&](int count, bool levels) {
    test::MadeTensors made;
    for (int i = 0; i < count; ++i) {
      const std::string name =
          levels ? "m" + std::to_string(i / 10) + ".w" + std::to_string(i) : "w" + std::to_string(i);
      made.add(name, DType::kUInt8, {1});
    }
    const std::clock_t begin = std::clock();
    write("x.pt", made.list());
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  for (const bool levels : {false, true}) {
    const double small = seconds_for(2500, levels);
    EXPECT_LT(seconds_for(10000, levels), 10 * small + 0.05) << levels;
  }
}

/// Every dtype, a tie and odd names.
test::MadeTensors various() {
  test::MadeTensors made;
  for (const DType dtype : test::plain_dtypes()) made.add(std::string(name(dtype)), dtype, {2, 2});
  made.add("net.weight", DType::kFloat32, {3, 2}).is_parameter = true;
  made.tie("net.tied", made.list().size() - 1);
  for (const std::string& name : test::odd_names()) made.add("odd." + name, DType::kFloat32, {1}).is_parameter = true;
  return made;
}

TEST_F(ArchiveWriterTest, PythonReadsWhatWasWritten) {
  if (test::python() == nullptr) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  const test::MadeTensors made = various();
  const auto read = test::read_with_torch({"jit:" + write("x.pt", made.list())});
  // Parameters first, so storages are counted in that order.
  Json parameters = Json::array(), buffers = Json::array();
  const size_t dtypes = test::plain_dtypes().size(), odd = dtypes + 2;
  const auto add = [&](Json& to, size_t i, size_t storage) {
    to.push_back(Json::array({made.list()[i].name, made.told(i, storage, made.list()[i].is_parameter)}));
  };
  add(parameters, dtypes, 0);
  add(parameters, dtypes + 1, 0);
  for (size_t i = odd; i < made.list().size(); ++i) add(parameters, i, 1 + i - odd);
  for (size_t i = 0; i < dtypes; ++i) add(buffers, i, 1 + made.list().size() - odd + i);
  EXPECT_EQ(read[0], (Json{{"parameters", parameters}, {"buffers", buffers}})) << read[0].dump(1);
}

// Where neither Python nor LibTorch is at hand: the file that they have read. To be changed when the tests of that have
// passed.
TEST_F(ArchiveWriterTest, WritesTheBytesThatTorchHasRead) {
  EXPECT_EQ(xxh3_128_hex(as_bytes(test::read_all(write("x.pt", various().list())))), "70626b02840086bfba2a4db637ff2861");
}

}  // namespace
}  // namespace ckpt::format
