// What torch.save writes, spoiled in one place: its tensors (in either format), its pickle, its records.
#include <gtest/gtest.h>

#include "core/format/torch_builder.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

using namespace test::pickled;
using test::LegacyFile;
using test::zip_entry;
using test::ZipImage;

constexpr auto kUnsupported = ErrorCode::kUnsupported;
constexpr int64_t kHuge = INT64_MAX;

std::string zip_of(const Tensor& tensor) { return archive(state_dict(tensor.stream())).bytes(); }

std::string legacy_of(const Tensor& tensor) {
  LegacyFile file;
  file.object = state_dict(tensor.stream());
  return file.bytes();
}

std::vector<test::Corruption<Tensor>> tensor_corruptions() {
  return {
      {"IdIsNotStorage", [](Tensor& t) { t.id = text("modules"); }},
      {"IdIsInteger", [](Tensor& t) { t.id = integer(1); }},
      {"ClassIsText", [](Tensor& t) { t.type = text("FloatStorage"); }},
      {"KeyIsInteger", [](Tensor& t) { t.key = integer(0); }},
      {"KeyIsAbsent", [](Tensor& t) { t.key = text("1"); }},
      {"KeyLeavesTheFolder", [](Tensor& t) { t.key = text("../data.pkl"); }},
      {"KeyTooLong", [](Tensor& t) { t.key = text(std::string(70000, '0')); }, ErrorCode::kCorrupt, "more than 1 KiB"},
      {"LocationIsNone", [](Tensor& t) { t.location = "N"; }},
      {"NumelIsNegative", [](Tensor& t) { t.numel = integer(-6); }},
      {"NumelIsFloat", [](Tensor& t) { t.numel = "G" + std::string(8, '\0'); }},
      {"NumelBeyond64Bits", [](Tensor& t) { t.numel = "\x8a\x0a" + std::string(10, '\x7f'); }},
      {"NumelTooHigh", [](Tensor& t) { t.numel = integer(7); }},
      {"NumelTooLow", [](Tensor& t) { t.numel = integer(5); }},
      {"NumelHuge", [](Tensor& t) { t.numel = integer(kHuge); }},
      {"OffsetIsNegative", [](Tensor& t) { t.offset = integer(-1); }},
      {"OffsetPastEnd", [](Tensor& t) { t.offset = integer(7); }},
      {"OffsetPushesLastOut", [](Tensor& t) { t.offset = integer(1); }},
      {"OffsetHuge", [](Tensor& t) { t.offset = integer(kHuge); }},
      {"OffsetIsNone", [](Tensor& t) { t.offset = "N"; }},
      {"SizeIsNegative",
       [](Tensor& t) {
         t.sizes = integers({-2, 3});
       }},
      {"SizesAreTexts",
       [](Tensor& t) {
         t.sizes = tuple({text("2"), text("3")});
       }},
      {"SizesAreADict", [](Tensor& t) { t.sizes = "}"; }},
      {"SizesAreFewer", [](Tensor& t) { t.sizes = ")"; }},
      {"SizesTooLarge",
       [](Tensor& t) {
         t.sizes = integers({3, 3});
       }},
      {"SizesOverflow",
       [](Tensor& t) {
         t.sizes = integers({kHuge, kHuge});
       }},
      {"SizesOverflowWithZero",
       [](Tensor& t) {
         t.sizes = integers({kHuge, kHuge, 0}), t.strides = integers({1, 1, 1});
       }},
      {"BytesOverflow", [](Tensor& t) { t.sizes = integers({kHuge / 2}), t.strides = integers({0}); }},
      {"StrideIsNegative",
       [](Tensor& t) {
         t.strides = integers({3, -1});
       }},
      {"StrideLeavesStorage",
       [](Tensor& t) {
         t.strides = integers({4, 1});
       }},
      {"StridesOverflow",
       [](Tensor& t) {
         t.strides = integers({kHuge, kHuge});
       }},
      {"FewerStrides", [](Tensor& t) { t.strides = integers({1}); }},
      {"MoreStrides",
       [](Tensor& t) {
         t.strides = integers({3, 1, 1});
       }},
      {"RankOf65", [](Tensor& t) { t.sizes = t.strides = integers(std::vector<int64_t>(65, 1)); }},
      {"RankInTheThousands", [](Tensor& t) { t.sizes = t.strides = integers(std::vector<int64_t>(5000, 1)); }},
      {"ExpandedBeyondTheLimit", [](Tensor& t) { t.sizes = integers({int64_t{1} << 40}), t.strides = integers({0}); },
       ErrorCode::kCorrupt, "bytes made of a storage of 24"},
      {"GradIsInteger", [](Tensor& t) { t.requires_grad = integer(1); }},
      {"StorageIsNoId", [](Tensor& t) { t.storage = "N"; }},
      {"StorageIsTheTensorsFunction", [](Tensor& t) { t.storage = t.rebuild; }},
      {"StorageIdIsText", [](Tensor& t) { t.storage = text("storage") + "Q"; }},
      {"StorageIdIsShort", [](Tensor& t) { t.storage = tuple({text("storage")}) + "Q"; }},
      {"TooFewArguments", [](Tensor& t) { t.hooks.clear(), t.requires_grad.clear(); }},
      {"TooManyArguments", [](Tensor& t) { t.more = "}N"; }},
      {"MetadataIsText", [](Tensor& t) { t.more = text("conj"); }},
      {"MetadataHoldsNoFlags", [](Tensor& t) { t.more = "}" + text("conj") + "Ns"; }},
      {"UnknownStorageClass", [](Tensor& t) { t.type = global("torch", "ComplexStorage"); }, kUnsupported},
      {"ForeignStorageClass", [](Tensor& t) { t.type = global("builtins", "eval"); }, kUnsupported},
      {"Conjugated", [](Tensor& t) { t.more = "}" + text("conj") + "\x88s"; }, kUnsupported},
      {"SizesAreAList", [](Tensor& t) { t.sizes = "]" + ("(" + integer(2) + integer(3)) + "e"; }, std::nullopt},
      {"MadeByAForeignGlobal", [](Tensor& t) { t.rebuild = global("os", "system"); }, std::nullopt},
      {"MadeByText", [](Tensor& t) { t.rebuild = text("torch._utils._rebuild_tensor_v2"); }, std::nullopt},
      {"HooksOfAForeignGlobal", [](Tensor& t) { t.hooks = global("os", "system") + ")R"; }, std::nullopt},
      {"EmptyAtTheEnd",
       [](Tensor& t) {
         t.offset = integer(6), t.sizes = integers({0, 5});
       },
       std::nullopt},
      {"Expanded",
       [](Tensor& t) {
         t.sizes = integers({2, 1000}), t.strides = integers({3, 0});
       },
       std::nullopt},
      {"Overlapping",
       [](Tensor& t) {
         t.sizes = integers({4, 3}), t.strides = integers({1, 1});
       },
       std::nullopt},
      {"RankOf64", [](Tensor& t) { t.sizes = t.strides = integers(std::vector<int64_t>(64, 1)); }, std::nullopt},
  };
}

