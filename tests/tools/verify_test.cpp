#include <gtest/gtest.h>

#include <cmath>

#include "core/format/archive.h"
#include "core/io/lock.h"
#include "core/run/names.h"
#include "program.h"
#include "weights_files.h"

namespace ckpt::test {
namespace {

struct Place {
  uint64_t offset = 0;
  std::string record;
};

/// Where a tensor's bytes begin in an archive.
Place place_of(const std::string& path, const std::string& name) {
  const format::ArchiveFile file = format::ArchiveFile::open(path);
  for (const auto& named : format::tensors_of(file.root(), false)) {
    if (named.name == name) return {named.stored.file_offset, named.stored.record};
  }
  ADD_FAILURE() << name << " not in " << path;
  return {};
}

TEST(Verify, SaysOkWhereAllIsWhole) {
  TempDir dir;
  const std::string run = dir / "run";
  const std::string checkpoint = add_checkpoint(run, {.iteration = 1});
  add_checkpoint(run, {.iteration = 2});
  const std::vector<std::string> paths{run,
                                       checkpoint,
                                       run + "/latest",
                                       checkpoint + "/state.pt",
                                       checkpoint + "/MANIFEST.json",
                                       archive("model-2.13.0.pt")};
  for (const std::string& path : paths) {
    const Outcome text = ckpt({"verify", path});
    EXPECT_EQ(text.code, 0) << path << text.err;
    EXPECT_TRUE(text.out.starts_with("ok ")) << text.out;
    EXPECT_EQ(ckpt({"verify", "--json", path}).json(), (nlohmann::json{{"schema", 1},
                                                                       {"ok", true},
                                                                       {"problems", nlohmann::json::array()},
                                                                       {"leftovers", nlohmann::json::array()}}))
        << path;
  }
  std::vector<std::string> all{"verify"};
  all.insert(all.end(), paths.begin(), paths.end());
  EXPECT_EQ(lines_of(ckpt(all).out).size(), paths.size());
}

TEST(Verify, NamesFileRecordTensorAndOffset) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 1});
  const std::string checkpoint = add_checkpoint(run, {.iteration = 2});
  const Place place = place_of(checkpoint + "/state.pt", "float64");
  flip_byte(checkpoint + "/state.pt", place.offset + 9);

  for (const std::string& path : {run, checkpoint}) {
    const Outcome outcome = ckpt({"verify", "--json", path});
    EXPECT_EQ(outcome.code, 4);
    EXPECT_EQ(outcome.error().at("code"), "corrupt");
    const auto json = outcome.json();
    EXPECT_EQ(json.at("ok"), false);
    ASSERT_EQ(json.at("problems").size(), 1u) << outcome.out;
    const auto problem = json.at("problems").at(0);
    EXPECT_EQ(problem.size(), 6u);
    EXPECT_EQ(problem.at("path"), checkpoint);
    EXPECT_EQ(problem.at("file"), "state.pt");
    EXPECT_EQ(problem.at("record"), place.record);
    EXPECT_EQ(problem.at("tensor"), "float64");
    EXPECT_EQ(problem.at("offset"), place.offset);
    EXPECT_FALSE(problem.at("reason").get<std::string>().empty());
    const Outcome text = ckpt({"verify", path});
    EXPECT_EQ(text.code, 4);
    EXPECT_EQ(lines_of(text.err).size(), 1u) << text.err;
    for (const std::string& part : {checkpoint, std::string("state.pt"), place.record, std::string("\"float64\""),
                                    std::to_string(place.offset)}) {
      EXPECT_NE(text.out.find(part), std::string::npos) << part << "\n" << text.out;
    }
  }
  // The file by itself: by its CRCs.
  const auto problem = ckpt({"verify", "--json", checkpoint + "/state.pt"}).json().at("problems").at(0);
  EXPECT_EQ(problem.at("path"), checkpoint + "/state.pt");
  EXPECT_TRUE(problem.at("file").is_null());
  EXPECT_EQ(problem.at("tensor"), "float64");
  EXPECT_EQ(problem.at("offset"), place.offset);
}

