// Files of many tensors, and files made to take much: reading any takes at most its size and 64 MiB, and no long time.
#include "memory/large_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <functional>

#include "core/format/archive.h"
#include "core/format/safetensors_builder.h"
#include "core/weights/convert.h"
#include "core/weights/weights.h"
#include "memory/allocations.h"
#include "support/temp_dir.h"

namespace ckpt {
namespace {

using namespace test::pickled;
using test::le;
using test::ZipFile;

constexpr int kTensors = 300000;
// What a pickle says of a tensor takes about 800 bytes to know; a file of so many of less each is refused.
constexpr int kStorageBytes = 800;
constexpr uint64_t kAllowedBeyondFile = 64 << 20;
constexpr std::chrono::seconds kAllowedTime(120);  // of a debug build beside others; quadratic work takes much longer

std::string name_of(int i) { return "model.layers." + std::to_string(i) + ".weight"; }

class LargeFiles : public testing::Test {
 protected:
  /// Opens it in every way there is; `tensors`: how many there must be, or -1: it may be refused.
  void open(int tensors = -1) {
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) bytes += entry.file_size();
    within(
        bytes, "weights",
        [&] {
          const auto opened = weights::Weights::open(path_);
          EXPECT_TRUE(tensors < 0 || opened.tensors().size() == static_cast<size_t>(tensors));
        },
        tensors >= 0);
  }
  void open_torch(int tensors = -1) {
    open(tensors);
    within(
        std::filesystem::file_size(path_), "torch file", [&] { test::read_torch_file(path_); }, tensors >= 0);
  }

  template <class Open>
  void within(uint64_t file_bytes, const char* what, Open open, bool must_open) {
    SCOPED_TRACE(what);
    const auto begin = std::chrono::steady_clock::now();
    const test::PeakOfAllocations peak;
    try {
      open();
    } catch (const Error& error) {
      EXPECT_FALSE(must_open) << error.what();
    }
    EXPECT_LE(peak.bytes(), file_bytes + kAllowedBeyondFile) << "a file of " << file_bytes << " bytes";
    EXPECT_LT(std::chrono::steady_clock::now() - begin, kAllowedTime);
  }

  void write(const std::string& bytes) { test::write_all(path_, bytes); }
  void write_pickle(const std::string& pickle, uint64_t storage_bytes = 24) {
    ZipFile zip(path_);
    zip.add("data/0", std::string(storage_bytes, '\x01'));
    zip.add("data.pkl", pickle);
    zip.finish();
  }

