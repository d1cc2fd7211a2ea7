#include "core/format/archive.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "core/format/pickle_builder.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using namespace test::pickled;
using test::le;
using test::ZipImage;

class ArchiveTest : public testing::Test {
 protected:
  ArchiveFile open(const std::string& bytes) {
    std::filesystem::remove(dir_ / "f.pt");  // ext4 flushes a file that was cut to be written again
    test::write_all(dir_ / "f.pt", bytes);
    return ArchiveFile::open(dir_ / "f.pt");
  }
  std::optional<ErrorCode> error_of(const std::string& bytes) {
    try {
      open(bytes);
      return std::nullopt;
    } catch (const Error& error) {
      EXPECT_EQ(error.path(), dir_ / "f.pt");
      message_ = error.what();
      return error.code();
    }
  }
  std::optional<ErrorCode> error_of_value(const std::string& stream) {
    return error_of(archive(whole(module(text("x") + stream))).bytes());
  }

  test::TempDir dir_;
  std::string message_;
};

TEST_F(ArchiveTest, ReadsATensor) {
  const ArchiveFile file = open(archive(whole(module(text("x") + Tensor().stream()))).bytes());
  const StoredTensor& tensor = *file.root().get<StoredTensor>("x");
  EXPECT_EQ(tensor.record, "data/0");
  EXPECT_EQ(tensor.elements, 6u);
  EXPECT_EQ(tensor.file_offset, file.zip()->find("data/0")->data_offset);
}

struct TensorCorruption {
  const char* name;
  Tensor tensor;
  ErrorCode code = ErrorCode::kCorrupt;
};

const int64_t kHuge = INT64_MAX;

const TensorCorruption kTensorCorruptions[] = {
    {"IdIsNotStorage", {.id = text("module")}},
    {"IdIsInteger", {.id = integer(1)}},
    {"ClassIsText", {.type = text("FloatStorage")}},
    {"KeyIsInteger", {.key = integer(0)}},
    {"KeyIsAbsent", {.key = text("1")}},
    {"KeyLeavesTheFolder", {.key = text("../data.pkl")}},
    {"LocationIsNone", {.location = "N"}},
    {"NumelIsNegative", {.numel = integer(-6)}},
    {"NumelIsFloat", {.numel = std::string("G\0\0\0\0\0\0\0\0", 9)}},
    {"NumelTooHigh", {.numel = integer(7)}},
    {"NumelTooLow", {.numel = integer(5)}},
    {"NumelHuge", {.numel = integer(kHuge)}},
    {"OffsetIsNegative", {.offset = integer(-1)}},
    {"OffsetPastEnd", {.offset = integer(7)}},
    {"OffsetPushesLastOut", {.offset = integer(1)}},
    {"OffsetHuge", {.offset = integer(kHuge)}},
    {"OffsetIsNone", {.offset = "N"}},
    {"SizeIsNegative", {.sizes = integers({-2, 3})}},
    {"SizesAreTexts", {.sizes = tuple({text("2"), text("3")})}},
    {"SizesAreAList", {.sizes = "]"}},
    {"SizesTooLarge", {.sizes = integers({3, 3})}},
    {"SizesOverflow", {.sizes = integers({kHuge, kHuge})}},
    {"SizesOverflowWithZero", {.sizes = integers({kHuge, kHuge, 0}), .strides = integers({1, 1, 1})}},
    {"StrideIsNegative", {.strides = integers({3, -1})}},
    {"StrideLeavesStorage", {.strides = integers({4, 1})}},
    {"StridesOverflow", {.strides = integers({kHuge, kHuge})}},
    {"FewerStrides", {.strides = integers({1})}},
    {"MoreStrides", {.strides = integers({3, 1, 1})}},
    {"RankTooHigh", {.sizes = integers(std::vector<int64_t>(65, 1)), .strides = integers(std::vector<int64_t>(65, 1))}},
    {"ExpandedBeyondTheLimit", {.sizes = integers({int64_t{1} << 40}), .strides = integers({0})}},
    {"GradIsInteger", {.requires_grad = integer(1)}},
    {"StorageIsNoId", {.storage = "N"}},
    {"StorageIdIsText", {.storage = text("storage") + "Q"}},
    {"StorageIdIsShort", {.storage = tuple({text("storage")}) + "Q"}},
    {"TooManyArguments", {.more = "}N"}},
    {"UnknownClass", {.type = global("torch", "UntypedStorage")}, ErrorCode::kUnsupported},
    {"MathBits", {.more = "}" + text("conj") + "\x88s"}, ErrorCode::kUnsupported},
    {"Quantized", {.rebuild = global("torch._utils", "_rebuild_qtensor")}, ErrorCode::kUnsupported},
    {"ForeignGlobal", {.rebuild = global("os", "system")}, ErrorCode::kUnsafe},
    {"ForeignGlobalAsClass", {.type = global("builtins", "eval")}, ErrorCode::kUnsafe},
};

