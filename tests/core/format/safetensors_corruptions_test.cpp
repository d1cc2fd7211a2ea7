#include <gtest/gtest.h>

#include "core/format/safetensors.h"
#include "core/format/safetensors_builder.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

using test::becomes;
using test::safetensors;

/// "[1,1,...]"
std::string ones(int count) {
  std::string list = "[1";
  for (int i = 1; i < count; ++i) list += ",1";
  return list + "]";
}

/// A header of one tensor "x" with these values, and a byte of data.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                const std::string& data = "x") {
  return safetensors(R"({"x":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
                     data);
}

std::vector<test::Corruption<std::string>> corruptions() {
  const std::string u8 = R"({"dtype":"U8","shape":[1],"data_offsets":)";
  std::string deep = "{\"x\":";
  for (int i = 0; i < 100000; ++i) deep += '[';
  return {
      becomes("Empty", ""),
      becomes("LengthCutOff", "\x02\0\0"),
      becomes("LengthPastEnd", test::le(100, 8) + "{}"),
      becomes("LengthAbsurd", test::le(UINT64_MAX, 8) + "{}"),
      becomes("NoHeader", test::le(0, 8)),
      becomes("NotAnObject", safetensors("[]", "")),
      becomes("NotJson", safetensors("{x}", "")),
      becomes("CutOffJson", safetensors("{\"x\":", "")),
      becomes("TwoValues", safetensors("{}{}", "")),
      becomes("NulAfterHeader", safetensors(std::string("{}\0", 3), "")),
      becomes("BadUtf8", safetensors("{\"\xff\":1}", "")),
      becomes("NumberForTensor", safetensors("{\"x\":1}", "")),
      becomes("ArrayForTensor", safetensors("{\"x\":[]}", "")),
      becomes("Deep", safetensors(deep, "")),
      becomes("UnknownField", safetensors(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"y":1}})", "x")),
      becomes("NoDtype", safetensors(R"({"x":{"shape":[1],"data_offsets":[0,1]}})", "x")),
      becomes("NoShape", safetensors(R"({"x":{"dtype":"U8","data_offsets":[0,1]}})", "x")),
      becomes("NoOffsets", safetensors(R"({"x":{"dtype":"U8","shape":[1]}})", "x")),
      becomes("FieldTwice", safetensors(R"({"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x")),
      becomes("DtypeNoText", one("8", "[1]", "[0,1]")),
      becomes("ShapeNoList", one("\"U8\"", "1", "[0,1]")),
      becomes("ShapeNegative", one("\"U8\"", "[-1]", "[0,1]")),
      becomes("ShapeFloat", one("\"U8\"", "[1.0]", "[0,1]")),
      becomes("ShapeNested", one("\"U8\"", "[[1]]", "[0,1]")),
      becomes("ShapeOverflows", one("\"U8\"", "[4294967296,4294967296]", "[0,1]")),
      becomes("BytesOverflow", one("\"F64\"", "[4611686018427387904]", "[0,1]")),
      becomes("RankTooHigh", one("\"U8\"", ones(65), "[0,1]")),
      becomes("OneOffset", one("\"U8\"", "[1]", "[0]")),
      becomes("ThreeOffsets", one("\"U8\"", "[1]", "[0,1,1]")),
      becomes("OffsetsReversed", one("\"U8\"", "[1]", "[1,0]")),
      becomes("OffsetsNegative", one("\"U8\"", "[1]", "[-1,0]")),
      becomes("OffsetsHuge", one("\"U8\"", "[1]", "[18446744073709551614,18446744073709551615]")),
      becomes("SizeDiffers", one("\"U8\"", "[2]", "[0,1]")),
      becomes("Hole", one("\"U8\"", "[1]", "[1,2]", "xy")),
      becomes("Overlap", safetensors("{\"x\":" + u8 + "[0,1]},\"y\":" + u8 + "[0,1]}}", "x")),
      becomes("DataCutOff", one("\"U8\"", "[1]", "[0,1]", "")),
      becomes("BytesAfterEnd", one("\"U8\"", "[1]", "[0,1]", "xy")),
      becomes("NameTwice", safetensors("{\"x\":" + u8 + "[0,1]},\"x\":" + u8 + "[1,2]}}", "xy")),
      becomes("MetadataTwice", safetensors(R"({"__metadata__":{},"__metadata__":{}})", "")),
      becomes("MetadataKeyTwice", safetensors(R"({"__metadata__":{"a":"1","a":"2"}})", "")),
      becomes("MetadataNoText", safetensors(R"({"__metadata__":{"a":1}})", "")),
      becomes("MetadataNested", safetensors(R"({"__metadata__":{"a":{}}})", "")),
      becomes("MetadataNoObject", safetensors(R"({"__metadata__":"a"})", "")),
      becomes("NameTooLong", safetensors("{\"" + std::string(70000, 'n') + "\":" + u8 + "[0,1]}}", "x")),
      becomes("UnknownDtype", one("\"Q9\"", "[1]", "[0,1]"), ErrorCode::kUnsupported),
      becomes("HalfAByte", one("\"F4\"", "[3]", "[0,1]")),
      becomes("LengthBeyondTheCap", test::le(100000001, 8) + std::string(100, ' ')),
      becomes("LengthWraps", test::le(UINT64_MAX - 7, 8) + "{}"),
      becomes("NothingButBlanks", safetensors(std::string(64, ' '), "")),
      becomes("ByteOrderMark", safetensors("\xef\xbb\xbf{}", "")),
      becomes("Comment", safetensors("{}//", "")),
      becomes("TrailingComma", safetensors("{\"x\":" + u8 + "[0,1]},}", "x")),
      becomes("SingleQuotes", safetensors("{'x':1}", "")),
      becomes("LoneSurrogate", safetensors(R"({"\ud800":)" + u8 + "[0,1]}}", "x")),
      becomes("OverlongUtf8", safetensors("{\"\xc0\xaf\":" + u8 + "[0,1]}}", "x")),
      becomes("ControlCharacterInName", safetensors("{\"a\nb\":" + u8 + "[0,1]}}", "x")),
      becomes("NulInsideHeader", safetensors(std::string("{\0}", 3), "")),
      becomes("NumberOfAMillionDigits", one("\"U8\"", "[" + std::string(1000000, '1') + "]", "[0,1]")),
      becomes("NumberBeyond64Bits", one("\"U8\"", "[18446744073709551616]", "[0,1]")),
      becomes("NumberWithExponent", one("\"U8\"", "[1e0]", "[0,1]")),
      becomes("NumberWithLeadingZero", one("\"U8\"", "[01]", "[0,1]")),
      becomes("NotANumber", one("\"U8\"", "[NaN]", "[0,1]")),
      becomes("OffsetsNull", one("\"U8\"", "[1]", "null")),
      becomes("OffsetsObject", one("\"U8\"", "[1]", "{}")),
      becomes("SizeOverflowsBesideZero", one("\"U8\"", "[9223372036854775807,9223372036854775807,0]", "[0,0]", "")),
      becomes("BitsOverflow", one("\"F6_E2M3\"", "[9223372036854775804]", "[0,1]")),
      becomes("NameTwiceSpelledDifferently",
              safetensors("{\"x\":" + u8 + R"([0,1]},"\u0078":)" + u8 + "[1,2]}}", "xy")),
      becomes("NameTwiceOneOpaque",
              safetensors("{\"x\":" + u8 + R"([0,1]},"x":{"dtype":"F4","shape":[2],"data_offsets":[1,2]}})", "xy")),
      becomes("OpaqueOverlaps",
              safetensors("{\"x\":" + u8 + R"([0,1]},"y":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "x")),
      becomes("HoleBetween", safetensors("{\"x\":" + u8 + "[0,1]},\"y\":" + u8 + "[2,3]}}", "xyz")),
      becomes("UnknownDtypeInLowerCase", one("\"u8\"", "[1]", "[0,1]"), ErrorCode::kUnsupported),
      becomes("HeaderOfBlanksAlone", safetensors(std::string(3000000, ' ') + "{}", ""), std::nullopt),
      becomes("NoTensors", safetensors("{}", ""), std::nullopt),
      becomes("EmptyName", safetensors("{\"\":" + u8 + "[0,1]}}", "x"), std::nullopt),
      becomes("RankOf64", one("\"U8\"", ones(64), "[0,1]"), std::nullopt),
  };
}

void read(const std::string& path) { read_safetensors(io::File::open(path)); }

TEST(SafetensorsCorruptions, EachIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(test::good_safetensors(), corruptions(), test::as_they_are, read, folder);
}

TEST(SafetensorsCorruptions, AnyByteMayBeWrongOrMissing) { test::check_every_place(test::good_safetensors(), read); }

}  // namespace
}  // namespace ckpt::format
