// Averaging takes at most 64 MiB of anonymous memory and 1 MiB for each input, whatever is averaged.
#include "core/average/average.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/weights/weights.h"
#include "memory/allocations.h"
#include "support/temp_dir.h"

namespace ckpt {
namespace {

constexpr uint64_t kMiB = 1 << 20;

/// Of this process now.
uint64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "RssAnon:") continue;
    uint64_t kilobytes = 0;
    status >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

/// The most that was there since it was made, beyond what was there then; looked at every millisecond.
class PeakOfAnonymousMemory {
 public:
  PeakOfAnonymousMemory() {
    ::malloc_trim(0);
    before_ = anonymous_bytes();
    watcher_ = std::thread([this] {
      while (!done_) {
        peak_ = std::max<uint64_t>(peak_, anonymous_bytes());
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  }
  ~PeakOfAnonymousMemory() {
    done_ = true;
    watcher_.join();
  }
  uint64_t bytes() const { return peak_ > before_ ? peak_ - before_ : 0; }

 private:
  uint64_t before_ = 0;
  std::atomic<uint64_t> peak_ = 0;
  std::atomic<bool> done_ = false;
  std::thread watcher_;
};

class AverageMemory : public testing::Test {
 protected:
  /// A file of so many tensors, of zeros that take no room on the disk.
  std::string write(const std::string& name, int tensors, uint64_t bytes_of_each, const char* dtype = "F32") {
    const uint64_t width = std::string_view(dtype) == "F32" ? 4 : 2;
    std::string header = "{";
    for (int i = 0; i < tensors; ++i) {
      const uint64_t begin = static_cast<uint64_t>(i) * bytes_of_each;
      header += (i == 0 ? "\"" : ",\"") + ("model.layers." + std::to_string(i)) + R"(.weight":{"dtype":")" + dtype +
                R"(","shape":[)" + std::to_string(bytes_of_each / width) + R"(],"data_offsets":[)" +
                std::to_string(begin) + "," + std::to_string(begin + bytes_of_each) + "]}";
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string length;
    append_le(length, header.size(), 8);
    test::write_all(dir_ / name, length + header);
    std::filesystem::resize_file(dir_ / name, 8 + header.size() + static_cast<uint64_t>(tensors) * bytes_of_each);
    return dir_ / name;
  }

  void expect_within_bound(const std::vector<std::string>& inputs, const std::string& output) {
    const uint64_t bound = (64 + inputs.size()) * kMiB;
    AverageReport report;
    {
      const PeakOfAnonymousMemory resident;
      const test::PeakOfAllocations allocated;
      report = average::average(inputs, dir_ / output, {.threads = 8});
      EXPECT_LE(allocated.bytes(), bound);
      EXPECT_LE(resident.bytes(), bound);
      EXPECT_GT(resident.bytes(), 0u);
    }
    EXPECT_EQ(report.inputs.size(), inputs.size());
    EXPECT_EQ(weights::Weights::open(dir_ / output).tensors().size(), report.tensors);
  }

  test::TempDir dir_;
};

TEST_F(AverageMemory, InputsFarLargerThanTheBound) {
  std::vector<std::string> inputs;
  for (const char* name : {"a", "b", "c", "d"}) inputs.push_back(write(name, 2, 160 * kMiB));
  expect_within_bound(inputs, "out.safetensors");
  expect_within_bound(inputs, "out.pt");
}

TEST_F(AverageMemory, ManyInputs) {
  std::vector<std::string> inputs;
  for (int i = 0; i < 200; ++i) inputs.push_back(write(std::to_string(i), 3, 2 * kMiB, "BF16"));
  expect_within_bound(inputs, "out.safetensors");
}

TEST_F(AverageMemory, ManyTensors) {
  std::vector<std::string> inputs;
  for (int i = 0; i < 10; ++i) inputs.push_back(write(std::to_string(i), 2500, 400));
  expect_within_bound(inputs, "out.safetensors");
  expect_within_bound(inputs, "out.pt");
}

}  // namespace
}  // namespace ckpt