TEST_F(ArchiveTest, RefusesEveryTensorOfTheTable) {
  for (const TensorCorruption& corruption : kTensorCorruptions) {
    EXPECT_EQ(error_of_value(corruption.tensor.stream()), corruption.code) << corruption.name << ": " << message_;
    const bool names_member = message_.find("\"x\"") != std::string::npos;
    EXPECT_EQ(names_member, corruption.code != ErrorCode::kUnsafe) << message_;
  }
}

TEST_F(ArchiveTest, AcceptsLegalOddTensors) {
  const Tensor empty{.numel = integer(6), .offset = integer(6), .sizes = integers({0, 5}), .strides = integers({5, 1})};
  EXPECT_EQ(error_of_value(empty.stream()), std::nullopt) << message_;
  const Tensor scalar{.offset = integer(5), .sizes = ")", .strides = ")"};
  EXPECT_EQ(error_of_value(scalar.stream()), std::nullopt) << message_;
  const Tensor no_bits{.more = "}"};
  EXPECT_EQ(error_of_value(no_bits.stream()), std::nullopt) << message_;
}

TEST_F(ArchiveTest, OneRecordHasOneDtype) {
  Tensor other;
  other.type = global("torch", "IntStorage");
  const std::string both = text("x") + Tensor().stream() + text("y") + other.stream();
  EXPECT_EQ(error_of(archive(whole(module(both))).bytes()), ErrorCode::kCorrupt) << message_;
}

TEST_F(ArchiveTest, RefusesOtherValues) {
  EXPECT_EQ(error_of_value("}"), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of_value("\x8f"), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of_value(tuple({text("a"), integer(1)})), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of_value("\x8a\x09" + std::string(9, 'x')), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of_value(global("torch.jit._pickle", "build_boollist") + "(]tR"), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of_value(global("torch.jit._pickle", "build_intlist") + "(](Neta" + "R"), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(global("torch.jit._pickle", "build_intlist") + "(](NetR"), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(global("torch.jit._pickle", "build_tensorlist") + "(](NetR"), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value("N)R"), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(global("__torch__", "Module") + ")\x81Nb"), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of_value(global("__torch__", "Module") + ")\x81"), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(global("__torch__", "Module") + tuple({"N"}) + "\x81}b"), ErrorCode::kCorrupt);
}

TEST_F(ArchiveTest, RefusesWrongFiles) {
  EXPECT_EQ(error_of(archive(whole("}")).bytes()), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of(archive(whole(module("")) + "x").bytes()), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(archive(whole(module(integer(1) + "N"))).bytes()), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(archive(whole(module(text("a") + "N" + text("a") + "N"))).bytes()), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(archive(whole(module(text(std::string(70000, 'n')) + "N"))).bytes()), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(archive(whole(module("") + "cos\nsystem\n0")).bytes()), ErrorCode::kUnsafe);
  ZipImage big = archive(whole(module("")));
  big.entries[2] = test::zip_entry("a/byteorder", "big");
  EXPECT_EQ(error_of(big.bytes()), ErrorCode::kUnsupported);
  big.entries[2] = test::zip_entry("a/byteorder", "middle");
  EXPECT_EQ(error_of(big.bytes()), ErrorCode::kCorrupt);
  const ZipImage no_pickle{.entries = {test::zip_entry("a/x", "y")}};
  EXPECT_EQ(error_of(no_pickle.bytes()), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of("no zip at all"), ErrorCode::kCorrupt);
}

TEST_F(ArchiveTest, BoundsDepthCyclesAndWhatSharingMultiplies) {
  std::string deep = module("");
  for (int i = 0; i < 900; ++i) deep = module(text("x") + deep);
  EXPECT_EQ(error_of(archive(whole(deep)).bytes()), std::nullopt) << message_;
  for (int i = 0; i < 200; ++i) deep = module(text("x") + deep);
  EXPECT_EQ(error_of(archive(whole(deep)).bytes()), ErrorCode::kCorrupt) << message_;

  const std::string cycle = global("__torch__", "Module") + ")\x81q" + std::string(1, '\0') + "}(" + text("x") + "h" +
                            std::string(1, '\0') + "ub";
  EXPECT_EQ(error_of(archive(whole(cycle)).bytes()), ErrorCode::kCorrupt) << message_;

  // Each level holds the one below twice: 2^40 tensors at the top.
  std::string doubling = module(text("t") + Tensor().stream());
  for (char i = 0; i < 40; ++i) {
    doubling += "q" + std::string(1, i) + "0" +
                module(text("a") + "h" + std::string(1, i) + text("b") + "h" + std::string(1, i));
  }
  EXPECT_EQ(error_of(archive(whole(doubling)).bytes()), ErrorCode::kCorrupt) << message_;

  const std::string shared = module(text("t") + Tensor().stream()) + std::string("q\0", 2);
  const ArchiveFile twice =
      open(archive(whole(module(text("a") + shared + text("b") + std::string("h\0", 2)))).bytes());
  EXPECT_EQ(tensors_of(twice.root(), false).size(), 2u);
  EXPECT_EQ(twice.root().nested("a"), twice.root().nested("b"));
}

