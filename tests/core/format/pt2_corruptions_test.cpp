#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/format/pt2.h"
#include "core/format/zip_builder.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

using nlohmann::json;
using test::zip_entry;
using test::ZipImage;

/// A package of one model: what its records hold.
struct Package {
  json table = json::parse(R"({"config": {
    "w": {"path_name": "weight_0", "is_param": true, "use_pickle": false, "tensor_meta":
      {"dtype": 7, "sizes": [{"as_int": 2}, {"as_int": 3}], "requires_grad": true, "device": {"type": "cpu", "index": null},
       "strides": [{"as_int": 3}, {"as_int": 1}], "storage_offset": {"as_int": 0}, "layout": 7}},
    "b": {"path_name": "weight_1", "is_param": false, "use_pickle": false, "tensor_meta":
      {"dtype": 5, "sizes": [], "requires_grad": false, "device": {"type": "cpu", "index": null},
       "strides": [], "storage_offset": {"as_int": 0}, "layout": 7}}}})");
  std::string text;  ///< instead of the table
  std::string format = "pt2", version = "0", byteorder = "little";
  std::string weight_0 = std::string(24, 'w'), weight_1 = std::string(8, 'b');
  std::string table_name = "a/data/weights/model_weights_config.json";
  std::function<void(ZipImage&)> change;

  json& w() { return table["config"]["w"]; }
  json& meta() { return w()["tensor_meta"]; }
};

std::string bytes_of(const Package& package) {
  ZipImage image{.entries = {zip_entry("a/data/weights/weight_0", package.weight_0),
                             zip_entry("a/data/weights/weight_1", package.weight_1),
                             zip_entry(package.table_name, package.text.empty() ? package.table.dump() : package.text),
                             zip_entry("a/archive_format", package.format),
                             zip_entry("a/archive_version", package.version),
                             zip_entry("a/byteorder", package.byteorder)}};
  if (package.change) package.change(image);
  return image.bytes();
}

json number(int64_t value) { return {{"as_int", value}}; }
json numbers(const std::vector<int64_t>& values) {
  json list = json::array();
  for (int64_t value : values) list.push_back(number(value));
  return list;
}
json expression(json hint) { return {{"as_expr", {{"expr_str", "s0"}, {"hint", std::move(hint)}}}}; }

/// The table as text, with `from` become `to`.
std::string with(Package package, const std::string& from, const std::string& to) {
  std::string text = package.table.dump();
  text.replace(text.find(from), from.size(), to);
  return text;
}

constexpr auto kUnsupported = ErrorCode::kUnsupported;

