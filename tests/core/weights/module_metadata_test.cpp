// The modules that `_metadata` names: in torch files, and as levels of archives.
#include "core/weights/module_metadata.h"

#include <gtest/gtest.h>

#include "core/format/archive.h"
#include "core/format/pickle_builder.h"
#include "core/format/torch_writer.h"
#include "core/weights/convert.h"
#include "core/weights/training_files.h"
#include "core/weights/weights_testing.h"

namespace ckpt::weights {
namespace {

using format::ArchiveFile;
using format::PickleValue;
using nlohmann::ordered_json;
using Names = std::vector<std::string>;

const std::string kStateDict = CKPT_TEST_DATA "/torch/state_dict.pt";  // conv, norm, flat (nothing in it), fc

ordered_json metadata_of(const Names& paths) {
  ordered_json metadata = ordered_json::object();
  auto& members = metadata.get_ref<ordered_json::object_t&>();
  for (const std::string& path : paths) members.emplace_back(path, module_version(false));
  return metadata;
}

std::string deep_path(const std::string& first, size_t levels) {
  std::string path = first;
  for (size_t i = 1; i < levels; ++i) path += ".x";
  return path;
}

class ModuleMetadataTest : public testing::Test {
 protected:
  /// A state_dict of one-element tensors, with `_metadata` of these paths.
  std::string write(const Names& tensors, const Names& paths) {
    std::vector<format::TensorToWrite> list;
    for (const std::string& name : tensors) list.push_back(test::to_write(name, DType::kUInt8, {1}, byte_));
    PickleValue::Dict modules{.items = {}, .ordered = true};
    for (const std::string& path : paths) {
      PickleValue::Dict version;
      version.items.emplace_back(PickleValue{std::string("version")}, PickleValue{int64_t{1}});
      modules.items.emplace_back(PickleValue{path}, PickleValue{std::move(version)});
    }
    const PickleValue value = format::state_dict_value(list, {std::move(modules)});
    io::replace_file(dir_ / "in.pt", [&](io::BlockWriter& writer) { format::write_torch(writer, value, list); });
    return dir_ / "in.pt";
  }
  std::string converted(const std::string& from, Format to, const ConvertOptions& more = {}) {
    ConvertOptions options = more;
    options.to = to;
    convert(Weights::open(from), dir_ / "out", options);
    return dir_ / "out";
  }