TEST_F(ArchiveTest, LevelsThatAreSharedCostWhatTheyAreIfTheyHoldNothing) {
  std::string shared = module("");
  for (int i = 0; i < 60; ++i) shared = module(text("a") + shared + "q\x01" + text("b") + "h\x01");
  EXPECT_EQ(error_of(archive(whole(shared)).bytes()), ErrorCode::kCorrupt);
  EXPECT_NE(message_.find("memory"), std::string::npos) << message_;
  std::string texts = "}(";
  for (int i = 0; i < 2000; ++i) texts += text(std::to_string(i)) + "h\x01";
  const std::string level = module(text("t") + text(std::string(100000, 't')));
  EXPECT_EQ(error_of(archive(whole(global("__torch__", "M") + ")\x81}(" + text("first") + level + "q\x01" +
                                   texts.substr(2) + "ub"))
                         .bytes()),
            ErrorCode::kCorrupt);
  EXPECT_NE(message_.find("memory"), std::string::npos) << message_;
}

TEST_F(ArchiveTest, RefusesJoinedNamesBeyond64KiB) {
  std::string nested = Tensor().stream();
  for (int i = 0; i < 70; ++i) nested = module(text(std::string(1000, 'n')) + nested);
  EXPECT_EQ(error_of(archive(whole(nested)).bytes()), ErrorCode::kCorrupt);
  EXPECT_NE(message_.find("a name of"), std::string::npos) << message_;
}

TEST_F(ArchiveTest, NeverCrashesOnChangedZeroedOrMissingBytes) {
  const std::string bytes = archive(whole(module(text("x") + Tensor().stream() + text("n") + integer(3)))).bytes();
  ASSERT_EQ(error_of(bytes), std::nullopt) << message_;
  for (size_t at = 0; at < bytes.size(); ++at) {
    EXPECT_NE(error_of(bytes.substr(0, at)), std::nullopt) << at;
    for (char c : {static_cast<char>(bytes[at] ^ 1), '\0'}) {
      std::string changed = bytes;
      changed[at] = c;
      error_of(changed);
    }
  }
}

// The zip's CRC would stop most of these, so the pickle is changed before the zip is made.
TEST_F(ArchiveTest, NeverCrashesOnChangedPickles) {
  const std::string pickle = whole(module(text("x") + Tensor().stream() + text("n") + module(text("m") + integer(3))));
  for (size_t at = 0; at < pickle.size(); ++at) {
    for (char c : {static_cast<char>(pickle[at] ^ 1), static_cast<char>(pickle[at] ^ 0x80), '\0', '0', '2'}) {
      std::string changed = pickle;
      changed[at] = c;
      error_of(archive(changed).bytes());
    }
  }
}

TEST(ArchiveNames, EscapesWhatLibTorchCannotReadBack) {
  EXPECT_EQ(escape_name("weight"), "weight");
  EXPECT_EQ(escape_name("in"), "%69n");
  EXPECT_EQ(escape_name("None"), "%4Eone");
  EXPECT_EQ(escape_name("__parameters__"), "%5F_parameters__");
  EXPECT_EQ(escape_name("a\"b\\c\n\x7f%"), "a%22b%5Cc%0A%7F%25");
  EXPECT_EQ(escape_name(""), "");
  EXPECT_EQ(escape_name("caf\xc3\xa9 1.x/'"), "caf\xc3\xa9 1.x/'");
  EXPECT_EQ(unescape_name("50%"), "50%");
  EXPECT_EQ(unescape_name("%4"), "%4");
  EXPECT_EQ(unescape_name("%zz%4a"), "%zz%4a");
}

TEST(ArchiveNames, EscapingIsUndoneForAnyName) {
  std::mt19937 random(1);
  const std::string alphabet = "%25Aab\"\\\n in\x7f\x01\xc3\xa9_.";
  std::set<std::string> names, escaped;
  for (int i = 0; i < 20000; ++i) {
    std::string name;
    for (size_t left = random() % 8; left > 0; --left) name += alphabet[random() % alphabet.size()];
    names.insert(name);
  }
  names.insert({"in", "%69n", "%2569n", "is", "if", "None", "%4Eone", "__annotations__"});
  for (const std::string& name : names) {
    const std::string written = escape_name(name);
    EXPECT_EQ(unescape_name(written), name);
    EXPECT_EQ(written.find_first_of("\"\\\n\x7f\x01"), std::string::npos);
    escaped.insert(written);
  }
  EXPECT_EQ(escaped.size(), names.size());
  EXPECT_FALSE(escaped.contains("in"));
}

}  // namespace
}  // namespace ckpt::format
