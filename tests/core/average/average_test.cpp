// The rules of averaging, one by one.
#include <cmath>
#include <limits>

#include "average_testing.h"

namespace ckpt {
namespace {

using test::any_has;
using test::AverageTest;
using test::bools;
using test::contains;
using test::decisions_on;
using test::doubles;
using test::floats;
using test::joined;
using test::longs;
using test::made;
using test::MadeTensor;

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Longs = std::vector<int64_t>;
using Lines = std::vector<std::string>;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// --- Sums and dtypes ------------------------------------------------------------------------------------------------

TEST_F(AverageTest, TheMeanIsThatOfTheRealNumbersRoundedOnce) {
  const std::string a = write("a.safetensors", {doubles("x", {0x1p100, 0.1}), floats("y", {1e30f})});
  const std::string b = write("b.safetensors", {doubles("x", {1, 0.2}), floats("y", {1})});
  const std::string c = write("c.safetensors", {doubles("x", {0x1p-100, 0.3}), floats("y", {-1e30f})});
  const std::string d = write("d.safetensors", {doubles("x", {-0x1p100, 0.4}), floats("y", {0})});
  const std::string e = write("e.safetensors", {doubles("x", {-1, 0.5}), floats("y", {0})});
  const AverageReport report = average({a, b, c, d, e});
  EXPECT_EQ(values<double>("x")[0], 0x1p-100 / 5);
  EXPECT_EQ(floats_of("y"), Floats{0.2f});
  EXPECT_EQ(report.output, out_);
  EXPECT_EQ(report.method, "mean");
  EXPECT_EQ(report.tensors, 2u);
  EXPECT_EQ(report.bytes, 20u);
  ASSERT_EQ(report.inputs.size(), 5u);
  EXPECT_EQ(report.inputs[1].path, b);
  EXPECT_EQ(report.inputs[1].weight, 1);
  EXPECT_EQ(report.inputs[1].iteration, std::nullopt);
  EXPECT_TRUE(report.decisions.empty());
  EXPECT_TRUE(report.warnings.empty());
}

TEST_F(AverageTest, AKeyKeepsItsDtype) {
  const auto input = [&](const std::string& name, uint16_t half, uint16_t brain, double number) {
    return write(name, {made("half", DType::kFloat16, std::vector<uint16_t>{half}),
                        made("brain", DType::kBFloat16, std::vector<uint16_t>{brain}), doubles("number", {number})});
  };
  const AverageReport report =
      average({input("a.safetensors", 0x3c00, 0x3f80, 1), input("b.safetensors", 0x4000, 0x3f81, 4)});
  EXPECT_EQ(values<uint16_t>("half")[0], 0x3e00);   // 1 and 2
  EXPECT_EQ(values<uint16_t>("brain")[0], 0x3f80);  // a tie between neighbours goes to the even one
  EXPECT_EQ(values<double>("number")[0], 2.5);
  EXPECT_EQ(dtype_of("half"), DType::kFloat16);
  EXPECT_EQ(dtype_of("brain"), DType::kBFloat16);
  EXPECT_EQ(dtype_of("number"), DType::kFloat64);
  EXPECT_TRUE(report.decisions.empty());
}

TEST_F(AverageTest, AnotherDtypeIsForFloatingTensorsAndRoundsOnce) {
  // By way of float32 the mean would be a tie of bfloat16, and go down.
  const double above_the_tie = 1 + 0x1p-8 + 0x1p-40;
  const std::vector<MadeTensor> tensors = {doubles("x", {above_the_tie}), longs("n", {7}), bools("flag", {1}),
                                           made("z", DType::kComplex64, Floats{1, 2})};
  const std::string a = write("a.safetensors", tensors), b = write("b.safetensors", tensors);
  for (const char* dtype : {"bfloat16", "bf16"}) {
    const AverageReport report = average({a, b}, {.dtype = dtype});
    EXPECT_EQ(values<uint16_t>("x")[0], 0x3f81);
    EXPECT_EQ(dtype_of("n"), DType::kInt64);
    EXPECT_EQ(dtype_of("flag"), DType::kBool);
    EXPECT_EQ(dtype_of("z"), DType::kComplex64);
    EXPECT_EQ(decisions_on(report, "x"), Lines{"float64 to bfloat16"});
    EXPECT_EQ(report.bytes, 2u + 8 + 1 + 8);
  }
  for (const char* dtype : {"int8", "float8_e4m3fn", "complex64", "float", ""}) {
    if (*dtype != 0) {
      EXPECT_EQ(refused({a, b}, {.dtype = dtype}).code(), ErrorCode::kInvalid) << dtype;
    }
  }
}

TEST_F(AverageTest, ComplexNumbersKeepTheirImaginaryPart) {
  const auto input = [&](const std::string& name, double re, double im) {
    return write(name, {made("c64", DType::kComplex64, Floats{static_cast<float>(re), static_cast<float>(im)}),
                        made("c128", DType::kComplex128, Doubles{re, im})});
  };
  out_ = dir_ / "out.pt";
  average({input("a.pt", 1, -4), input("b.pt", 2, 0.5)});
  EXPECT_EQ(floats_of("c64"), (Floats{1.5, -1.75}));
  EXPECT_EQ(values<double>("c128"), (Doubles{1.5, -1.75}));
}

// --- Integers and bools ---------------------------------------------------------------------------------------------

class AverageIntegersTest : public AverageTest {
 protected:
  static constexpr int64_t kBig = (int64_t{1} << 53) + 1;  // a double cannot hold it