  const test::TempDir dir_;
  const std::string byte_ = "\x07";
};

TEST_F(ModuleMetadataTest, ModulesWithoutTensorsAreLevelsOfAnArchive) {
  const ArchiveFile archive = ArchiveFile::open(converted(kStateDict, Format::kArchive));
  ASSERT_NE(archive.root().nested("flat"), nullptr);
  EXPECT_TRUE(archive.root().nested("flat")->members.empty());
  EXPECT_EQ(archive.root().members.size(), 4u);
  const ArchiveFile renamed =
      ArchiveFile::open(converted(kStateDict, Format::kArchive, {.rename = {{"^flat\\.", "drop.out."}}}));
  ASSERT_NE(renamed.root().nested("drop"), nullptr);
  EXPECT_NE(renamed.root().nested("drop")->nested("out"), nullptr);
  EXPECT_EQ(renamed.root().nested("flat"), nullptr);
}

TEST_F(ModuleMetadataTest, ModulesWithoutTensorsAreLevelsOfACheckpoint) {
  const Converted report = convert_to_run(kStateDict, dir_ / "run");
  const ArchiveFile state = ArchiveFile::open(report.outputs.at(0) + "/state.pt");
  EXPECT_NE(state.root().nested("model")->nested("flat"), nullptr);
}

TEST_F(ModuleMetadataTest, LevelsOfAnArchiveAreTheModulesOfATorchFile) {
  const std::string archive = dir_ / "a.pt", again = dir_ / "b.pt", torch = dir_ / "c.pt";
  convert(Weights::open(kStateDict), archive, {.to = Format::kArchive});
  convert(Weights::open(archive), again, {.to = Format::kArchive});
  EXPECT_EQ(test::read_all(archive), test::read_all(again));
  convert(Weights::open(again), torch, {.to = Format::kTorch});
  const ordered_json told = Weights::open(torch).module_metadata(),
                     expected = Weights::open(kStateDict).module_metadata();
  EXPECT_EQ(told.size(), expected.size());
  for (const auto& [path, value] : expected.items()) EXPECT_EQ(told.at(path), value) << path;
  EXPECT_EQ(told.at("norm").at("version"), 2);
}

TEST_F(ModuleMetadataTest, OfTorchScriptAndPickledModulesNamesThemToo) {
  for (const char* name : {"traced.pt", "module.pt"}) {
    const Weights weights = Weights::open(CKPT_TEST_DATA "/torch/" + std::string(name));
    ASSERT_TRUE(weights.module_metadata().is_object()) << name;
    EXPECT_TRUE(weights.module_metadata().contains("")) << name;
    for (const Tensor& tensor : weights.tensors()) {
      const size_t dot = tensor.name.rfind('.');
      const std::string module = dot == std::string::npos ? "" : tensor.name.substr(0, dot);
      EXPECT_TRUE(weights.module_metadata().contains(module)) << name << ": " << tensor.name;
    }
  }
  EXPECT_TRUE(Weights::open(CKPT_TEST_DATA "/torch/shapes.pt").module_metadata().is_null());
}

TEST_F(ModuleMetadataTest, WhatCannotBeALevelIsLeftOut) {
  const Names tensors = {"w", "a.b", "a.b.c.d", "class"};
  const Names odd = {"",
                     "w",
                     "w.x",
                     "a.b",
                     "a",
                     "a.b.c",
                     "class",
                     "def",
                     ".",
                     "x..y",
                     "end.",
                     "\"\\\n\x01'%",
                     "a.new",
                     "a.b.c.new",
                     deep_path("deep", 501),
                     deep_path("fits", 500),
                     std::string(16385, 'l'),
                     std::string(16384, 'f')};
  const std::string in = write(tensors, odd);
  const Weights weights = Weights::open(converted(in, Format::kArchive));
  EXPECT_EQ(test::names_of(weights).size(), tensors.size());
  for (const std::string& name : tensors) EXPECT_EQ(test::read(weights, name), byte_) << name;
  const Names levels = {"def",
                        ".",
                        "x..y",
                        "end.",
                        "\"\\\n\x01'%",
                        "a.new",
                        "a.b.c.new",
                        deep_path("fits", 500),
                        std::string(16384, 'f')};
  std::vector<std::string_view> names(tensors.begin(), tensors.end());
  EXPECT_EQ(empty_levels(metadata_of(odd), names), levels);
  for (const std::string& level : levels) EXPECT_TRUE(weights.module_metadata().contains(level)) << level;
  EXPECT_FALSE(weights.module_metadata().contains("w"));
  const Converted run = convert_to_run(in, dir_ / "run");
  EXPECT_EQ(test::names_of(Weights::open(run.outputs.at(0))).size(), tensors.size());
}

TEST_F(ModuleMetadataTest, ASmallFileCannotAskForLevelsWithoutEnd) {
  Names wide, deep;
  for (int i = 0; i < 60'000; ++i) wide.push_back("m" + std::to_string(i));
  EXPECT_EQ(empty_levels(metadata_of(wide), {}).size(), 50'000u);
  for (int i = 0; i < 200; ++i) deep.push_back(deep_path("m" + std::to_string(i), 500));
  EXPECT_EQ(empty_levels(metadata_of(deep), {}).size(), 100u);
  EXPECT_EQ(empty_levels(metadata_of(wide), {"m7.w"}).size(), 50'000u) << "one of them is there anyway";
  const ArchiveFile archive = ArchiveFile::open(converted(write({"w"}, deep), Format::kArchive));
  EXPECT_EQ(archive.root().members.size(), 101u);
  const Weights weights = Weights::open(dir_ / "out");
  EXPECT_TRUE(weights.module_metadata().is_null()) << "all its paths take more than a file of this size may";
  EXPECT_EQ(test::names_of(weights), Names{"w"});
}

TEST_F(ModuleMetadataTest, OfADamagedFormIsReadAsPythonWouldOrLeftOut) {
  using namespace test::pickled;
  const auto version = [](int64_t number) { return "}(" + text("version") + integer(number) + "u"; };
  const std::string note = "}(" + text("version") + integer(4) + text("note") + text("\xff") + "u";
  const std::string modules = "}(" + text("a") + version(2) + text("b") + note + text("a") + version(3) +
                              text("bad\xff") + version(1) + text("none") + "N" + integer(7) + version(1) + "u";
  const std::string dict = global("collections", "OrderedDict") + ")R(" + text("x") + test::pickled::Tensor().stream() +
                           "u}(" + text("_metadata") + modules + "ub";
  test::write_all(dir_ / "odd.pt", archive(whole(dict)).bytes());
  const Weights weights = Weights::open(dir_ / "odd.pt");
  EXPECT_EQ(weights.module_metadata().dump(), R"({"a":{"version":3},"b":{"version":4,"note":null},"7":{"version":1}})");
  const Weights again = Weights::open(converted(dir_ / "odd.pt", Format::kTorch));
  EXPECT_EQ(again.module_metadata(), weights.module_metadata());
}

TEST_F(ModuleMetadataTest, TakesLinearTimeUnderAWrapper) {
  Names paths;
  for (int i = 0; i < 100'000; ++i) paths.push_back("module.m" + std::to_string(i));
  ordered_json metadata = metadata_of(paths);
  metadata["module"] = module_version(true);
  metadata["beside"] = module_version(true);
  strip_module_paths(metadata, "module.");
  EXPECT_EQ(metadata.size(), 100'001u);
  EXPECT_EQ(metadata.front().at("version"), 1);
  EXPECT_EQ(metadata.at("").at("version"), 2);
}

}  // namespace
}  // namespace ckpt::weights
