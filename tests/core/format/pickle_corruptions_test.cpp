#include <gtest/gtest.h>

#include "core/format/pickle.h"
#include "core/format/pickle_builder.h"
#include "core/io/file.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

using test::becomes;
using test::le;

/// A pair of twice the pair before it, 2^levels lists if it were spread out.
std::string shared(int levels) {
  std::string stream = "]q\x01";
  for (int i = 0; i < levels; ++i) stream += "2\x86q\x01";
  return stream + ".";
}

std::vector<test::Corruption<std::string>> corruptions() {
  return {
      becomes("Empty", ""),
      becomes("NoStop", "N"),
      becomes("NothingAtStop", "."),
      becomes("TwoValuesAtStop", "NN."),
      becomes("MarkAtStop", "N(."),
      becomes("UnknownOpcode", "\x01."),
      becomes("ProtocolTooNew", "\x80\x06N."),
      becomes("ProtocolCutOff", "\x80"),
      becomes("FrameTooLong", "\x95" + le(100, 8) + "N."),
      becomes("IntegerCutOff", "J\x01\x02"),
      becomes("LongCutOff", "\x8a\x09\x01."),
      becomes("LongHuge", "\x8b\xff\xff\xff\xff."),
      becomes("FloatCutOff", "G\x01."),
      becomes("TextCutOff", "X" + le(10, 4) + "ab."),
      becomes("TextHuge", "\x8d" + le(UINT64_MAX, 8) + "ab."),
      becomes("BytesHuge", "\x8e" + le(INT64_MAX, 8) + "ab."),
      becomes("LineWithoutEnd", "I12"),
      becomes("IntegerLineWrong", "I1x\n."),
      becomes("FloatLineWrong", "Fx\n."),
      becomes("StringUnquoted", "Sabc\n."),
      becomes("StringWithOneQuote", "S'\n."),
      becomes("StringWithWrongEscape", "S'\\q'\n."),
      becomes("StringEndsInBackslash", "S'\\'\n."),
      becomes("UnicodeWithWrongEscape", "V\\u12\n."),
      becomes("UnicodeBeyondLast", "V\\U00110000\n."),
      becomes("PopOfNothing", "0."),
      becomes("PopMarkOfNothing", "1."),
      becomes("DupOfNothing", "2."),
      becomes("TupleWithoutMark", "Nt."),
      becomes("TupleOfTooFew", "N\x86."),
      becomes("TupleOverMark", "N(N\x86."),
      becomes("ListWithoutMark", "l."),
      becomes("DictOddly", "(Nd."),
      becomes("AppendToNothing", "Na."),
      becomes("AppendToInteger", "K\x01Na."),
      becomes("AppendsToDict", "}(Ne."),
      becomes("AppendsOverMark", "](N(Ne."),
      becomes("SetItemOnList", "]NNs."),
      becomes("SetItemsOddly", "}(Nu."),
      becomes("AddItemsToList", "](N\x90."),
      becomes("MemoOfNothing", "q\x01."),
      becomes("MemoMissing", "h\x05."),
      becomes("MemoHuge", "Nr\xff\xff\xff\x7f."),
      becomes("MemoNegative", "Np-1\n."),
      becomes("GetNegative", "g-1\n."),
      becomes("GlobalCutOff", "cos\n"),
      becomes("StackGlobalOfIntegers", "K\x01K\x02\x93."),
      becomes("StackGlobalOfNothing", "\x93."),
      becomes("ReduceOfNothing", ")R."),
      becomes("NewObjectOfNothing", "\x81."),
      becomes("ObjectWithoutClass", "(o."),
      becomes("InstanceWithoutMark", "ios\nsystem\n."),
      becomes("BuildOfInteger", "K\x01Nb."),
      becomes("BuildTwice", "cm\nn\n)RNbNb."),
      becomes("PersistentOfNothing", "Q."),
      becomes("Extension", "\x82\x01.", ErrorCode::kUnsupported),
      becomes("OutOfBandBuffer", "\x97.", ErrorCode::kUnsupported),
      becomes("IntegerLineTooLarge", "L99999999999999999999L\n.", ErrorCode::kUnsupported),

      becomes("MarkUnderTuple3", "N(NN\x87."),
      becomes("MarksTwiceAtStop", "((N."),
      becomes("AppendOverMark", "](Na."),
      becomes("SetItemOverMark", "}N(Ns."),
      becomes("FrozenSetWithoutMark", "N\x91."),
      becomes("ReduceOverMark", "cos\nsystem\n()R."),
      becomes("BuildOverMark", "cos\nsystem\n)R(Nb."),
      becomes("StackGlobalOverMark", "\x8c\x02os(\x8c\x06system\x93."),
      becomes("PersistentOverMark", "N(Q."),
      becomes("NewObjectExOfTooFew", "N}\x92."),
      becomes("Text4CutOff", "T\xff\xff\xff\xffq."),
      becomes("MemoLongHuge", "Nr\xff\xff\xff\xff."),
      becomes("MemoLineHuge", "Np99999999999999999999\n.", ErrorCode::kUnsupported),
      becomes("GetLineHuge", "g99999999999999999999\n.", ErrorCode::kUnsupported),
      becomes("MemoNamedAheadOfTime", "h" + std::string(1, '\0') + "q" + std::string(1, '\0') + "."),
      becomes("DictWithoutMark", "NNd."),
      becomes("FloatLineHuge", "F" + std::string(5000, '9') + "\n."),
      becomes("ManyMarks", std::string(1500000, '(') + "N."),
      becomes("ManyLists", "(" + std::string(3000000, ']') + "t."),
      // Texts are bytes here; who shows a name quotes it.
      becomes("TextHalfOfASurrogatePair", "V\\ud83d\n.", std::nullopt),
      becomes("UnicodeNotUtf8", "X" + le(2, 4) + "\xc3\x28.", std::nullopt),
      becomes("GlobalNameNotUtf8", "cos\n\xff\n.", std::nullopt),
      becomes("ListOfItself",
              "]q\x01h\x01"
              "a.",
              std::nullopt),
      becomes("TupleInItsOwnItem",
              "]q\x01h\x01\x85"
              "a.",
              std::nullopt),
      becomes("DictOfItself", "}q\x01h\x01h\x01s.", std::nullopt),
      becomes("SameKeyTwice", "}(\x8c\x01kN\x8c\x01kNu.", std::nullopt),
      becomes("NestedDeep", std::string(200000, ']') + std::string(199999, 'a') + ".", std::nullopt),
      becomes("SharedExponentially", shared(60), std::nullopt),
      becomes("ObjectAsCallable", "cos\nsystem\n)R)R.", std::nullopt),
      becomes("ArgumentsThatAreNoTuple", "cos\nsystem\nNR.", std::nullopt),
      becomes("BytesAfterStop", "N.rest", std::nullopt),
  };
}

void parse(const std::string& path) {
  const io::File file = io::File::open(path);
  const uint64_t bytes = file.stat().bytes;
  Pickle::parse(file.read_at(0, bytes), path, 0, bytes + (60 << 20));
}

/// A value of every kind, by opcodes of every protocol.
std::string good() {
  using namespace test::pickled;
  return "\x80\x04(]q\x01(K\x01M\x02\x01J\x03\x02\x01\x01" + integer(4) + "I5\nL6L\neh\x01}(\x8c\x01k" + text("v") +
         "U\x01wC\x01xu\x8f(N\x90(\x88\x91S'y'\nVz\nF1.5\nG" + std::string(8, '\x3f') + global("m", "n") +
         ")R}b\x8c\x01m\x8c\x01n\x93)\x81" + text("id") + "Q\x94K\x07\x85K\x08K\x09\x86NNN\x87t.";
}

TEST(PickleCorruptions, EachIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(good(), corruptions(), test::as_they_are, parse, folder);
}

TEST(PickleCorruptions, AnyByteMayBeWrongOrMissing) { test::check_every_place(good(), parse); }

}  // namespace
}  // namespace ckpt::format