TEST(Verify, FindsEveryKindOfDamage) {
  TempDir dir;
  struct Case {
    const char* name;
    void (*damage)(const std::string& checkpoint);
  };
  const std::vector<Case> cases{
      {"first byte", [](const std::string& c) { flip_byte(c + "/state.pt", 0); }},
      {"last byte",
       [](const std::string& c) { flip_byte(c + "/state.pt", std::filesystem::file_size(c + "/state.pt") - 1); }},
      {"cut off", [](const std::string& c) { std::filesystem::resize_file(c + "/state.pt", 1000); }},
      {"emptied", [](const std::string& c) { std::filesystem::resize_file(c + "/state.pt", 0); }},
      {"grown", [](const std::string& c) { std::filesystem::resize_file(c + "/state.pt", 100000); }},
      {"removed", [](const std::string& c) { std::filesystem::remove(c + "/state.pt"); }},
      {"manifest", [](const std::string& c) { flip_byte(c + "/MANIFEST.json", 50); }},
      {"manifest removed", [](const std::string& c) { std::filesystem::remove(c + "/MANIFEST.json"); }},
      {"manifest emptied", [](const std::string& c) { std::filesystem::resize_file(c + "/MANIFEST.json", 0); }},
  };
  for (const Case& test : cases) {
    const std::string run = dir / test.name;
    add_checkpoint(run, {.iteration = 1});
    const std::string checkpoint = add_checkpoint(run, {.iteration = 2});
    test.damage(checkpoint);
    for (const std::string& path : {run, checkpoint}) {
      const Outcome outcome = ckpt({"verify", "--json", path});
      EXPECT_EQ(outcome.code, 4) << test.name << ": " << outcome.err;
      EXPECT_EQ(outcome.json().at("problems").at(0).at("path"), checkpoint) << test.name;
      EXPECT_EQ(ckpt({"verify", path}).code, 4) << test.name;
    }
    // The one before is still found.
    EXPECT_EQ(ckpt({"load", run}).out, run + "/step-000000000001\n") << test.name;
  }
}

TEST(Verify, ListsLeftoversAsNoProblem) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 1});
  const std::string temporary = run::temporary_name(2), trash = run::trash_name("step-000000000001");
  std::filesystem::create_directory(run + "/" + temporary);
  std::filesystem::create_directory(run + "/" + trash);
  const Outcome outcome = ckpt({"verify", "--json", run});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.json().at("leftovers"), (nlohmann::json{run + "/" + trash, run + "/" + temporary}));
  EXPECT_NE(ckpt({"verify", run}).out.find(temporary), std::string::npos);
}

TEST(Verify, ReadsWhileAWriterHoldsTheRun) {
  TempDir dir;
  add_checkpoint(dir / "run", {.iteration = 1});
  const io::FileLock lock(io::Directory::open(dir / "run"), run::kLockName);
  EXPECT_EQ(ckpt({"verify", dir / "run"}).code, 0);
  EXPECT_EQ(ckpt({"list", dir / "run"}).code, 0);
  EXPECT_EQ(ckpt({"load", dir / "run"}).code, 0);
}

TEST(Verify, ToldByContentNotByName) {
  TempDir dir;
  std::filesystem::copy_file(archive("model-1.13.1.pt"), dir / "weights.safetensors");
  EXPECT_EQ(ckpt({"verify", dir / "weights.safetensors"}).code, 0);
  const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  write_all(dir / "weights.pt", file + header + "12345678");
  EXPECT_EQ(ckpt({"verify", dir / "weights.pt"}).code, 0);
  write_all(dir / "short.pt", file + header + "1234567");
  EXPECT_EQ(ckpt({"verify", dir / "short.pt"}).code, 4);
  write_all(dir / "empty", "");
  EXPECT_EQ(ckpt({"verify", dir / "empty"}).code, 4);
  write_all(dir / "notes.txt", "hello");
  EXPECT_EQ(ckpt({"verify", dir / "notes.txt"}).code, 7);
  write_all(dir / "old.pt", std::string("\x80\x02\x8a\x0al\xfc", 6));
  EXPECT_EQ(ckpt({"verify", dir / "old.pt"}).code, 4);
  write_all(dir / "zeros.pt", std::string(5000, '\0'));
  EXPECT_EQ(ckpt({"verify", dir / "zeros.pt"}).code, 4);
}

