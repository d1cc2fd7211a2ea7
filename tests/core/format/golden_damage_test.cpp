// The files that other programs wrote, cut off at every length and changed at many bytes.
#include <gtest/gtest.h>

#include "core/format/archive.h"
#include "core/format/pt2.h"
#include "core/format/safetensors_shards.h"
#include "core/format/torch_builder.h"
#include "support/corruptions.h"

namespace ckpt::format {
namespace {

std::string golden(const std::string& name) { return test::read_all(std::string(CKPT_TEST_DATA) + "/" + name); }

TEST(GoldenDamage, OfWhatTorchSaved) {
  test::check_every_place(golden("torch/tensor.pt"), test::read_torch_file, {.step = 2});
  test::check_every_place(golden("torch/state_dict.pt"), test::read_torch_file, {.step = 11});
  test::check_every_place(golden("torch/scripted.pt"), test::read_torch_file, {.step = 31});
}

TEST(GoldenDamage, OfWhatTorchSavedBefore16) {
  test::check_every_place(golden("torch/shapes-legacy.pt"), test::read_torch_file, {.step = 3});
  test::check_every_place(golden("torch/training-legacy-protocol4.pt"), test::read_torch_file, {.step = 11});
}

TEST(GoldenDamage, OfArchives) {
  const test::OpenFile read = [](const std::string& path) { ArchiveFile::open(path); };
  test::check_every_place(golden("archives/tensor-1.13.1.pt"), read, {.step = 3});
}

TEST(GoldenDamage, OfPackages) {
  const test::OpenFile read = [](const std::string& path) {
    const io::File file = io::File::open(path);
    read_pt2(ZipReader(file));
  };
  test::check_every_place(golden("pt2/two.pt2"), read, {.step = 17});
}

TEST(GoldenDamage, OfSafetensorsAndItsIndex) {
  const test::OpenFile read = [](const std::string& path) { read_safetensors(io::File::open(path)); };
  test::check_every_place(golden("safetensors/python.safetensors"), read, {.step = 3});

  const test::TempDir folder;
  for (const char* name : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
    test::write_all(folder / name, golden("sharded/" + std::string(name)));
  }
  const std::string index = golden("sharded/model.safetensors.index.json");
  const test::OpenFile read_index = [](const std::string& path) { read_sharded(io::File::open(path)); };
  test::check_every_place(index.substr(0, index.find_last_of('}') + 1), read_index, folder);
}

}  // namespace
}  // namespace ckpt::format