  std::string a_ = write(
      "a.safetensors", {longs("n", {kBig, -3}), made("u", DType::kUInt8, std::vector<uint8_t>{250}), floats("x", {1})});
  std::string b_ = write("b.safetensors", {longs("n", {kBig + 2, 4}), made("u", DType::kUInt8, std::vector<uint8_t>{5}),
                                           floats("x", {2})});
  std::string c_ =
      write("c.safetensors", {longs("n", {5, 5}), made("u", DType::kUInt8, std::vector<uint8_t>{0}), floats("x", {3})});
};

TEST_F(AverageIntegersTest, AreTheNewestInputsAndTheReportSaysWhich) {
  const AverageReport report = average({b_, c_, a_});
  EXPECT_EQ(values<int64_t>("n"), (Longs{kBig, -3}));
  EXPECT_EQ(values<uint8_t>("u")[0], 250);
  EXPECT_EQ(floats_of("x"), Floats{2});
  EXPECT_EQ(decisions_on(report, "n"), Lines{"newest: from " + a_});
  EXPECT_EQ(decisions_on(report, "x"), Lines{});
}

TEST_F(AverageIntegersTest, AreTheGreatest) {
  const AverageReport report = average({b_, a_, c_}, {.integers = AverageIntegers::kMax});
  EXPECT_EQ(values<int64_t>("n"), (Longs{kBig + 2, 5}));
  EXPECT_EQ(values<uint8_t>("u")[0], 250);
  EXPECT_EQ(decisions_on(report, "n").size(), 1u);
}

TEST_F(AverageIntegersTest, AreAddedExactly) {
  average({a_, b_, c_}, {.integers = AverageIntegers::kSum});
  EXPECT_EQ(values<int64_t>("n"), (Longs{2 * kBig + 7, 6}));
  EXPECT_EQ(values<uint8_t>("u")[0], 255);
  const Error error = refused({a_, b_, b_}, {.integers = AverageIntegers::kSum, .allow_nonfinite = true});
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  EXPECT_TRUE(any_has(error.details(), {"\"u\"", "uint8"})) << error.what();
}

TEST_F(AverageIntegersTest, HaveAnExactMeanRoundedToEven) {
  average({a_, b_}, {.integers = AverageIntegers::kMean});
  EXPECT_EQ(values<int64_t>("n"), (Longs{kBig + 1, 0}));  // -3 and 4: 0.5
  EXPECT_EQ(values<uint8_t>("u")[0], 128);                // 127.5
  average({a_, b_}, {.weights = {3, 1}, .integers = AverageIntegers::kMean});
  EXPECT_EQ(values<int64_t>("n"), (Longs{kBig + 1, -1}));  // kBig and a half, which is odd; -1.25
}

TEST_F(AverageIntegersTest, ThatDoNotFitAreAllTold) {
  const std::string more = write("more.safetensors", {made("a", DType::kInt8, std::vector<int8_t>{100, 1}),
                                                      made("b", DType::kInt8, std::vector<int8_t>{-100, 1}),
                                                      made("c", DType::kInt8, std::vector<int8_t>{50, 1})});
  const Error error = refused({more, more}, {.integers = AverageIntegers::kSum});
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  EXPECT_EQ(error.details().size(), 2u) << joined(error.details());
}

TEST_F(AverageIntegersTest, MustAgreeWhereThatIsAsked) {
  const Error error = refused({a_, b_}, {.integers = AverageIntegers::kError});
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_TRUE(any_has(error.details(), {"\"n\""})) << error.what();
  EXPECT_TRUE(any_has(error.details(), {"\"u\""})) << error.what();
  EXPECT_EQ(error.details().size(), 2u);
  average({a_, a_}, {.integers = AverageIntegers::kError});
  EXPECT_EQ(values<int64_t>("n"), (Longs{kBig, -3}));
}

TEST_F(AverageTest, BoolsMustAgree) {
  const std::string a = write("a.safetensors", {bools("x", {0, 1}), bools("y", {1}), bools("z", {0})});
  const std::string b = write("b.safetensors", {bools("x", {0, 1}), bools("y", {0}), bools("z", {1})});
  const Error error = refused({a, b});
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_EQ(error.details().size(), 2u);
  EXPECT_TRUE(any_has(error.details(), {"\"y\""}) && any_has(error.details(), {"\"z\""})) << joined(error.details());
  EXPECT_EQ(refused({a, b}, {.integers = AverageIntegers::kMax}).code(), ErrorCode::kMismatch);
  average({a, a});
  EXPECT_EQ(values<uint8_t>("x"), (std::vector<uint8_t>{0, 1}));
}

// --- Names, shapes, dtypes ------------------------------------------------------------------------------------------

TEST_F(AverageTest, AllThatDiffersIsTold) {
  const std::string a =
      write("a.safetensors", {floats("only a", {1}), floats("shape", {1}), floats("dtype", {1}), floats("same", {1})});
  const std::string b = write(
      "b.safetensors", {floats("shape", {1, 2}), doubles("dtype", {1}), floats("same", {1}), floats("only b", {1})});
  const Error error = refused({a, b});
  EXPECT_EQ(error.code(), ErrorCode::kMismatch);
  EXPECT_EQ(error.details().size(), 4u) << joined(error.details());
  EXPECT_TRUE(any_has(error.details(), {"\"only a\"", a, b}));
  EXPECT_TRUE(any_has(error.details(), {"\"only b\"", a, b}));
  EXPECT_TRUE(any_has(error.details(), {"\"shape\"", "1", "2", a, b}));
  EXPECT_TRUE(any_has(error.details(), {"\"dtype\"", "float32", "float64", a, b}));
  // With fewer or more names the rest is told all the same.
  for (const AverageKeys keys : {AverageKeys::kIntersect, AverageKeys::kUnion}) {
    const Error other = refused({a, b}, {.keys = keys});
    EXPECT_EQ(other.code(), ErrorCode::kMismatch);
    EXPECT_EQ(other.details().size(), 2u) << joined(other.details());
  }
}

TEST_F(AverageTest, AShapeIsNeverBroadcast) {
  MadeTensor row = floats("x", {1, 2}), column = floats("x", {1, 2}), scalar = floats("x", {1});
  row.shape = {1, 2};
  column.shape = {2, 1};
  scalar.shape = {};
  const std::string a = write("a.safetensors", {row}), b = write("b.safetensors", {column});
  const std::string c = write("c.safetensors", {scalar}), d = write("d.safetensors", {floats("x", {1})});
  for (const std::vector<std::string>& inputs : {Lines{a, b}, Lines{c, d}, Lines{a, c}}) {
    EXPECT_EQ(refused(inputs).code(), ErrorCode::kMismatch);
  }
}

TEST_F(AverageTest, OfSharedNamesOnlyOrOfAll) {
  const std::string a = write("a.safetensors", {floats("x", {1}), floats("a", {3}), floats("ab", {1})});
  const std::string b = write("b.safetensors", {floats("x", {2}), floats("b", {5}), floats("ab", {2})});
  const std::string c = write("c.safetensors", {floats("x", {6})});

  const AverageReport shared = average({a, b, c}, {.keys = AverageKeys::kIntersect});
  EXPECT_EQ(test::names_of(weights::Weights::open(out_)), Lines{"x"});
  EXPECT_EQ(floats_of("x"), Floats{3});
  EXPECT_TRUE(any_has(decisions_on(shared, "a"), {"left out", b, c})) << joined(decisions_on(shared, "a"));
  EXPECT_EQ(shared.tensors, 1u);

  const AverageReport all = average({a, b, c}, {.weights = {1, 2, 1}, .keys = AverageKeys::kUnion});
  EXPECT_EQ(floats_of("x"), Floats{11.f / 4});
  EXPECT_EQ(floats_of("a"), Floats{3});
  EXPECT_EQ(floats_of("b"), Floats{5});
  EXPECT_EQ(floats_of("ab"), Floats{5.f / 3});  // by the weights of those that have it
  EXPECT_TRUE(any_has(decisions_on(all, "ab"), {a, b})) << joined(decisions_on(all, "ab"));
  EXPECT_FALSE(any_has(decisions_on(all, "ab"), {c})) << joined(decisions_on(all, "ab"));
  EXPECT_TRUE(decisions_on(all, "x").empty());
  EXPECT_TRUE(std::is_sorted(all.decisions.begin(), all.decisions.end(),
                             [](const auto& x, const auto& y) { return x.name < y.name; }));

  const std::string d = write("d.safetensors", {floats("other", {6})});
  EXPECT_EQ(refused({a, d}, {.keys = AverageKeys::kIntersect}).code(), ErrorCode::kNotFound);
}

TEST_F(AverageTest, NamesOfNoWeightAtAllHaveNoMean) {
  const std::string a = write("a.safetensors", {floats("x", {1}), floats("a", {3})});
  const std::string b = write("b.safetensors", {floats("x", {2})});
  AverageOptions options{.weights = {0, 1}, .keys = AverageKeys::kUnion};
  for (const bool dry_run : {false, true}) {
    options.dry_run = dry_run;
    const Error error = refused({a, b}, options);
    EXPECT_EQ(error.code(), ErrorCode::kInvalid) << error.what();
    EXPECT_TRUE(contains(error.what(), "\"a\"")) << error.what();
  }
}

TEST_F(AverageTest, TheNamesKeepTheirOrderWhereAllInputsHaveOne) {
  out_ = dir_ / "out.pt";
  const std::string a = write("a.pt", {floats("b", {1}), floats("c", {1}), floats("a", {1})});
  const std::string b = write("b.pt", {floats("a", {1}), floats("b", {1}), floats("c", {1})});
  average({a, a});
  EXPECT_EQ(test::names_of(weights::Weights::open(out_)), (Lines{"b", "c", "a"}));
  average({a, b});
  EXPECT_EQ(test::names_of(weights::Weights::open(out_)), (Lines{"a", "b", "c"}));
}

// --- Ties -----------------------------------------------------------------------------------------------------------

class AverageTiesTest : public AverageTest {
 protected:
  /// head is tied to embed where `tied`.
  std::vector<MadeTensor> tensors(float value, bool tied) {
    std::vector<MadeTensor> list = {floats("head", {value, 0}), floats("x", {value})};
    list.push_back(tied ? test::tie(list, "embed", 0) : floats("embed", {-value, 0}));
    return list;
  }
  bool tied_in_output() const {
    const weights::Weights written = weights::Weights::open(out_);
    return written.find("head")->stored.storage_offset == written.find("embed")->stored.storage_offset;
  }
};

TEST_F(AverageTiesTest, OfAllInputsStay) {
  for (const char* ending : {".safetensors", ".pt", ".archive"}) {
    const std::string a = write(std::string("a") + ending, tensors(1, true));
    const std::string b = write(std::string("b") + ending, tensors(2, true));
    for (const Format format : {Format::kSafetensors, Format::kTorch, Format::kArchive}) {
      const AverageReport report = average({a, b}, {.format = format});
      EXPECT_EQ(floats_of("head"), (Floats{1.5, 0}));
      EXPECT_EQ(floats_of("embed"), (Floats{1.5, 0}));
      EXPECT_TRUE(tied_in_output());
      EXPECT_EQ(report.tensors, 3u);
      EXPECT_EQ(report.bytes, 12u);
      EXPECT_TRUE(any_has(decisions_on(report, "head"), {"tied"}) || any_has(decisions_on(report, "embed"), {"tied"}));
    }
  }
}

TEST_F(AverageTiesTest, OfSomeInputsGoAndThatIsSaid) {
  for (const char* ending : {".safetensors", ".pt"}) {
    const std::string a = write(std::string("a") + ending, tensors(1, true));
    const std::string b = write(std::string("b") + ending, tensors(2, false));
    for (const Lines& inputs : {Lines{a, b}, Lines{b, a}}) {
      const AverageReport report = average(inputs);
      EXPECT_EQ(floats_of("head"), (Floats{1.5, 0}));
      EXPECT_EQ(floats_of("embed"), (Floats{-0.5, 0}));
      EXPECT_FALSE(tied_in_output());
      Lines said = decisions_on(report, "head");
      for (const std::string& line : decisions_on(report, "embed")) said.push_back(line);
      EXPECT_TRUE(any_has(said, {a})) << joined(said);
    }
  }
}

TEST_F(AverageTiesTest, OfNamesThatAnInputLacksStay) {
  const std::string a = write("a.safetensors", tensors(1, true));
  const std::string b = write("b.safetensors", {floats("x", {2})});
  average({b, a}, {.keys = AverageKeys::kUnion});
  EXPECT_TRUE(tied_in_output());
  EXPECT_EQ(floats_of("x"), Floats{1.5});
}

// --- What has no mean -----------------------------------------------------------------------------------------------

TEST_F(AverageTest, SparseAndQuantizedTensorsAreRefusedByName) {
  const std::string data = CKPT_TEST_DATA;
  for (const char* file : {"/torch/sparse.pt", "/torch/quantized.pt"}) {
    const weights::Weights weights = weights::Weights::open(data + file);
    std::vector<std::string> expected;
    for (const weights::Tensor& tensor : weights.tensors()) {
      if (tensor.stored.layout != format::TensorLayout::kStrided) expected.push_back(tensor.name);
    }
    ASSERT_FALSE(expected.empty());
    const Error error = refused({data + file, data + file});
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << error.what();
    for (const std::string& name : expected) EXPECT_TRUE(any_has(error.details(), {"\"" + name + "\"", data + file}));
  }
}

TEST_F(AverageTest, DtypesOfLessThanAByteAreRefusedByName) {
  std::string header = R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},)"
                       R"("b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[1,4]},)"
                       R"("c":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string length(8, '\0');
  length[0] = static_cast<char>(header.size());
  test::write_all(dir_ / "a.safetensors", length + header + "12345678");
  const Error error = refused({dir_ / "a.safetensors", dir_ / "a.safetensors"});
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_TRUE(any_has(error.details(), {"\"a\"", "F4"}) && any_has(error.details(), {"\"b\"", "F6"}))
      << joined(error.details());
}