std::vector<test::Corruption<Package>> corruptions() {
  return {
      {"TableNoJson", [](Package& p) { p.text = "pickle"; }},
      {"TableEmpty", [](Package& p) { p.text = " "; }},
      {"TableCutOff", [](Package& p) { p.text = p.table.dump(), p.text.resize(p.text.size() / 2); }},
      {"TableTwice", [](Package& p) { p.text = p.table.dump() + p.table.dump(); }},
      {"TableAList", [](Package& p) { p.table = json::array({1}); }},
      {"TableHoldsNul", [](Package& p) { p.text = p.table.dump() + '\0'; }},
      {"NameNotUtf8", [](Package& p) { p.text = with(p, "\"w\"", "\"\xff\""); }},
      {"NameTooLong", [](Package& p) { p.table["config"][std::string(70000, 'n')] = p.w(); }},
      {"NameTwice", [](Package& p) { p.text = with(p, "\"w\"", "\"b\""); }},
      {"NoConfig", [](Package& p) { p.table.erase("config"); }},
      {"ConfigAList", [](Package& p) { p.table["config"] = json::array(); }},
      {"ConfigNull", [](Package& p) { p.table["config"] = nullptr; }},
      {"ConfigTwice", [](Package& p) { p.text = with(p, "{\"config\"", "{\"config\":{},\"config\""); }},
      {"WeightANumber", [](Package& p) { p.w() = 1; }},
      {"WeightEmpty", [](Package& p) { p.w() = json::object(); }},
      {"NoPathName", [](Package& p) { p.w().erase("path_name"); }},
      {"NoUsePickle", [](Package& p) { p.w().erase("use_pickle"); }},
      {"NoMeta", [](Package& p) { p.w().erase("tensor_meta"); }},
      {"MetaNull", [](Package& p) { p.w()["tensor_meta"] = nullptr; }},
      {"MetaAList", [](Package& p) { p.w()["tensor_meta"] = json::array(); }},
      {"FieldTwice", [](Package& p) { p.text = with(p, "\"is_param\"", "\"is_param\":true,\"is_param\""); }},
      {"MetaFieldTwice", [](Package& p) { p.text = with(p, "\"layout\"", "\"layout\":7,\"layout\""); }},
      {"PathNameANumber", [](Package& p) { p.w()["path_name"] = 0; }},
      {"PathNameAbsent", [](Package& p) { p.w()["path_name"] = "weight_9"; }},
      {"PathNameLeavesTheFolder", [](Package& p) { p.w()["path_name"] = "../weights/weight_0"; }},
      {"PathNameInOtherCase", [](Package& p) { p.w()["path_name"] = "Weight_0"; }},
      {"IsParamANumber", [](Package& p) { p.w()["is_param"] = 1; }},
      {"NoDtype", [](Package& p) { p.meta().erase("dtype"); }},
      {"DtypeAText", [](Package& p) { p.meta()["dtype"] = "float32"; }},
      {"DtypeNegative", [](Package& p) { p.meta()["dtype"] = -7; }},
      {"DtypeFractional", [](Package& p) { p.meta()["dtype"] = 7.5; }},
      {"DtypeUnknown", [](Package& p) { p.meta()["dtype"] = 0; }, kUnsupported},
      {"DtypeBetweenTheKnown", [](Package& p) { p.meta()["dtype"] = 14; }, kUnsupported},
      {"DtypeHuge", [](Package& p) { p.meta()["dtype"] = UINT64_MAX; }, kUnsupported},
      {"DtypeWiderThanTheRecord", [](Package& p) { p.meta()["dtype"] = 8; }},
      {"NoSizes", [](Package& p) { p.meta().erase("sizes"); }},
      {"SizesAnObject", [](Package& p) { p.meta()["sizes"] = number(6); }},
      {"SizesOfIntegers",
       [](Package& p) {
         p.meta()["sizes"] = {2, 3};
       }},
      {"SizesOfLists",
       [](Package& p) {
         p.meta()["sizes"] = {{2}, {3}};
       }},
      {"SizeWithoutNumber", [](Package& p) { p.meta()["sizes"][0] = json::object(); }, kUnsupported},
      {"SizeWithoutHint", [](Package& p) { p.meta()["sizes"][0] = expression(nullptr); }, kUnsupported},
      {"SizeWithTwoNumbers", [](Package& p) { p.meta()["sizes"][0].update(expression(number(2))); }},
      {"SizeAText",
       [](Package& p) {
         p.meta()["sizes"][0] = {{"as_int", "2"}};
       }},
      {"SizeABoolean",
       [](Package& p) {
         p.meta()["sizes"][0] = {{"as_int", true}};
       }},
      {"SizeNegative",
       [](Package& p) {
         p.meta()["sizes"] = numbers({-2, 3});
       }},
      {"SizeBeyond63Bits",
       [](Package& p) {
         p.meta()["sizes"][0] = {{"as_int", UINT64_MAX}};
       }},
      {"SizesOverflow",
       [](Package& p) {
         p.meta()["sizes"] = numbers({INT64_MAX, INT64_MAX});
       }},
      {"SizesLeaveTheRecord",
       [](Package& p) {
         p.meta()["sizes"] = numbers({3, 3});
       }},
      {"ExpressionLeavesTheRecord", [](Package& p) { p.meta()["sizes"][0] = expression(number(3)); }},
      {"RankTooHigh",
       [](Package& p) { p.meta()["sizes"] = p.meta()["strides"] = numbers(std::vector<int64_t>(65, 1)); }},
      {"FewerStrides", [](Package& p) { p.meta()["strides"] = numbers({1}); }},
      {"StrideNegative",
       [](Package& p) {
         p.meta()["strides"] = numbers({3, -1});
       }},
      {"StridesOverflow",
       [](Package& p) {
         p.meta()["strides"] = numbers({INT64_MAX, INT64_MAX});
       }},
      {"StridesLeaveTheRecord",
       [](Package& p) {
         p.meta()["strides"] = numbers({4, 1});
       }},
      {"ExpandedBeyondTheLimit",
       [](Package& p) { p.meta()["sizes"] = numbers({int64_t{1} << 40}), p.meta()["strides"] = numbers({0}); }},
      {"OffsetNegative", [](Package& p) { p.meta()["storage_offset"] = number(-1); }},
      {"OffsetLeavesTheRecord", [](Package& p) { p.meta()["storage_offset"] = number(1); }},
      {"OffsetHuge", [](Package& p) { p.meta()["storage_offset"] = number(INT64_MAX); }},
      {"OffsetAnInteger", [](Package& p) { p.meta()["storage_offset"] = 0; }},
      {"RecordCutOff", [](Package& p) { p.weight_0.resize(23); }},
      {"RecordEmpty", [](Package& p) { p.weight_0.clear(); }},
      {"Sparse", [](Package& p) { p.meta()["layout"] = 1; }, kUnsupported},
      {"Pickled", [](Package& p) { p.w()["use_pickle"] = true; }, kUnsupported},
      {"PickledWithoutMeta", [](Package& p) { p.w()["use_pickle"] = true, p.w()["tensor_meta"] = nullptr; },
       kUnsupported},
      {"RecordDeflated",
       [](Package& p) {
         p.change = [](ZipImage& z) {
           z.entries[0] = test::deflated_entry("a/data/weights/weight_0", std::string(24, 'w'));
         };
       },
       kUnsupported},
      {"TableDeflated",
       [](Package& p) {
         const std::string table = p.table.dump();
         p.change = [table](ZipImage& z) {
           z.entries[2] = test::deflated_entry("a/data/weights/model_weights_config.json", table);
         };
       },
       kUnsupported},
      {"NoTable", [](Package& p) { p.table_name = "a/data/weights/model.json"; }, kUnsupported},
      {"OtherFormat", [](Package& p) { p.format = "pt3"; }, kUnsupported},
      {"NewerVersion", [](Package& p) { p.version = "1"; }, kUnsupported},
      {"FormatTooLong", [](Package& p) { p.format = std::string(65, 'p'); }},
      {"ByteOrderUnknown", [](Package& p) { p.byteorder = "middle"; }},
      {"TableDamaged", [](Package& p) { p.change = [](ZipImage& z) { z.entries[2].data[30] ^= 1; }; }},
      {"ModelsThatNameTheSame",
       [](Package& p) {
         p.table["config"]["b.w"] = p.w();
         json other = {{"config", {{"w", p.w()}}}};
         p.change = [other](ZipImage& z) {
           z.entries[2].name = z.entries[2].local_name = "a/data/weights/m_weights_config.json";
           z.entries.push_back(zip_entry("a/data/weights/m.b_weights_config.json", other.dump()));
         };
       }},
      {"DeepUnknownField",
       [](Package& p) {
         p.text = with(p, "{\"config\"", "{\"x\":" + std::string(2000, '[') + std::string(2000, ']') + ",\"config\"");
       }},
      {"UnknownFields",
       [](Package& p) {
         p.table["x"] = p.w(), p.w()["x"] = p.w(), p.meta()["x"] = {1, {2}};
       },
       std::nullopt},
      {"TwoDtypesOfOneRecord", [](Package& p) { p.table["config"]["v"] = p.w(), p.meta()["dtype"] = 4; }, std::nullopt},
      {"RecordLongerThanNeeded", [](Package& p) { p.weight_0 += "x"; }, std::nullopt},
      {"NoVersion", [](Package& p) { p.change = [](ZipImage& z) { z.entries.erase(z.entries.begin() + 4); }; },
       std::nullopt},
      {"NoWeights", [](Package& p) { p.table["config"] = json::object(); }, std::nullopt},
      {"ScalarOfAnEmptyShape",
       [](Package& p) {
         p.meta()["sizes"] = numbers({0, INT64_MAX});
       },
       std::nullopt},
  };
}

void read(const std::string& path) {
  const io::File file = io::File::open(path);
  read_pt2(ZipReader(file));
}

TEST(Pt2Corruptions, EachIsRefusedForWhatItIs) {
  const test::TempDir folder;
  test::check_corruptions(Package(), corruptions(), bytes_of, read, folder);
}

TEST(Pt2Corruptions, AnyByteMayBeWrongOrMissing) { test::check_every_place(bytes_of(Package()), read); }

// The CRC of the zip would stop most of these.
TEST(Pt2Corruptions, AnyByteOfTheTableMayBeWrongOrMissing) {
  Package small;
  small.table["config"].erase("b");
  const std::string table = small.table.dump();
  const test::OpenFile read_as_table = [](const std::string& path) {
    Package package;
    package.text = test::read_all(path) + ' ';
    std::filesystem::remove(path + ".pt2");
    test::write_all(path + ".pt2", bytes_of(package));
    read(path + ".pt2");
  };
  test::check_every_place(table, read_as_table);
}

}  // namespace
}  // namespace ckpt::format
