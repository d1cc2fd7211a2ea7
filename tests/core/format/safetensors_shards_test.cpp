#include "core/format/safetensors_shards.h"

#include <gtest/gtest.h>

#include <map>

#include "core/format/safetensors_builder.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

std::string shard(const std::string& tensor, const std::string& data, const std::string& metadata = "{}") {
  const std::string header = "{\"__metadata__\":" + metadata + ",\"" + tensor + "\":{\"dtype\":\"U8\",\"shape\":[" +
                             std::to_string(data.size()) + "],\"data_offsets\":[0," + std::to_string(data.size()) +
                             "]}}";
  return test::safetensors(header, data);
}

constexpr const char* kIndex =
    R"({"metadata":{"total_size":3,"more":[{}]},"weight_map":{"x":"s-2.safetensors","y":"s-1.safetensors"}})";

class ShardsTest : public testing::Test {
 protected:
  ShardsTest() {
    std::filesystem::create_directories(dir_ / "snapshots/1");
    std::filesystem::create_directory(dir_ / "blobs");
    test::write_all(folder_ + "/s-1.safetensors", shard("y", "yy", R"({"a":"1","b":"1"})"));
    test::write_all(folder_ + "/s-2.safetensors", shard("x", "x", R"({"a":"2","c":"2"})"));
  }
  ShardedIndex read(const std::string& index) {
    test::write_all(folder_ + "/model.safetensors.index.json", index);
    return read_sharded(io::File::open(folder_ + "/model.safetensors.index.json"));
  }
  std::optional<ErrorCode> error_of(const std::string& index) {
    try {
      read(index);
      return std::nullopt;
    } catch (const Error& error) {
      return error.code();
    }
  }

  test::TempDir dir_;
  std::string folder_ = dir_ / "snapshots/1";
};

TEST_F(ShardsTest, OpensTheShardsBesideTheIndex) {
  const ShardedIndex sharded = read(kIndex);
  ASSERT_EQ(sharded.files.size(), 2u);
  EXPECT_EQ(sharded.files[0]->path(), folder_ + "/s-1.safetensors");
  ASSERT_EQ(sharded.tensors.size(), 2u);
  EXPECT_EQ(sharded.tensors[0].name, "y");
  EXPECT_EQ(sharded.tensors[0].file, 0u);
  EXPECT_EQ(sharded.tensors[1].name, "x");
  EXPECT_EQ(sharded.tensors[1].file, 1u);
  EXPECT_EQ(sharded.tensors[1].stored.storage_offset, sharded.tensors[1].stored.file_offset);
  EXPECT_EQ(sharded.metadata, (std::map<std::string, std::string>{{"a", "1"}, {"b", "1"}, {"c", "2"}}));
}

TEST_F(ShardsTest, OpensWhatHuggingFaceWrote) {
  const ShardedIndex sharded =
      read_sharded(io::File::open(std::string(CKPT_TEST_DATA) + "/sharded/model.safetensors.index.json"));
  std::vector<std::string> names;
  for (const NamedTensor& named : sharded.tensors) names.push_back(named.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a.weight", "b.weight", "c.bias"}));
}

TEST_F(ShardsTest, FollowsTheLinksOfTheHubsCacheAlone) {
  std::filesystem::rename(folder_ + "/s-1.safetensors", dir_ / "blobs/0123");
  std::filesystem::create_symlink("../../blobs/0123", folder_ + "/s-1.safetensors");
  EXPECT_EQ(read(kIndex).tensors.at(0).name, "y");

  for (const char* target :
       {"../blobs/0123", "../../blobs/../blobs/0123", "../../blobs/..", "s-2.safetensors", "/dev/null"}) {
    std::filesystem::remove(folder_ + "/s-1.safetensors");
    std::filesystem::create_symlink(target, folder_ + "/s-1.safetensors");
    EXPECT_EQ(error_of(kIndex), ErrorCode::kUnsafe) << target;
  }
}

TEST_F(ShardsTest, FollowsNoLinkBehindALink) {
  std::filesystem::rename(folder_ + "/s-1.safetensors", dir_ / "blobs/0123");
  std::filesystem::create_symlink("0123", dir_ / "blobs/link");
  std::filesystem::create_symlink("../../blobs/link", folder_ + "/s-1.safetensors");
  EXPECT_EQ(error_of(kIndex), ErrorCode::kIo);
}

}  // namespace
}  // namespace ckpt::format
