// Inputs of any format, in any order, on any number of threads.
#include <cmath>
#include <random>

#include "average_testing.h"
#include "core/base/checksum.h"
#include "core/format/torch_builder.h"
#include "support/python.h"

namespace ckpt {
namespace {

using test::AverageTest;
using test::floats;
using test::made;
using test::MadeTensor;

using Floats = std::vector<float>;

const std::string kData = std::string(CKPT_TEST_DATA) + "/";

/// Finite numbers of a floating dtype between 2^-scale and 2^scale.
std::string numbers(DType dtype, size_t count, int scale, std::mt19937_64& random) {
  std::vector<double> values(count);
  for (double& value : values) {
    const auto mantissa = static_cast<double>(static_cast<int64_t>(random())) * 0x1p-63;
    value = std::ldexp(mantissa, static_cast<int>(random() % static_cast<unsigned>(2 * scale)) - scale);
  }
  std::string bytes(count * width(dtype), '\0');
  weights::convert_elements(as_bytes(test::bytes_of(values)), DType::kFloat64, std::as_writable_bytes(std::span(bytes)),
                            dtype);
  return bytes;
}

/// The same names, dtypes and shapes for every seed: tensors of more than a tile, and many of less.
std::vector<MadeTensor> tensors_of(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<MadeTensor> tensors;
  const auto add = [&](const std::string& name, DType dtype, std::vector<int64_t> shape, std::string bytes) {
    tensors.push_back({.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = std::move(bytes)});
    tensors.back().is_parameter = seed % 2 == 1 && tensors.size() % 2 == 1;
  };
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
    const uint64_t rows = 70000 / (3 * width(dtype));
    add("large." + std::string(name(dtype)), dtype, {static_cast<int64_t>(rows), 3},
        numbers(dtype, 3 * rows, 2, random));
    add("scalar." + std::string(name(dtype)), dtype, {}, numbers(dtype, 1, 4, random));
    add("empty." + std::string(name(dtype)), dtype, {4, 0}, "");
  }
  for (int i = 0; i < 200; ++i) {
    add("layers." + std::to_string(i) + ".weight", DType::kFloat32, {9}, numbers(DType::kFloat32, 9, 100, random));
  }
  std::string integers(8 * 9000, '\0'), small(100, '\0');
  for (char& byte : integers) byte = static_cast<char>(random());
  for (char& byte : small) byte = static_cast<char>(random() & 0xbf);  // finite
  add("float8", DType::kFloat8E5M2, {100}, small);
  add("complex", DType::kComplex64, {11}, numbers(DType::kFloat32, 22, 30, random));
  add("steps", DType::kInt64, {9000}, integers);
  add("mask", DType::kBool, {3}, std::string("\1\0\1", 3));
  tensors.push_back(test::tie(tensors, "tied", 0));
  return tensors;
}

class AverageOrderTest : public AverageTest {
 protected:
  std::vector<std::string> inputs_ = {write("a.safetensors", tensors_of(1)), write("b.pt", tensors_of(2)),
                                      write("c.archive", tensors_of(3))};
};

TEST_F(AverageOrderTest, TheWholeFileIsTheSameForAnyOrderAndAnyNumberOfThreads) {
  for (const Format format : {Format::kSafetensors, Format::kTorch, Format::kArchive}) {
    const std::vector<double> weights = {0.1, 0.7, 5};
    const bool weighted = format == Format::kTorch;
    std::string expected;
    std::vector<size_t> order = {0, 1, 2};
    unsigned threads = 0;
    do {
      AverageOptions options{.integers = AverageIntegers::kMax, .format = format, .threads = ++threads};
      std::vector<std::string> inputs;
      for (const size_t i : order) {
        inputs.push_back(inputs_[i]);
        if (weighted) options.weights.push_back(weights[i]);
      }
      average(inputs, options);
      const std::string bytes = test::read_all(out_);
      if (expected.empty()) expected = bytes;
      ASSERT_TRUE(bytes == expected) << to_string(format) << ", first " << inputs[0] << ", threads " << threads;
    } while (std::next_permutation(order.begin(), order.end()));
    average(inputs_, {.weights = weighted ? weights : std::vector<double>(),
                      .integers = AverageIntegers::kMax,
                      .format = format,
                      .threads = 6});
    ASSERT_TRUE(test::read_all(out_) == expected) << to_string(format);
  }
}

TEST_F(AverageOrderTest, TheMeanOfOneIsThatOne) {
  for (const std::string& input : inputs_) {
    average({input, input, input});
    const weights::Weights before = weights::Weights::open(input), after = weights::Weights::open(out_);
    ASSERT_EQ(after.tensors().size(), before.tensors().size());
    for (const weights::Tensor& tensor : before.tensors()) {
      EXPECT_TRUE(test::read(after, tensor.name) == test::read(before, tensor)) << tensor.name;
    }
  }
}

TEST_F(AverageOrderTest, AnotherDtypeIsTheSameForAnyOrderToo) {
  std::string expected;
  for (int turn = 0; turn < 3; ++turn) {
    average(inputs_, {.integers = AverageIntegers::kMean, .dtype = "bfloat16", .threads = 3});
    if (expected.empty()) expected = test::read_all(out_);
    EXPECT_TRUE(test::read_all(out_) == expected);
    std::rotate(inputs_.begin(), inputs_.begin() + 1, inputs_.end());
  }
}

TEST_F(AverageOrderTest, TheIntegersOfTheNewestAreThoseOfTheLast) {
  for (const std::string& last : inputs_) {
    average({inputs_[0], inputs_[1], last});
    EXPECT_TRUE(test::read(weights::Weights::open(out_), "steps") == test::read(weights::Weights::open(last), "steps"));
  }
}

TEST_F(AverageOrderTest, PythonReadsTheResult) {
  if (test::python() == nullptr) GTEST_SKIP() << "CKPT_TEST_PYTHON is not set";
  std::vector<std::string> files;
  for (const auto& [how, ending] : {std::pair("load:", ".pt"),
                                    {"mmap:", ".pt"},
                                    {"offsets:", ".pt"},
                                    {"safe:", ".safetensors"},
                                    {"jit:", ".archive"}}) {
    const std::string path = dir_ / (std::string("result") + ending);
    average::average(
        inputs_, path,
        {.format = std::string_view(ending) == ".archive" ? std::optional(Format::kArchive) : std::nullopt});
    files.push_back(how + path);
  }
  const auto read = test::read_with_torch(files);
  const std::string weight = test::read(weights::Weights::open(dir_ / "result.pt"), "layers.7.weight");
  std::string hex;
  for (const char byte : weight) {
    hex += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
    hex += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15];
  }
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_FALSE(read[i].contains("error")) << files[i] << ": " << read[i].dump().substr(0, 300);
    EXPECT_NE(read[i].dump().find(hex), std::string::npos) << files[i];
  }
}