TEST_F(AverageTest, WhatTheFormatCannotHoldIsRefusedByName) {
  const std::string a = write("a.pt", {made("z", DType::kComplex128, Doubles{1, 2}),
                                       made("y", DType::kComplex128, Doubles{1, 2}), floats("x", {1})});
  for (const bool dry_run : {false, true}) {
    const Error error = refused({a, a}, {.dry_run = dry_run});
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.details().size(), 2u) << joined(error.details());
  }
}

// --- NaN and infinities ---------------------------------------------------------------------------------------------

TEST_F(AverageTest, NaNAndInfinitiesAreToldWithFileAndNameUnlessAllowed) {
  const std::string a = write("a.safetensors", {floats("x", {1, kNaN, kNaN}), floats("y", {1}), floats("z", {3})});
  const std::string b = write("b.safetensors", {floats("x", {1, 2, 3}), floats("y", {kInfinity}), floats("z", {5})});
  const Error error = refused({a, b});
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  EXPECT_EQ(error.details().size(), 2u) << joined(error.details());
  EXPECT_TRUE(any_has(error.details(), {a, "\"x\""})) << joined(error.details());
  EXPECT_TRUE(any_has(error.details(), {b, "\"y\""})) << joined(error.details());

  const AverageReport report = average({a, b}, {.allow_nonfinite = true});
  EXPECT_EQ(floats_of("x")[0], 1);
  EXPECT_TRUE(std::isnan(floats_of("x")[1]) && std::isnan(floats_of("x")[2]));
  EXPECT_EQ(floats_of("y"), Floats{kInfinity});
  EXPECT_EQ(floats_of("z"), Floats{4});
  EXPECT_EQ(report.warnings.size(), 2u) << joined(report.warnings);
  EXPECT_TRUE(any_has(report.warnings, {a, "\"x\"", "2"})) << joined(report.warnings);
}