TEST(Verify, ChecksEveryFormat) {
  for (const char* name : {"torch/state_dict.pt", "torch/shapes-legacy.pt", "torch/traced.pt", "pt2/net.pt2",
                           "sharded/model.safetensors.index.json", "safetensors/python.safetensors"}) {
    EXPECT_EQ(ckpt({"verify", "--strict", data(name)}).code, 0) << name;
  }
  TempDir dir;
  for (const char* name : {"torch/state_dict.pt", "torch/shapes-legacy.pt", "torch/scripted.pt", "pt2/net.pt2"}) {
    const std::string path = dir / std::filesystem::path(name).filename().string();
    write_all(path, read_all(data(name)).substr(0, 900));
    EXPECT_EQ(ckpt({"verify", path}).code, 4) << name;
  }
}

TEST(Verify, StrictRefusesGlobalsThatAreNotUnderstood) {
  const Outcome lax = ckpt({"verify", "--json", data("torch/foreign.pt")});
  EXPECT_EQ(lax.code, 0);
  EXPECT_NE(lax.json().at("warnings").at(0).get<std::string>().find("posix.system"), std::string::npos);
  const Outcome strict = ckpt({"verify", "--json", "--strict", data("torch/foreign.pt")});
  EXPECT_EQ(strict.code, 4);
  EXPECT_EQ(strict.error().at("code"), "unsafe");
  const Outcome text = ckpt({"verify", "--strict", data("torch/foreign.pt")});
  EXPECT_TRUE(text.out.starts_with("unsafe")) << text.out;
}

TEST(Verify, FindsNaNOnRequest) {
  TempDir dir;
  write_floats(dir / "x.safetensors", {{"a", {{2}, {1, std::nanf("")}}}});
  EXPECT_EQ(ckpt({"verify", dir / "x.safetensors"}).code, 0);
  const Outcome outcome = ckpt({"verify", "--json", "--nan", dir / "x.safetensors"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.error().at("code"), "invalid");
  EXPECT_EQ(outcome.json().at("problems").at(0).at("tensor"), "a");
  add_checkpoint(dir / "run", {.iteration = 1, .state = data("tools/parts.pt")});
  EXPECT_EQ(ckpt({"verify", "--nan", dir / "run", dir / "run/latest"}).code, 0);
}

TEST(Verify, GoesOnAfterAProblemAndExitsWithTheFirstOfItsOrder) {
  TempDir dir;
  const std::string run = dir / "run";
  add_checkpoint(run, {.iteration = 1});
  std::filesystem::create_directory(dir / "empty");
  std::filesystem::copy_file(archive("model-1.13.1.pt"), dir / "bad.pt");
  flip_byte(dir / "bad.pt", 3000);
  write_all(dir / "notes.txt", "hello");

  EXPECT_EQ(ckpt({"verify", dir / "empty"}).code, 6);
  const Outcome two = ckpt({"verify", dir / "absent", dir / "notes.txt", run});
  EXPECT_EQ(two.code, 7);
  EXPECT_EQ(lines_of(two.err).size(), 2u) << two.err;
  EXPECT_TRUE(two.out.starts_with("ok ")) << two.out;
  const Outcome all = ckpt({"verify", dir / "absent", dir / "notes.txt", dir / "bad.pt", run, "--json"});
  EXPECT_EQ(all.code, 4);
  EXPECT_EQ(all.error().at("code"), "corrupt");
  EXPECT_EQ(all.json().at("problems").size(), 1u);
  EXPECT_EQ(lines_of(all.err).size(), 3u) << all.err;
}

TEST(Verify, UsesTheManifestBesideAFile) {
  TempDir dir;
  const std::string checkpoint = add_checkpoint(dir / "run", {.iteration = 1});
  // Padding between records: no CRC covers it, the hash of the block does.
  const format::ArchiveFile state = format::ArchiveFile::open(checkpoint + "/state.pt");
  const auto& record = state.zip()->records().back();
  flip_byte(checkpoint + "/state.pt", record.data_offset - 1);
  EXPECT_EQ(ckpt({"verify", checkpoint + "/state.pt"}).code, 4);
  EXPECT_EQ(ckpt({"verify", checkpoint}).code, 4);
}

}  // namespace
}  // namespace ckpt::test