TEST_F(AverageOrderTest, WritesTheBytesThatPythonHasRead) {
  const auto hash = [&](Format format) {
    average(inputs_, {.format = format});
    return xxh3_128_hex(as_bytes(test::read_all(out_)));
  };
  EXPECT_EQ(hash(Format::kSafetensors), "f21030207092a2f4c4a4a615bb3bc008");
  EXPECT_EQ(hash(Format::kTorch), "2e400704e13ad52853a84461e8cae6e5");
  EXPECT_EQ(hash(Format::kArchive), "bfa637c2a908f6a1eb3d80d7a3f884a9");
}

// --- Other layouts and formats --------------------------------------------------------------------------------------

/// A torch zip whose tensors are views of one storage of 1, 2, ..., 6.
std::string zip_of_views(bool big_endian) {
  using namespace test::pickled;
  const auto entry = [](const std::string& name, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                        int64_t offset) {
    return text(name) +
           Tensor{.offset = integer(offset), .sizes = integers(sizes), .strides = integers(strides)}.stream();
  };
  const std::string pickle = whole("}(" + entry("whole", {2, 3}, {3, 1}, 0) + entry("tied", {2, 3}, {3, 1}, 0) +
                                   entry("fortran", {2, 3}, {1, 2}, 0) + entry("column", {3}, {2}, 1) +
                                   entry("expanded", {2, 2}, {0, 1}, 3) + entry("scalar", {}, {}, 5) + "u");
  std::string storage = test::bytes_of(Floats{1, 2, 3, 4, 5, 6});
  if (big_endian) {
    for (size_t i = 0; i < storage.size(); i += 4)
      std::reverse(storage.begin() + static_cast<long>(i), storage.begin() + static_cast<long>(i) + 4);
  }
  return test::ZipImage{.entries = {test::zip_entry("a/data/0", storage), test::zip_entry("a/data.pkl", pickle),
                                    test::zip_entry("a/byteorder", big_endian ? "big" : "little")}}
      .bytes();
}