TEST_F(AverageTest, AMeanBeyondTheTargetsRangeIsToldUnlessAllowed) {
  const std::string a = write("a.safetensors", {floats("big", {1e30f, 1}), floats("small", {1})});
  const Error error = refused({a, a}, {.dtype = "float16"});
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  EXPECT_EQ(error.details().size(), 1u);
  EXPECT_TRUE(any_has(error.details(), {"\"big\"", "float16"})) << error.what();
  const AverageReport report = average({a, a}, {.dtype = "float16", .allow_nonfinite = true});
  EXPECT_EQ(values<uint16_t>("big"), (std::vector<uint16_t>{0x7c00, 0x3c00}));
  EXPECT_TRUE(any_has(report.warnings, {"\"big\"", "float16"})) << joined(report.warnings);
}

TEST_F(AverageTest, NumbersWhoseSumWouldOverflowHaveAMean) {
  const std::string a = write("a.safetensors", {doubles("x", {1.7e308}), floats("y", {3e38f})});
  average({a, a, a});
  EXPECT_EQ(values<double>("x"), Doubles{1.7e308});
  EXPECT_EQ(floats_of("y"), Floats{3e38f});
}

// --- Weights and moving averages ------------------------------------------------------------------------------------

TEST_F(AverageTest, WeightsAreDividedByTheirSum) {
  const std::string a = write("a.safetensors", {floats("x", {1})}), b = write("b.safetensors", {floats("x", {9})});
  const AverageReport report = average({a, b}, {.weights = {3, 1}});
  EXPECT_EQ(floats_of("x"), Floats{3});
  EXPECT_EQ(report.method, "weighted");
  EXPECT_EQ(report.inputs[0].weight, 3);
  average({a, b}, {.weights = {2, -1}});
  EXPECT_EQ(floats_of("x"), Floats{-7});
  average({a, b}, {.weights = {0, 1e-300}});
  EXPECT_EQ(floats_of("x"), Floats{9});
}