  test::TempDir dir_;
  const std::string path_ = dir_ / "file";
};

std::string repeated(const std::string& text, int count) {
  std::string all;
  all.reserve(text.size() * static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

/// A header and the data of so many tensors.
std::string many_tensors(int first, int count) {
  std::string header = "{";
  for (int i = 0; i < count; ++i) {
    header += (i == 0 ? "\"" : ",\"") + name_of(first + i) + R"(":{"dtype":"U8","shape":[1,1],"data_offsets":[)" +
              std::to_string(i) + "," + std::to_string(i + 1) + "]}";
  }
  return test::safetensors(header + "}", std::string(static_cast<size_t>(count), 'x'));
}

TEST_F(LargeFiles, Safetensors) {
  write(many_tensors(0, kTensors));
  const io::File file = io::File::open(path_);
  within(
      file.stat().bytes, "safetensors",
      [&] { EXPECT_EQ(format::read_safetensors(file).tensors.size(), static_cast<size_t>(kTensors)); }, true);
}

TEST_F(LargeFiles, WeightsInSafetensors) {
  write(many_tensors(0, kTensors));
  open(kTensors);
}

TEST_F(LargeFiles, TiesInTheMetadataOfSafetensors) {
  std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{)";
  for (int i = 0; i < kTensors; ++i) header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":"a")";
  write(test::safetensors(header + "}}", "x"));
  open();
}

TEST_F(LargeFiles, ShardedSafetensors) {
  constexpr int kShards = 3;
  std::string index = "{\"weight_map\":{";
  for (int shard = 0; shard < kShards; ++shard) {
    const std::string name = "model-" + std::to_string(shard) + ".safetensors";
    test::write_all(dir_ / name, many_tensors(shard * kTensors / kShards, kTensors / kShards));
    for (int i = 0; i < kTensors / kShards; ++i) {
      index += (index.back() == '{' ? "\"" : ",\"") + name_of(shard * kTensors / kShards + i) + "\":\"" + name + "\"";
    }
  }
  write(index + "}}");
  open(kTensors);
}

/// The pickle of tensor `i`, with what all have in common from the memo, as Python writes it.
std::string tensor_of(int i, const std::string& key) {
  const bool first = i == 0;
  const auto memo = [&](const std::string& stream, char place) {
    return first ? stream + "q" + place : std::string("h") + place;
  };
  return text(name_of(i)) + memo(global("torch._utils", "_rebuild_tensor_v2"), 1) + "((" + memo(text("storage"), 2) +
         memo(global("torch", "ByteStorage"), 3) + text(key) + memo(text("cpu"), 4) + "M" + le(kStorageBytes, 2) +
         "tQK" + '\0' + "K\x01K\x01\x86" + "K\x01K\x01\x86\x89" + memo(global("collections", "OrderedDict"), 5) +
         ")RtR";
}

TEST_F(LargeFiles, TorchZip) {
  const std::string storage(kStorageBytes, 'x');
  ZipFile zip(path_);
  std::string pickle = std::string("\x80\x02}q\0(", 6);
  for (int i = 0; i < kTensors; ++i) {
    pickle += tensor_of(i, std::to_string(i));
    zip.add("data/" + std::to_string(i), storage);
  }
  zip.add("data.pkl", pickle + "u.");
  zip.finish();
  open_torch(kTensors);
}

TEST_F(LargeFiles, TorchLegacy) {
  const std::string storage(kStorageBytes, 'x');
  test::LegacyFile file;
  file.object = std::string("\x80\x02}q\0(", 6);
  file.keys = "\x80\x02](";
  file.storages.clear();
  for (int i = 0; i < kTensors; ++i) {
    file.object += tensor_of(i, std::to_string(i));
    file.keys += text(std::to_string(i));
    file.storages += le(kStorageBytes, 8) + storage;
  }
  file.object += "u.";
  file.keys += "e.";
  write(file.bytes());
  open_torch(kTensors);
}

TEST_F(LargeFiles, Package) {
  ZipFile zip(path_);
  std::string table = "{\"config\":{";
  for (int i = 0; i < kTensors; ++i) {
    const std::string record = "weight_" + std::to_string(i);
    zip.add("data/weights/" + record, "x");
    table += (i == 0 ? "\"" : ", \"") + name_of(i) + R"(": {"path_name": ")" + record +
             R"(", "is_param": true, "use_pickle": false, "tensor_meta": {"dtype": 1, "sizes": [{"as_int": 1}], )" +
             R"("requires_grad": true, "device": {"type": "cpu", "index": null}, "strides": [{"as_int": 1}], )" +
             R"("storage_offset": {"as_int": 0}, "layout": 7}})";
  }
  zip.add("data/weights/model_weights_config.json", table + "}}");
  zip.add("archive_format", "pt2");
  zip.finish();
  open(kTensors);
}

TEST_F(LargeFiles, AMillionEmptyRecords) {
  ZipFile zip(path_);
  for (int i = 0; i < 1000000; ++i) zip.add(std::to_string(i), "");
  zip.finish();
  open_torch();
}

TEST_F(LargeFiles, ADeflatedPickleThatExpands) {
  for (const uint64_t bytes : {60u << 20, 63u << 20, 200u << 20}) {
    std::filesystem::remove(path_);
    ZipFile zip(path_);
    const std::string zeros(bytes, 'N');
    zip.add_deflated("data.pkl", test::deflated(zeros), bytes, crc32(as_bytes(zeros)));
    zip.finish();
    open_torch();
  }
}

TEST_F(LargeFiles, ADeflatedTableThatExpands) {
  ZipFile zip(path_);
  const std::string blanks(59 << 20, ' ');
  zip.add_deflated("data/weights/model_weights_config.json", test::deflated(blanks), blanks.size(),
                   crc32(as_bytes(blanks)));
  zip.add("archive_format", "pt2");
  zip.finish();
  open();
}

TEST_F(LargeFiles, SharedTuples) {
  write_pickle(doubled(60));
  open_torch();
  write_pickle(doubled(17));
  open_torch();
}

TEST_F(LargeFiles, Strides0) {
  std::string pickle = std::string("\x80\x02}q\0(", 6);
  for (int i = 0; i < 1000; ++i) {
    const Tensor giant{.sizes = integers({int64_t{16} << 20}), .strides = integers({0})};
    pickle += text(name_of(i)) + giant.stream();
  }
  write_pickle(pickle + "u.");
  open_torch();
}

TEST_F(LargeFiles, PicklesOfSmallValues) {
  for (const char* values :
       {"]", "}", "\x8f", "K\x01", "(t", "N\x85", "cm\nn\n", "C\x01x", "\x8c\x01x", "cm\nn\n)R", "NQ"}) {
    SCOPED_TRACE(values);
    write_pickle("(" + repeated(values, 2000000) + "t.");
    open_torch();
  }
  write_pickle(std::string(3000000, '(') + "N.");
  open_torch();
  write_pickle("]" + repeated("q\x01r\x02" + std::string(3, '\0'), 1000000) + ".");
  open_torch();
  write_pickle("]" + std::string(2000000, '\x94') + ".");
  open_torch();
}

TEST_F(LargeFiles, AModulesStateSharedByMany) {
  // Each object could be a pickled torch.nn.Module: is this its state?
  std::string pickle = std::string("\x80\x02}q\0(", 6) + repeated("K\x01K\x02", 200000) + "ucm\nn\nq\x01(";
  pickle += repeated(std::string("h\x01)Rh\0b", 7), 200000);
  write_pickle(pickle + "t\x87.");
  open_torch();
}

TEST_F(LargeFiles, ALongNameSharedByManyGlobals) {
  const std::string name(1 << 20, 'n');
  write_pickle("\x80\x04" + text(name) + std::string("q\0(", 3) + repeated(std::string("h\0h\0\x93", 5), 200000) +
               "t\x86.");
  open_torch();
}

TEST_F(LargeFiles, ALongKeySharedByManyStorages) {
  const std::string key(60000, '0');
  ZipFile zip(path_);
  zip.add("data/" + key, "x");
  const std::string id = tuple({text("storage"), global("torch", "ByteStorage"), text(key), text("cpu"), "K\x01"});
  zip.add("data.pkl", "\x80\x02" + id + "q\x01(" + repeated("h\x01Q", 500000) + "t\x86.");
  zip.finish();
  open_torch();
}

TEST_F(LargeFiles, AListOfPairsSharedByMany) {
  std::string pickle =
      std::string("\x80\x02]q\0(", 6) + repeated("NN\x86", 100000) + "N" + "ecollections\nOrderedDict\nq\x01(";
  pickle += repeated(std::string("h\x01h\0\x85R", 7), 200000);
  write_pickle(pickle + "t\x87.");
  open_torch();
}

TEST_F(LargeFiles, NamesOfNothingButWrappers) {
  std::string pickle = std::string("\x80\x02}q\0(", 6);
  const std::string prefix = repeated("module.", 9000);
  for (int i = 0; i < 300; ++i) pickle += text(prefix + std::to_string(i)) + Tensor().stream();
  write_pickle(pickle + "u.");
  open(300);
}

TEST_F(LargeFiles, NestedNames) {
  // Each level lengthens the names of all tensors below it.
  std::string pickle = Tensor().stream();
  for (int i = 0; i < 900; ++i) pickle = "}" + text(std::string(70, 'n')) + pickle + "s";
  write_pickle(whole("(" + pickle + std::string("q\0", 2) + repeated(std::string("h\0", 2), 200000) + "t"));
  open_torch();
}

TEST_F(LargeFiles, ModulesWithoutTensors) {
  // A state_dict whose `_metadata` names modules, each by as few bytes as can be; as levels of an archive.
  const auto convert_to_archive = [&](const std::function<std::string(int)>& path_of, int count) {
    std::string modules = "}(";
    for (int i = 0; i < count; ++i) modules += text(path_of(i)) + "}";
    write_pickle(whole(global("collections", "OrderedDict") + ")R(" + text("x") + Tensor().stream() + "u}(" +
                       text("_metadata") + modules + "u" + "ub"));
    open_torch();
    within(
        std::filesystem::file_size(path_), "archive",
        [&] { weights::convert(weights::Weights::open(path_), dir_ / "archive", {.to = Format::kArchive}); }, false);
    std::filesystem::remove(dir_ / "archive");
  };
  convert_to_archive([](int i) { return std::to_string(i); }, 45000);
  convert_to_archive([](int i) { return std::to_string(i); }, 100000);
  convert_to_archive([](int i) { return std::to_string(i) + repeated(".a", 499); }, 100);
  convert_to_archive([](int i) { return std::to_string(i) + repeated(".a", 499); }, 10000);
  convert_to_archive([](int i) { return std::to_string(i) + repeated("." + std::to_string(i), 400); }, 1000);
}

TEST_F(LargeFiles, HeadersOfJson) {
  const auto header = [&](const std::string& text) {
    write(test::safetensors(text, ""));
    open();
  };
  header(std::string(90 << 20, ' ') + "{}");
  header("{\"" + std::string(90 << 20, 'n') + "\":1}");
  header("{\"" + std::string(8 << 20, 'n'));
  header("{\"a\":" + std::string(90 << 20, '1') + "}");
  header(std::string(90 << 20, '{'));
  header(std::string(90 << 20, '['));
  header("{\"__metadata__\":{\"" + std::string(7 << 20, '{') + "\":\"" + std::string(8000000, '}') + "\"}}");
  std::string metadata = "{\"__metadata__\":{\"x\":\"\"", opaque = "{", tensors = "{";
  for (int i = 0; i < 1000000; ++i) {
    const std::string name = std::to_string(i) + "\":";
    metadata += ",\"" + name + "\"\"";
    opaque += (i == 0 ? "\"" : ",\"") + name + R"({"dtype":"F4","shape":[0],"data_offsets":[0,0]})";
    tensors += (i == 0 ? "\"" : ",\"") + name + R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  header(metadata + "}}");
  header(opaque + "}");
  header(tensors + "}");
}

TEST_F(LargeFiles, IndexesOfJson) {
  std::string map = "{\"weight_map\":{\"x\":\"a\"", files = map;
  for (int i = 0; i < 1000000; ++i) {
    map += ",\"" + std::to_string(i) + "\":\"a\"";
    files += ",\"" + std::to_string(i) + "\":\"" + std::to_string(i) + "\"";
  }
  for (const std::string& text : {map + "}}", files + "}}", "{\"metadata\":" + std::string(50 << 20, '['),
                                  "{\"weight_map\":" + std::string(50 << 20, ' ')}) {
    write(text);
    open();
  }
}

}  // namespace
}  // namespace ckpt
