// Bytes that changed on the disk are found, located, and an older checkpoint is used.
#include "core/format/archive.h"
#include "fault_scenarios.h"

namespace ckpt::run {
namespace {

using namespace testing;

struct Change {
  const char* what;
  std::function<void(std::string&, size_t)> make;
};

const std::vector<Change>& changes() {
  static const std::vector<Change> all{
      {"flipped", [](std::string& text, size_t at) { text[at] = static_cast<char>(text[at] ^ 0x10); }},
      {"zeroed", [](std::string& text,
                    size_t at) { std::fill(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(), '\0'); }},
      {"cut", [](std::string& text, size_t at) { text.resize(at); }},
  };
  return all;
}

class DamageTest : public RunTest {
 protected:
  DamageTest() : RunTest(fast_directory()) {}

  /// Of the newer of two checkpoints, changes every `stride`th byte of a file in every way.
  void expect_found(const std::string& name, size_t stride) {
    const fs::path path = step(2) / name;
    const std::string good = read_all(path);
    for (size_t at = 0; at < good.size(); at += stride) {
      for (const Change& change : changes()) {
        std::string changed = good;
        change.make(changed, at);
        if (changed == good) continue;
        write_all(path, changed);
        const std::string where = name + " " + change.what + " at " + std::to_string(at);
        const std::vector<Problem> problems = verify(io::Directory::open(step(2).string()), 1);
        ASSERT_FALSE(problems.empty()) << where;
        EXPECT_EQ(problems[0].path, step(2).string());
        EXPECT_EQ(problems[0].file, name);
        EXPECT_FALSE(problems[0].damage.reason.empty());
        EXPECT_LE(problems[0].damage.offset, name == kManifestName ? good.size() : at) << where;
        const std::optional<Selection> found = select_latest(run());
        ASSERT_TRUE(found);
        ASSERT_EQ(found->checkpoint.iteration, 1u) << where;
        ASSERT_EQ(found->passed_over.size(), 1u);
      }
    }
    write_all(path, good);
  }
};

TEST_F(DamageTest, AnyChangedByteIsFoundLocatedAndTheOlderOneUsed) {
  {
    RunWriter writer(run());
    save(writer, {.iteration = 1});
    save(writer, {.iteration = 2});
  }
  for (const std::string& name : names_in(step(2))) expect_found(name, name == "state.bin" ? 61 : 5);
  EXPECT_EQ(select_latest(run())->checkpoint.iteration, 2u);
}

TEST_F(DamageTest, DamageInAnArchiveIsFoundAndNamesItsRecord) {
  const std::string archive = read_all(fs::path(CKPT_TEST_DATA) / "archives" / "model-2.13.0.pt");
  ASSERT_FALSE(archive.empty());
  const FileToWrite state{std::string(kStateName), archive.size(),
                          [&](io::BlockWriter& out) { out.append(as_bytes(archive)); }};
  {
    RunWriter writer(run());
    for (uint64_t i : {1, 2}) writer.commit({.iteration = i}, {state}, {}, {});
  }
  EXPECT_TRUE(verify(io::Directory::open(step(2).string()), 2).empty());
  expect_found(std::string(kStateName), 97);

  const format::ArchiveFile open = format::ArchiveFile::open((step(2) / kStateName).string());
  const format::NamedTensor tensor = format::tensors_of(open.root(), false).front();
  std::string changed = archive;
  changed[tensor.stored.file_offset] = static_cast<char>(changed[tensor.stored.file_offset] ^ 1);
  write_all(step(2) / kStateName, changed);
  const std::vector<Problem> problems = verify(io::Directory::open(step(2).string()), 2);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].damage.record, tensor.stored.record);
  EXPECT_EQ(problems[0].damage.tensor, tensor.name);
  EXPECT_EQ(problems[0].damage.offset, tensor.stored.storage_offset);
}

TEST_F(DamageTest, DamageIsLocatedByBlock) {
  constexpr size_t kBytes = 2 * io::kBlockBytes + 1000;
  RunWriter writer(run());
  save(writer, {.iteration = 1, .bytes = kBytes});
  std::string text = read_all(step(1) / "state.bin");
  text[io::kBlockBytes + 5] = static_cast<char>(text[io::kBlockBytes + 5] ^ 1);
  text.back() = static_cast<char>(text.back() ^ 1);
  write_all(step(1) / "state.bin", text);
  const std::vector<Problem> problems = verify(io::Directory::open(step(1).string()), 2);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].damage.offset, io::kBlockBytes);
  EXPECT_EQ(problems[1].damage.offset, 2 * io::kBlockBytes);
}

TEST_F(DamageTest, DamageInWeightsNamesTheTensor) {
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  std::string text = read_all(step(1) / kWeightsName);
  text.back() = static_cast<char>(text.back() ^ 1);
  write_all(step(1) / kWeightsName, text);
  const std::vector<Problem> problems = verify(io::Directory::open(step(1).string()), 1);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].file, kWeightsName);
  EXPECT_EQ(problems[0].damage.tensor, "w");
}

TEST_F(DamageTest, EveryDamagedFileIsTold) {
  RunWriter writer(run());
  save(writer, {.iteration = 1});
  fs::remove(step(1) / "state.bin");
  fs::resize_file(step(1) / kWeightsName, 20);
  const std::vector<Problem> problems = verify(io::Directory::open(step(1).string()), 1);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].file, "state.bin");
  EXPECT_EQ(problems[1].file, kWeightsName);
  EXPECT_EQ(problems[1].damage.offset, 20u);
}

TEST_F(DamageTest, AStateThatIsNoArchiveIsAProblemThoughItsBytesAreAsWritten) {
  RunWriter writer(run());
  writer.commit({.iteration = 1},
                {{"state.pt", 0, [](io::BlockWriter& out) { out.append(as_bytes("no zip at all")); }}}, {}, {});
  const std::vector<Problem> problems = verify(io::Directory::open(step(1).string()), 1);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].file, "state.pt");
}

}  // namespace
}  // namespace ckpt::run