TEST_F(AverageTest, WeightsThatMakeNoSenseAreRefused) {
  const std::string a = write("a.safetensors", {floats("x", {1})});
  const auto code = [&](const AverageOptions& options) { return refused({a, a}, options).code(); };
  EXPECT_EQ(code({.weights = {1, -1}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.weights = {0, 0}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.weights = {1, -2}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.weights = {1, NAN}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.weights = {1, HUGE_VAL}}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.weights = {1, 2, 3}}), ErrorCode::kMismatch);
  EXPECT_EQ(code({.ema_decay = 1}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.ema_decay = -0.1}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.ema_decay = NAN}), ErrorCode::kInvalid);
  EXPECT_EQ(code({.weights = {1, 1}, .ema_decay = 0.5}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({}).code(), ErrorCode::kInvalid);
  // A sum is one of real numbers: one that no double holds, and one that is lost in doubles.
  average({a, a}, {.weights = {1.7e308, 1.7e308}});
  EXPECT_EQ(floats_of("x"), Floats{1});
  average({a, a, a}, {.weights = {1e-30, 1, -1}});
  EXPECT_EQ(floats_of("x"), Floats{1});
}

TEST_F(AverageTest, AMovingAverageStartsFromTheFirst) {
  const std::string a = write("a.safetensors", {floats("x", {1})}), b = write("b.safetensors", {floats("x", {3})}),
                    c = write("c.safetensors", {floats("x", {7})});
  const AverageReport report = average({a, b, c}, {.ema_decay = 0.5});
  EXPECT_EQ(floats_of("x"), Floats{4.5});  // 1, 2, 4.5
  EXPECT_EQ(report.method, "ema");
  EXPECT_EQ(report.inputs[0].weight, 0.25);
  EXPECT_EQ(report.inputs[1].weight, 0.25);
  EXPECT_EQ(report.inputs[2].weight, 0.5);
  average({c, b, a}, {.ema_decay = 0.5});
  EXPECT_EQ(floats_of("x"), Floats{3});  // 7, 5, 3
  average({a, b, c}, {.ema_decay = 0});
  EXPECT_EQ(floats_of("x"), Floats{7});
  average({a}, {.ema_decay = 0.9});
  EXPECT_EQ(floats_of("x"), Floats{1});
}

