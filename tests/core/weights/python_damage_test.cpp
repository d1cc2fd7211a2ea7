// Python checkpoints whose pickle was changed at random: nothing but Error leaves, whatever they say.
#include <gtest/gtest.h>

#include <random>

#include "core/format/zip_builder.h"
#include "core/weights/python_checkpoint.h"
#include "core/weights/state_tree.h"
#include "support/temp_dir.h"

namespace ckpt::weights {
namespace {

using format::TorchFile;

/// Some bytes replaced, or a piece put where another was.
std::string changed(std::string pickle, std::mt19937& random) {
  const auto place = [&] { return random() % pickle.size(); };
  if (random() % 2 == 0) {
    for (unsigned i = random() % 3 + 1; i > 0; --i) pickle[place()] = static_cast<char>(random());
    return pickle;
  }
  const std::string piece = pickle.substr(place(), random() % 40);
  return pickle.replace(place(), random() % 40, piece);
}

/// Whether it could be taken.
bool goes_both_ways(const std::string& path) {
  try {
    std::vector<std::string> warnings;
    const format::ArchiveFile tree = training_state_of(TorchFile::open(io::File::open(path)), {}, warnings);
    head_of(tree);
    std::vector<format::TensorToWrite> tensors;
    python_checkpoint_of(archive_to_write(tree, tensors), path, tensors, warnings);
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(PythonCheckpointDamage, OfThePickleIsAnErrorOrAnotherState) {
  constexpr int kChanges = 250;
  const test::TempDir dir;
  std::mt19937 random(7);
  for (const char* name : {"adam", "lbfgs", "odd"}) {
    const TorchFile file =
        TorchFile::open(io::File::open(CKPT_TEST_DATA "/python_checkpoints/" + std::string(name) + ".pt"));
    test::ZipImage image;
    std::string pickle;
    for (const format::ZipRecord& record : file.zip()->records()) {
      const std::vector<std::byte> bytes = file.zip()->read(record, 1 << 20);
      image.entries.push_back(test::zip_entry("t/" + record.name, std::string(as_text(bytes))));
      if (record.name == "data.pkl") pickle = as_text(bytes);
    }
    int taken = 0;
    for (int i = 0; i < kChanges; ++i) {
      for (test::ZipEntry& entry : image.entries) {
        if (entry.name == "t/data.pkl") entry = test::zip_entry(entry.name, i == 0 ? pickle : changed(pickle, random));
      }
      test::write_all(dir / "changed.pt", image.bytes());
      const bool good = goes_both_ways(dir / "changed.pt");
      EXPECT_TRUE(good || i > 0) << name << " as it was";
      taken += good ? 1 : 0;
    }
    EXPECT_LT(taken, kChanges) << name;
  }
}

}  // namespace
}  // namespace ckpt::weights