TEST(TorchCorruptions, EveryTensorOfAZipIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(Tensor(), tensor_corruptions(), zip_of, test::read_torch_file, folder);
}

TEST(TorchCorruptions, EveryTensorOfALegacyFileIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(Tensor(), tensor_corruptions(), legacy_of, test::read_torch_file, folder);
}

/// A torch.save zip: its pickle and its other records.
struct Saved {
  std::string pickle = state_dict(Tensor().stream());
  std::vector<test::ZipEntry> more = {};
  std::string byteorder = "little";
  std::string storage = std::string(24, '\x01');
  std::string pickle_name = "a/data.pkl";
};

std::string bytes_of(const Saved& saved) {
  ZipImage image{.entries = {zip_entry("a/data/0", saved.storage), zip_entry(saved.pickle_name, saved.pickle),
                             zip_entry("a/byteorder", saved.byteorder)}};
  image.entries.insert(image.entries.end(), saved.more.begin(), saved.more.end());
  return image.bytes();
}

std::vector<test::Corruption<Saved>> file_corruptions() {
  return {
      {"NoPickle", [](Saved& s) { s.pickle_name = "a/data.pickle"; }, kUnsupported},
      {"PickleInOtherCase", [](Saved& s) { s.pickle_name = "a/Data.pkl"; }, kUnsupported},
      {"PickleEmpty", [](Saved& s) { s.pickle.clear(); }},
      {"PickleCutOff", [](Saved& s) { s.pickle.pop_back(); }},
      {"PickleTwice", [](Saved& s) { s.pickle += s.pickle; }},
      {"PickleIsText", [](Saved& s) { s.pickle = "hello"; }},
      {"ByteOrderUnknown", [](Saved& s) { s.byteorder = "middle"; }},
      {"ByteOrderEmpty", [](Saved& s) { s.byteorder.clear(); }},
      {"ByteOrderLong", [](Saved& s) { s.byteorder = std::string(65, 'l'); }},
      {"StorageMissing", [](Saved& s) { s.pickle = state_dict(Tensor{.key = text("9")}.stream()); }},
      {"StorageShorter", [](Saved& s) { s.storage.resize(23); }},
      {"StorageLonger", [](Saved& s) { s.storage.resize(28); }},
      {"StorageEmpty", [](Saved& s) { s.storage.clear(); }},
      {"StorageDeflated",
       [](Saved& s) {
         s.more = {test::deflated_entry("a/data/1", std::string(24, 'x'))};
         s.pickle = state_dict(Tensor{.key = text("1")}.stream());
       },
       kUnsupported},
      {"TwoDtypesOfOneStorage",
       [](Saved& s) {
         const Tensor other{.type = global("torch", "IntStorage")};
         s.pickle = whole("}(" + text("x") + Tensor().stream() + text("y") + other.stream() + "u");
       }},
      {"TwoSizesOfOneStorage",
       [](Saved& s) {
         const Tensor other{.numel = integer(5), .sizes = integers({5}), .strides = integers({1})};
         s.pickle = whole("}(" + text("x") + Tensor().stream() + text("y") + other.stream() + "u");
       }},
      {"AListOfItself", [](Saved& s) { s.pickle = holds_itself(); }, ErrorCode::kCorrupt, "a value that holds itself"},
      {"ADictOfItself", [](Saved& s) { s.pickle = whole("}q\x01" + text("x") + "h\x01s"); }, ErrorCode::kCorrupt,
       "a value that holds itself"},
      {"AnOrderedDictOfItself",
       [](Saved& s) { s.pickle = whole(global("collections", "OrderedDict") + ")Rq\x01" + text("x") + "h\x01s"); },
       ErrorCode::kCorrupt, "a value that holds itself"},
      {"AModuleOfItself",
       [](Saved& s) { s.pickle = whole(global("__torch__", "M") + ")\x81q\x01}" + text("x") + "h\x01sb"); },
       ErrorCode::kCorrupt, "a value that holds itself"},
      {"NestedBeyondTheCap", [](Saved& s) { s.pickle = nested(1001); }, ErrorCode::kCorrupt,
       "more than 1,000 values inside each other"},
      {"NestedVeryDeep", [](Saved& s) { s.pickle = nested(100000); }, ErrorCode::kCorrupt,
       "more than 1,000 values inside each other"},
      {"SharedExponentially", [](Saved& s) { s.pickle = doubled(60); }, ErrorCode::kCorrupt,
       "more memory than a file of this size may"},
      {"SharedBeyondTheLimit", [](Saved& s) { s.pickle = doubled(24); }, ErrorCode::kCorrupt,
       "more memory than a file of this size may"},
      {"NameTooLong",
       [](Saved& s) { s.pickle = whole("}" + text(std::string(70000, 'n')) + Tensor().stream() + "s"); }},
      {"NameNotUtf8", [](Saved& s) { s.pickle = whole("}" + text("\xff") + Tensor().stream() + "s"); }},
      {"GlobalNotUtf8", [](Saved& s) { s.pickle = whole(global("os", "\xff")); }},
      {"ParameterOfNothing",
       [](Saved& s) {
         const std::string parameter = global("torch._utils", "_rebuild_parameter") + ")R";
         s.pickle = state_dict(parameter);
       }},
      {"ParametersInsideEachOther",
       [](Saved& s) {
         std::string stream = Tensor().stream();
         for (int i = 0; i < 20; ++i) {
           stream = global("torch._utils", "_rebuild_parameter") + tuple({stream, "\x88", "N"}) + "R";
         }
         s.pickle = state_dict(stream);
       },
       std::nullopt},
      {"SparseWithoutParts",
       [](Saved& s) { s.pickle = state_dict(global("torch._utils", "_rebuild_sparse_tensor") + ")R"); }},
      {"SparseOfIntegers",
       [](Saved& s) {
         const std::string layout =
             global("torch.serialization", "_get_layout") + tuple({text("torch.sparse_coo")}) + "R";
         s.pickle = state_dict(global("torch._utils", "_rebuild_sparse_tensor") +
                               tuple({layout, tuple({integer(1), integer(2), integers({3})})}) + "R");
       }},
      {"DtypeUnknownOfV3",
       [](Saved& s) {
         const Tensor tensor{.type = global("torch.storage", "UntypedStorage"),
                             .numel = integer(24),
                             .rebuild = global("torch._utils", "_rebuild_tensor_v3"),
                             .more = global("torch", "int7")};
         s.pickle = state_dict(tensor.stream());
       },
       kUnsupported},
      {"DtypeOfV3IsText",
       [](Saved& s) {
         const Tensor tensor{.type = global("torch.storage", "UntypedStorage"),
                             .numel = integer(24),
                             .rebuild = global("torch._utils", "_rebuild_tensor_v3"),
                             .more = text("float32")};
         s.pickle = state_dict(tensor.stream());
       },
       kUnsupported},
      {"DtypeOfV3LeavesStorage",
       [](Saved& s) {
         const Tensor tensor{.type = global("torch.storage", "UntypedStorage"),
                             .numel = integer(24),
                             .rebuild = global("torch._utils", "_rebuild_tensor_v3"),
                             .more = global("torch", "float64")};
         s.pickle = state_dict(tensor.stream());
       }},
      {"SameKeyTwice",
       [](Saved& s) { s.pickle = whole("}(" + text("x") + Tensor().stream() + text("x") + Tensor().stream() + "u"); },
       std::nullopt},
      {"ForeignObjectBeside",
       [](Saved& s) {
         s.pickle = whole("}(" + text("x") + Tensor().stream() + text("y") + global("os", "system") +
                          tuple({text("rm -rf /")}) + "Ru");
       },
       std::nullopt},
      {"BigEndian", [](Saved& s) { s.byteorder = "big"; }, std::nullopt},
      {"NestedToTheCap", [](Saved& s) { s.pickle = nested(999); }, std::nullopt},
      {"ABareNumber", [](Saved& s) { s.pickle = whole(integer(3)); }, std::nullopt},
  };
}

TEST(TorchCorruptions, EveryZipIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(Saved(), file_corruptions(), bytes_of, test::read_torch_file, folder);
}

TEST(TorchCorruptions, AnyByteOfAZipMayBeWrongOrMissing) {
  test::check_every_place(bytes_of(Saved()), test::read_torch_file);
}

// The CRC of the zip would stop most of these, so the pickle is changed before the zip is made.
TEST(TorchCorruptions, AnyByteOfThePickleInAZipMayBeWrongOrMissing) {
  const test::OpenFile read_in_zip = [](const std::string& path) {
    Saved saved;
    saved.pickle = test::read_all(path);
    std::filesystem::remove(path + ".pt");
    test::write_all(path + ".pt", bytes_of(saved));
    test::read_torch_file(path + ".pt");
  };
  test::check_every_place(Saved().pickle, read_in_zip);
}

}  // namespace
}  // namespace ckpt::format
