#include "core/format/pickle.h"

#include <gtest/gtest.h>

#include "core/format/pickle_builder.h"

namespace ckpt::format {
namespace {

using namespace test::pickled;
using test::le;

constexpr uint64_t kMemory = 64 << 20;

Pickle parse(const std::string& stream, uint64_t memory = kMemory) {
  const ByteView bytes = as_bytes(stream);
  return Pickle::parse({bytes.begin(), bytes.end()}, "p", 0, memory);
}

std::optional<ErrorCode> error_of(const std::string& stream, uint64_t memory = kMemory) {
  try {
    parse(stream, memory);
    return std::nullopt;
  } catch (const Error& error) {
    return error.code();
  }
}

TEST(Pickle, ReadsScalarsOfEveryProtocol) {
  EXPECT_EQ(parse("N.").kind(0), PickleKind::kNone);
  const auto integer_of = [](const std::string& stream) {
    const Pickle pickle = parse(stream);
    EXPECT_EQ(pickle.kind(pickle.root()), PickleKind::kInt) << stream;
    return pickle.integer(pickle.root());
  };
  EXPECT_EQ(integer_of("K\xff."), 255);
  EXPECT_EQ(integer_of("M\xff\xff."), 65535);
  EXPECT_EQ(integer_of("J\xff\xff\xff\xff."), -1);
  EXPECT_EQ(integer_of(std::string("\x8a\x00.", 3)), 0);
  EXPECT_EQ(integer_of("\x8a\x01\x80."), -128);
  EXPECT_EQ(integer_of("\x8b" + le(2, 4) + "\xff\x7f."), 32767);
  EXPECT_EQ(integer_of("I-12\n."), -12);
  EXPECT_EQ(integer_of("L34L\n."), 34);
  const auto number_of = [](const std::string& stream) {
    const Pickle pickle = parse(stream);
    return pickle.number(pickle.root());
  };
  EXPECT_EQ(number_of(std::string("G\x3f\xe0\0\0\0\0\0\0.", 10)), 0.5);
  EXPECT_EQ(number_of("F-1e3\n."), -1000.0);
  const Pickle big = parse("\x8a\x0a" + std::string(10, '\x7f') + ".");
  EXPECT_EQ(big.kind(big.root()), PickleKind::kBigInt);
  EXPECT_EQ(big.text(big.root()).size(), 10u);
  const Pickle boolean = parse("I01\n.");
  EXPECT_EQ(boolean.kind(boolean.root()), PickleKind::kBool);
  EXPECT_TRUE(boolean.boolean(boolean.root()));
}

TEST(Pickle, ReadsTextsAndBytesOfEveryProtocol) {
  const auto text_of = [](const std::string& stream) {
    const Pickle pickle = parse(stream);
    return std::string(pickle.text(pickle.root()));
  };
  EXPECT_EQ(text_of("X" + le(2, 4) + "ab."), "ab");
  EXPECT_EQ(text_of("\x8c\x02"
                    "ab."),
            "ab");
  EXPECT_EQ(text_of("\x8d" + le(2, 8) + "ab."), "ab");
  EXPECT_EQ(text_of("U\x01q."), "q");
  EXPECT_EQ(text_of("T" + le(1, 4) + "q."), "q");
  EXPECT_EQ(text_of("S'a\\'\\x41\\n'\n."), "a'A\n");
  EXPECT_EQ(text_of("Va\\u00e9\\U0001F600\n."), "a\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(text_of("B" + le(1, 4) + "q."), "q");
  EXPECT_EQ(text_of("C\x01q."), "q");
  EXPECT_EQ(text_of("\x8e" + le(1, 8) + "q."), "q");
  EXPECT_EQ(text_of("\x96" + le(1, 8) + "q."), "q");
}

TEST(Pickle, BuildsContainers) {
  // A list that grows after a pause, a dict, a set, a frozen set, a pair.
  const Pickle pickle = parse(
      "(](K\x01K\x02"
      "e"
      "K\x03"
      "a"
      "}K\x05K\x06s"
      "\x8f(K\x07\x90"
      "(K\x08\x91"
      ")N\x86"
      "t.");
  const auto root = pickle.items(pickle.root());
  ASSERT_EQ(root.size(), 5u);
  const PickleKind kinds[] = {PickleKind::kList, PickleKind::kDict, PickleKind::kSet, PickleKind::kFrozenSet,
                              PickleKind::kTuple};
  const size_t sizes[] = {3, 2, 1, 1, 2};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(pickle.kind(root[i]), kinds[i]) << i;
    EXPECT_EQ(pickle.items(root[i]).size(), sizes[i]) << i;
  }
  EXPECT_EQ(pickle.integer(pickle.items(root[0])[2]), 3);
}

TEST(Pickle, SharesWhatIsMemoized) {
  const Pickle pickle = parse(
      "(]q\x01K\x01"
      "ah\x01h\x01t.");
  const auto items = pickle.items(pickle.root());
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0], items[2]);
  EXPECT_EQ(pickle.items(items[0]).size(), 1u);
}

