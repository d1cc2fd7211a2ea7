#include <gtest/gtest.h>

#include "core/format/torch_builder.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

using namespace test::pickled;
using test::le;
using test::LegacyFile;

constexpr auto kUnsupported = ErrorCode::kUnsupported;
constexpr int64_t kHuge = INT64_MAX;

LegacyFile good_legacy() {
  LegacyFile file;
  file.object = state_dict(Tensor().stream());
  return file;
}

/// The tensor with a view of its storage: a sixth part of the persistent id.
std::string viewed(const std::string& view, const std::string& sizes = integers({2}),
                   const std::string& strides = integers({1})) {
  const Tensor plain;
  Tensor tensor{.sizes = sizes, .strides = strides};
  tensor.storage = tuple({plain.id, plain.type, plain.key, plain.location, plain.numel, view}) + "Q";
  return state_dict(tensor.stream());
}

std::string system(const std::string& sizes) { return whole("}" + text("type_sizes") + "}(" + sizes + "us"); }

std::vector<test::Corruption<LegacyFile>> legacy_corruptions() {
  return {
      {"MagicWrong", [](LegacyFile& f) { f.magic[5] ^= 1; }},
      {"MagicSmall", [](LegacyFile& f) { f.magic = whole("K\x01"); }},
      {"MagicText", [](LegacyFile& f) { f.magic = whole(text("magic")); }},
      {"MagicAlone",
       [](LegacyFile& f) { f = {.protocol = "", .system = "", .object = "", .keys = "", .storages = ""}; }},
      {"ProtocolMissing", [](LegacyFile& f) { f.protocol.clear(); }},
      {"ProtocolText", [](LegacyFile& f) { f.protocol = whole(text("1001")); }},
      {"ProtocolOther", [](LegacyFile& f) { f.protocol = whole("M\xea\x03"); }, kUnsupported},
      {"SystemEmpty", [](LegacyFile& f) { f.system = whole("}"); }},
      {"SystemAList", [](LegacyFile& f) { f.system = whole("]"); }},
      {"SystemWithoutLong", [](LegacyFile& f) { f.system = system(text("short") + "K\x02" + text("int") + "K\x04"); }},
      {"SystemSizeText",
       [](LegacyFile& f) {
         f.system = system(text("short") + text("2") + text("int") + "K\x04" + text("long") + "K\x08");
       }},
      {"SystemOdd",
       [](LegacyFile& f) {
         f.system = system(text("short") + "K\x03" + text("int") + "K\x04" + text("long") + "K\x08");
       },
       kUnsupported},
      {"SystemTooLong", [](LegacyFile& f) { f.system = whole("}" + text("x") + text(std::string(70000, 'x')) + "s"); }},
      {"ObjectMissing", [](LegacyFile& f) { f.object.clear(); }},
      {"ObjectCutOff", [](LegacyFile& f) { f.object.resize(f.object.size() / 2); }},
      {"ObjectTwice", [](LegacyFile& f) { f.object += f.object; }},
      {"KeysMissing", [](LegacyFile& f) { f.keys.clear(); }},
      {"KeysEmpty", [](LegacyFile& f) { f.keys = whole("]"); }},
      {"KeysATuple", [](LegacyFile& f) { f.keys = whole(tuple({text("0")})); }},
      {"KeysOfIntegers",
       [](LegacyFile& f) {
         f.keys = whole(
             "](K\x01"
             "e");
       }},
      {"KeysOfAnother", [](LegacyFile& f) { f.keys = whole("](" + text("1") + "e"); }},
      {"KeyTwice", [](LegacyFile& f) { f.keys = whole("](" + text("0") + text("0") + "e"), f.storages += f.storages; }},
      {"CountTooHigh", [](LegacyFile& f) { f.storages[0] = 7; }},
      {"CountTooLow", [](LegacyFile& f) { f.storages[0] = 5; }},
      {"CountNegative", [](LegacyFile& f) { f.storages.replace(0, 8, le(UINT64_MAX, 8)); }},
      {"CountCutOff", [](LegacyFile& f) { f.storages.resize(7); }},
      {"StorageCutOff", [](LegacyFile& f) { f.storages.pop_back(); }},
      {"StorageMissing", [](LegacyFile& f) { f.storages.clear(); }},
      {"BytesAfter", [](LegacyFile& f) { f.storages += 'x'; }},
      {"ClassUnknown",
       [](LegacyFile& f) { f.object = state_dict(Tensor{.type = global("torch", "OddStorage")}.stream()); },
       kUnsupported},
      {"ViewShort", [](LegacyFile& f) { f.object = viewed(tuple({text("0")})); }},
      {"ViewAnInteger", [](LegacyFile& f) { f.object = viewed(integer(1)); }},
      {"ViewOfIntegers",
       [](LegacyFile& f) {
         f.object = viewed(integers({0, 1, 2}));
       }},
      {"ViewNegative",
       [](LegacyFile& f) {
         f.object = viewed(tuple({text("1"), integer(-1), integer(2)}));
       }},
      {"ViewPastEnd",
       [](LegacyFile& f) {
         f.object = viewed(tuple({text("1"), integer(5), integer(2)}));
       }},
      {"ViewHuge",
       [](LegacyFile& f) {
         f.object = viewed(tuple({text("1"), integer(kHuge), integer(kHuge)}));
       }},
      {"TensorLeavesItsView",
       [](LegacyFile& f) {
         f.object = viewed(tuple({text("1"), integer(4), integer(2)}), integers({3}));
       }},
      {"AListOfItself", [](LegacyFile& f) { f.object = holds_itself(); }, ErrorCode::kCorrupt,
       "a value that holds itself"},
      {"SharedExponentially", [](LegacyFile& f) { f.object = doubled(60); }, ErrorCode::kCorrupt,
       "more memory than a file of this size may"},
      {"NestedVeryDeep", [](LegacyFile& f) { f.object = nested(100000); }, ErrorCode::kCorrupt,
       "more than 1,000 values inside each other"},
      {"View",
       [](LegacyFile& f) {
         f.object = viewed(tuple({text("1"), integer(4), integer(2)}));
       },
       std::nullopt},
      {"NoView", [](LegacyFile& f) { f.object = viewed("N"); }, std::nullopt},
      {"OtherSystem",
       [](LegacyFile& f) {
         f.system = system(text("short") + "K\x02" + text("int") + "K\x04" + text("long") + "K\x04");
       },
       std::nullopt},
      {"NoStorages", [](LegacyFile& f) { f.object = whole("}"), f.keys = whole("]"), f.storages.clear(); },
       std::nullopt},
  };
}

TEST(LegacyCorruptions, EveryFileIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(
      good_legacy(), legacy_corruptions(), [](const LegacyFile& f) { return f.bytes(); }, test::read_torch_file,
      folder);
}

TEST(LegacyCorruptions, AnyByteMayBeWrongOrMissing) {
  test::check_every_place(good_legacy().bytes(), test::read_torch_file);
}

}  // namespace
}  // namespace ckpt::format