TEST_F(AverageTest, AMovingAverageOfBFloat16Moves) {
  // Step by step in bfloat16, 1 + 0.001 * 1 rounds to 1 for ever.
  const auto input = [&](const std::string& name, uint16_t bits) {
    return write(name, {made("x", DType::kBFloat16, std::vector<uint16_t>{bits})});
  };
  std::vector<std::string> inputs = {input("first.safetensors", 0x3f80)};
  const std::string two = input("two.safetensors", 0x4000);
  for (int i = 0; i < 700; ++i) inputs.push_back(two);
  average(inputs, {.ema_decay = 0.999});
  EXPECT_EQ(values<uint16_t>("x")[0], 0x3fc0);  // 2 - 0.999^700 = 1.504
}

// --- Provenance and dry runs ----------------------------------------------------------------------------------------

nlohmann::json provenance_in(const std::string& path) {
  return nlohmann::json::parse(weights::Weights::open(path).metadata().at(kAverageProvenance));
}

TEST_F(AverageTest, TheResultSaysWhatItWasMadeOf) {
  const std::string a = write("a.safetensors", {floats("x", {1})}), b = write("b.pt", {floats("x", {3})});
  for (const Format format : {Format::kSafetensors, Format::kTorch, Format::kArchive}) {
    const AverageReport report = average({a, b}, {.weights = {1, 0.5}, .format = format});
    const nlohmann::json json = provenance_in(out_);
    EXPECT_EQ(json.at("method"), "weighted");
    EXPECT_FALSE(json.contains("decay"));
    ASSERT_EQ(json.at("inputs").size(), 2u);
    for (size_t i = 0; i < 2; ++i) {
      const auto& input = json.at("inputs")[report.inputs[0].hash < report.inputs[1].hash ? i : 1 - i];
      EXPECT_EQ(input.at("name"), i == 0 ? "a.safetensors" : "b.pt");
      EXPECT_EQ(input.at("hash"), report.inputs[i].hash);
      EXPECT_EQ(input.at("weight"), report.inputs[i].weight);
      EXPECT_EQ(report.inputs[i].hash.size(), 32u);
    }
  }
  const AverageReport report = average({b, a}, {.ema_decay = 0.75});
  const nlohmann::json json = provenance_in(out_);
  EXPECT_EQ(json.at("method"), "ema");
  EXPECT_EQ(json.at("decay"), 0.75);
  EXPECT_EQ(json.at("inputs")[0].at("name"), "b.pt");
  EXPECT_EQ(json.at("inputs")[1].at("weight"), 0.25);
}