TEST(Pickle, NeverCallsGlobals) {
  const Pickle pickle = parse("\x80\x04\x8c\x02os\x8c\x06system\x93\x94(\x8c\x06rm -rftR}\x8c\x01kK\x01sb.");
  ASSERT_EQ(pickle.kind(pickle.root()), PickleKind::kObject);
  const PickleObject& object = pickle.object(pickle.root());
  EXPECT_TRUE(pickle.is_global(object.callable, "os", "system"));
  EXPECT_EQ(pickle.text(pickle.items(object.arguments)[0]), "rm -rf");
  EXPECT_EQ(pickle.kind(object.state), PickleKind::kDict);
  EXPECT_EQ(pickle.globals().size(), 1u);
}

TEST(Pickle, ListsEveryGlobalWhicheverOpcodeNamesIt) {
  EXPECT_EQ(parse("cos\nsystem\n.").globals().size(), 1u);
  EXPECT_EQ(parse("(ios\nsystem\n.").globals().size(), 1u);
  EXPECT_EQ(parse("(cos\nsystem\no.").globals().size(), 1u);
  EXPECT_EQ(parse("cos\nsystem\n0N.").globals().size(), 1u);
  EXPECT_EQ(parse("cos\nsystem\n)}\x92.").globals().size(), 1u);
}

TEST(Pickle, ObjectsTakeItemsAndState) {
  const Pickle pickle = parse("ccollections\nOrderedDict\n)R(K\x01K\x02u}b.");
  const PickleObject& object = pickle.object(pickle.root());
  EXPECT_EQ(pickle.items(object.dict).size(), 2u);
  EXPECT_NE(object.state, kNoNode);
  EXPECT_EQ(object.list, kNoNode);
}

TEST(Pickle, AValueMayHoldItself) {
  const Pickle pickle = parse(
      "]q\x01h\x01"
      "a.");
  EXPECT_EQ(pickle.items(pickle.root())[0], pickle.root());
}

TEST(Pickle, DepthAndSharingCostNothing) {
  std::string deep, doubling = "]q\x01";
  for (int i = 0; i < 200000; ++i) deep += "]";
  for (int i = 0; i < 199999; ++i) deep += "a";
  EXPECT_EQ(error_of(deep + "."), std::nullopt);
  for (int i = 0; i < 60; ++i) doubling += "2\x86q\x01";
  EXPECT_EQ(error_of(doubling + "."), std::nullopt);
}

TEST(Pickle, ListsThatTakeTurnsStayLinear) {
  std::string stream = "(]q\x01]q\x02";
  for (int i = 0; i < 50000; ++i) stream += "h\x01Na0h\x02Na0";
  const Pickle pickle = parse(stream + "t.");
  EXPECT_EQ(pickle.items(pickle.items(pickle.root())[0]).size(), 50000u);
  EXPECT_EQ(pickle.items(pickle.items(pickle.root())[1]).size(), 50000u);
}

TEST(Pickle, MemoryIsBounded) {
  EXPECT_EQ(error_of("(" + std::string(1000000, ']') + "t.", 4 << 20), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(std::string(1000000, '(') + "N.", 4 << 20), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of("(" + std::string(100000, 'N') + "t.", 16 << 20), std::nullopt);
}

TEST(Pickle, StopsAtStop) { EXPECT_EQ(parse("N.rest").length(), 2u); }

}  // namespace
}  // namespace ckpt::format