TEST_F(AverageTest, ViewsAndOtherByteOrdersAreReadAsTheirElements) {
  test::write_all(dir_ / "little.pt", zip_of_views(false));
  test::write_all(dir_ / "big.pt", zip_of_views(true));
  const auto plain = [](const std::string& name, std::vector<int64_t> shape, const Floats& values) {
    MadeTensor tensor = floats(name, values);
    tensor.shape = std::move(shape);
    return tensor;
  };
  const std::string other = write(
      "other.safetensors", {plain("whole", {2, 3}, {7, 8, 9, 10, 11, 12}), plain("tied", {2, 3}, {1, 2, 3, 4, 5, 6}),
                            plain("fortran", {2, 3}, {10, 20, 30, 40, 50, 60}), plain("column", {3}, {0, 0, 0}),
                            plain("expanded", {2, 2}, {4, 5, 40, 50}), plain("scalar", {}, {-6})});
  const auto expect = [&](const char* name, const Floats& values) { EXPECT_EQ(floats_of(name), values) << name; };
  for (const char* views : {"little.pt", "big.pt"}) {
    for (const bool first : {false, true}) {
      average(first ? std::vector{other, dir_ / views} : std::vector{dir_ / views, other});
      expect("whole", {4, 5, 6, 7, 8, 9});
      expect("tied", {1, 2, 3, 4, 5, 6});
      expect("fortran", {5.5, 11.5, 17.5, 21, 27, 33});
      expect("column", {1, 2, 3});
      expect("expanded", {4, 5, 22, 27.5});
      expect("scalar", {0});
    }
  }
  const AverageReport report = average({dir_ / "little.pt", dir_ / "big.pt"});
  expect("fortran", {1, 3, 5, 2, 4, 6});
  expect("column", {2, 4, 6});
  expect("expanded", {4, 5, 4, 5});
  EXPECT_EQ(report.inputs[0].hash, report.inputs[1].hash);
}

TEST_F(AverageTest, EveryFormatThatIsReadTakesPart) {
  std::vector<std::string> inputs;
  for (const char* name : {"training-protocol2.pt", "training-protocol5.pt", "training-legacy-protocol2.pt",
                           "training-legacy-protocol5.pt", "state_dict.pt", "traced.pt"}) {
    inputs.push_back(kData + "torch/" + name);
  }
  out_ = dir_ / "out.pt";
  const AverageReport report = average(inputs);
  const weights::Weights expected = weights::Weights::open(inputs[4]), result = weights::Weights::open(out_);
  EXPECT_EQ(test::names_of(result).size(), expected.tensors().size());
  for (const weights::Tensor& tensor : expected.tensors()) {
    EXPECT_EQ(test::read(result, tensor.name), test::read(expected, tensor)) << tensor.name;
  }
  for (const AverageInput& input : report.inputs) EXPECT_EQ(input.hash, report.inputs[4].hash) << input.path;

  for (const char* name : {"torch/shapes.pt", "torch/shapes-legacy.pt", "sharded/model.safetensors.index.json",
                           "archives/model-1.13.1.pt", "archives/model-2.13.0.pt", "pt2/net.pt2"}) {
    average({kData + name, kData + name}, {.format = Format::kTorch});
    const weights::Weights before = weights::Weights::open(kData + name), after = weights::Weights::open(out_);
    for (const weights::Tensor& tensor : before.tensors()) {
      EXPECT_EQ(test::read(after, tensor.name), test::read(before, tensor)) << name << " " << tensor.name;
    }
  }
}

TEST_F(AverageTest, OfATrainingFileThePartThatIsAskedFor) {
  const std::string file = kData + "torch/training-protocol2.pt";
  average({file, file}, {.key = "optimizer"});
  EXPECT_EQ(test::names_of(weights::Weights::open(out_)),
            (std::vector<std::string>{"state.0.exp_avg", "state.0.step"}));
  EXPECT_EQ(refused({file, file}, {.ema = true}).code(), ErrorCode::kNotFound);
}

TEST_F(AverageTest, VersionsOfModulesStayWhereAllInputsAgree) {
  out_ = dir_ / "out.pt";
  const nlohmann::ordered_json two = {{"norm", {{"version", 2}}}}, one = {{"norm", {{"version", 1}}}};
  test::write_tensors(dir_ / "a.pt", {floats("norm.w", {1})}, two);
  test::write_tensors(dir_ / "b.pt", {floats("norm.w", {1})}, one);
  average({dir_ / "a.pt", dir_ / "a.pt"});
  EXPECT_EQ(weights::Weights::open(out_).module_metadata(), two);
  average({dir_ / "a.pt", dir_ / "b.pt"});
  EXPECT_EQ(weights::Weights::open(out_).module_metadata(), nullptr);
}

TEST_F(AverageTest, AnOutputMayBeAnInput) {
  const std::string a = write("a.safetensors", {floats("x", {1})});
  out_ = write("b.safetensors", {floats("x", {4})});
  average({a, out_, out_});
  EXPECT_EQ(floats_of("x"), Floats{3});
}

}  // namespace
}  // namespace ckpt