TEST_F(AverageTest, ANameThatIsNotUtf8IsNoObstacle) {
  const std::string a = write("\xff\xfe.safetensors", {floats("x", {1})});
  for (const Format format : {Format::kSafetensors, Format::kTorch}) {
    average({a, a}, {.format = format});
    EXPECT_EQ(provenance_in(out_).at("inputs").size(), 2u);
  }
}

TEST_F(AverageTest, AHashIsThatOfWhatTookPartInAnyFormat) {
  std::vector<MadeTensor> tensors = {floats("x", {1, 2}), longs("n", {3}), bools("f", {1})};
  tensors.push_back(test::tie(tensors, "t", 0));
  const auto hash = [&](const std::string& path, const AverageOptions& options = {}) {
    return average({path}, options).inputs[0].hash;
  };
  const std::string first = hash(write("a.safetensors", tensors));
  EXPECT_EQ(hash(write("a.pt", tensors)), first);
  EXPECT_EQ(hash(write("a.archive", tensors)), first);
  EXPECT_EQ(hash(dir_ / "a.pt", {.dtype = "float16", .threads = 3}), first);
  tensors.push_back(floats("empty", {}));
  EXPECT_NE(hash(write("b.pt", tensors)), first);
  tensors.pop_back();
  std::swap(tensors[0].bytes[0], tensors[0].bytes[7]);
  EXPECT_NE(hash(write("b.pt", tensors)), first);
  std::swap(tensors[0].bytes[0], tensors[0].bytes[7]);
  EXPECT_EQ(hash(write("b.pt", tensors)), first);
  tensors[0].name = "y";
  EXPECT_NE(hash(write("b.pt", tensors)), first);
  tensors[0].name = "x";
  tensors[0].shape = tensors[3].shape = {2, 1};
  EXPECT_NE(hash(write("b.pt", tensors)), first);
  tensors[0].shape = tensors[3].shape = {2};
  tensors[0].dtype = tensors[3].dtype = DType::kInt32;
  EXPECT_NE(hash(write("b.pt", tensors)), first);
}

TEST_F(AverageTest, ADryRunDecidesAndReadsNoTensor) {
  const std::string a = write("a.safetensors", {floats("x", {kNaN}), longs("n", {3})});
  const std::string b = write("b.safetensors", {floats("x", {1}), longs("n", {4})});
  const AverageReport report = average({a, b}, {.dtype = "f64", .dry_run = true});
  EXPECT_FALSE(std::filesystem::exists(out_));
  EXPECT_EQ(report.tensors, 2u);
  EXPECT_EQ(report.bytes, 16u);
  EXPECT_EQ(decisions_on(report, "n"), Lines{"newest: from " + b});
  EXPECT_EQ(decisions_on(report, "x"), Lines{"float32 to float64"});
  EXPECT_EQ(report.inputs[0].hash, "");
}

TEST_F(AverageTest, TheNameOfTheOutputTellsItsFormat) {
  const std::string a = write("a.safetensors", {floats("x", {1})});
  for (const char* name : {"o.safetensors", "o.pt", "o.pth", "o.bin"}) {
    average::average({a}, dir_ / name, {});
    EXPECT_EQ(weights::Weights::open(dir_ / name).format(),
              contains(name, "safetensors") ? Format::kSafetensors : Format::kTorch);
  }
  EXPECT_EQ(test::error_of([&] { average::average({a}, dir_ / "o", {}); }).code(), ErrorCode::kInvalid);
  EXPECT_EQ(test::error_of([&] { average::average({a}, dir_ / "o.pt", {.format = Format::kPt2}); }).code(),
            ErrorCode::kInvalid);
}

}  // namespace
}  // namespace ckpt
