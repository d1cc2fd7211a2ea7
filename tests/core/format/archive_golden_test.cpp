// What torch::serialize of LibTorch 1.13.1 and 2.13.0 wrote (tests/data/make_archives.cpp), read without LibTorch.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/format/archive.h"

namespace ckpt::format {
namespace {

class ArchiveGolden : public testing::TestWithParam<const char*> {
 protected:
  static ArchiveFile open(const std::string& stem) {
    return ArchiveFile::open(std::string(CKPT_TEST_DATA) + "/archives/" + stem + "-" + GetParam() + ".pt");
  }
};

INSTANTIATE_TEST_SUITE_P(Versions, ArchiveGolden, testing::Values("1.13.1", "2.13.0"),
                         [](const auto& tested) { return tested.param[0] == '1' ? "V1" : "V2"; });

template <class T>
std::vector<T> contents(const ArchiveFile& file, const StoredTensor& tensor) {
  const auto bytes = file.file().read_at(tensor.file_offset, tensor.bytes);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST_P(ArchiveGolden, ReadsEveryDtype) {
  const ArchiveFile file = open("tensors");
  for (const char* dtype : {"uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
                            "complex64", "complex128"}) {
    const auto* tensor = file.root().get<StoredTensor>(dtype);
    ASSERT_NE(tensor, nullptr) << dtype;
    EXPECT_EQ(name(tensor->dtype), dtype);
    EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(tensor->strides, (std::vector<int64_t>{3, 1}));
    EXPECT_EQ(tensor->bytes, 6 * width(tensor->dtype));
    EXPECT_TRUE(tensor->contiguous());
  }
  EXPECT_EQ(contents<int16_t>(file, *file.root().get<StoredTensor>("int16")), (std::vector<int16_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(contents<double>(file, *file.root().get<StoredTensor>("float64")), (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(contents<uint8_t>(file, *file.root().get<StoredTensor>("bool")), (std::vector<uint8_t>{1, 0, 1}));
}

TEST_P(ArchiveGolden, ReadsViewsTiesAndOddShapes) {
  const ArchiveFile file = open("tensors");
  const auto get = [&](const char* name) -> const StoredTensor& { return *file.root().get<StoredTensor>(name); };
  EXPECT_TRUE(get("scalar").shape.empty());
  EXPECT_EQ(contents<float>(file, get("scalar")), (std::vector<float>{2.5f}));
  EXPECT_EQ(get("empty").shape, (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(get("empty").bytes, 0u);
  EXPECT_EQ(get("tied").record, get("base").record);
  EXPECT_EQ(get("tied").file_offset, get("base").file_offset);
  EXPECT_EQ(contents<float>(file, get("row")), (std::vector<float>{13, 14, 15, 16, 17, 18}));
  EXPECT_EQ(get("row").storage_offset, get("base").file_offset);
  EXPECT_EQ(get("row").storage_bytes, 96u);
  EXPECT_FALSE(get("transposed").contiguous());
  EXPECT_EQ(get("stepped").strides, (std::vector<int64_t>{6, 2}));
  EXPECT_EQ(get("stepped").file_offset, get("base").file_offset + 4);
  EXPECT_EQ(get("expanded").strides, (std::vector<int64_t>{0}));
  EXPECT_EQ(get("expanded").bytes, 12u);
  EXPECT_EQ(get("expanded").storage_bytes, 4u);
}

TEST_P(ArchiveGolden, ReadsNumbersTextsAndLists) {
  const ArchiveFile file = open("values");
  const Archive& root = file.root();
  EXPECT_EQ(*root.get<int64_t>("int"), -5);
  EXPECT_EQ(*root.get<int64_t>("big"), -9000000000000000000);
  EXPECT_EQ(*root.get<double>("double"), 0.1);
  EXPECT_TRUE(std::isinf(*root.get<double>("infinity")));
  EXPECT_TRUE(*root.get<bool>("true"));
  EXPECT_FALSE(*root.get<bool>("false"));
  EXPECT_NE(root.get<std::monostate>("none"), nullptr);
  EXPECT_EQ(*root.get<std::string>("text"), "a \"quoted\" text\nwith \xc3\xa9");
  EXPECT_EQ(*root.get<std::string>("long_text"), std::string(300, 'x'));
  EXPECT_EQ(*root.get<std::string>("no_text"), "");
  EXPECT_EQ(*root.get<std::vector<int64_t>>("ints"), (std::vector<int64_t>{1, -2, 300, 70000, int64_t{1} << 40}));
  EXPECT_TRUE(root.get<std::vector<int64_t>>("no_ints")->empty());
  EXPECT_EQ(*root.get<std::vector<double>>("doubles"), (std::vector<double>{0.5, -1e300}));
  ASSERT_EQ(root.get<std::vector<StoredTensor>>("tensors")->size(), 2u);
  EXPECT_EQ(root.get<std::vector<StoredTensor>>("tensors")->at(1).dtype, DType::kInt64);
  EXPECT_EQ(*root.nested("inner")->get<int64_t>("n"), 1);
  EXPECT_NE(root.nested("inner")->nested("deep")->get<StoredTensor>("w"), nullptr);
  EXPECT_TRUE(root.nested("hollow")->members.empty());
  EXPECT_EQ(root.find("absent"), nullptr);
  EXPECT_EQ(root.get<double>("int"), nullptr);
}

TEST_P(ArchiveGolden, ReadsOddNames) {
  const ArchiveFile file = open("names");
  for (const char* name :
       {"with.dot", "with blank", "with/slash", "it's", "1", "\xc3\xa9\xe6\xbc\xa2", "", "per%25cent"}) {
    EXPECT_NE(file.root().get<StoredTensor>(name), nullptr) << name;
  }
  std::vector<std::string> plain, unescaped;
  for (const NamedTensor& tensor : tensors_of(file.root(), false)) plain.push_back(tensor.name);
  for (const NamedTensor& tensor : tensors_of(file.root(), true)) unescaped.push_back(tensor.name);
  ASSERT_EQ(plain.size(), 9u);
  EXPECT_EQ(plain[7], "per%25cent");
  EXPECT_EQ(unescaped[7], "per%cent");
  EXPECT_EQ(plain[8], "nested.with dot.w");
}

TEST_P(ArchiveGolden, ReadsTheModelsOfTorchSave) {
  const ArchiveFile file = open("model");
  std::vector<std::string> names, parameters;
  for (const NamedTensor& tensor : tensors_of(file.root(), false)) {
    (tensor.stored.is_parameter ? parameters : names).push_back(tensor.name);
  }
  EXPECT_EQ(parameters, (std::vector<std::string>{"scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias",
                                                  "tail.0.weight", "tail.0.bias", "tail.2.weight", "tail.2.bias"}));
  EXPECT_EQ(names, (std::vector<std::string>{"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}));
  EXPECT_FALSE(is_training_state(file.root()));
}

TEST_P(ArchiveGolden, ReadsTheOptimizersOfTorchSave) {
  const ArchiveFile adam = open("adam");
  const Archive& group = *adam.root().nested("param_groups")->nested("param_groups/0");
  EXPECT_EQ(*group.nested("options")->get<double>("lr"), 0.1);
  EXPECT_EQ(*group.nested("options")->get<std::vector<double>>("betas"), (std::vector<double>{0.9, 0.999}));
  EXPECT_TRUE(*group.nested("options")->get<bool>("amsgrad"));
  EXPECT_EQ(contents<int64_t>(adam, *group.get<StoredTensor>("params/size")), (std::vector<int64_t>{2}));
  const std::string* first = group.get<std::string>("params/0");
  ASSERT_NE(first, nullptr);
  const Archive* state = adam.root().nested("state")->nested(*first);
  ASSERT_NE(state, nullptr);
  EXPECT_EQ(*state->get<int64_t>("step"), 2);
  EXPECT_EQ(state->get<StoredTensor>("max_exp_avg_sq")->shape, (std::vector<int64_t>{2, 3}));

  const ArchiveFile lbfgs = open("lbfgs");
  const Archive* states = lbfgs.root().nested("state");
  ASSERT_EQ(states->members.size(), 1u);
  const Archive& history = *states->nested(states->members.front().first);
  EXPECT_EQ(history.get<std::vector<StoredTensor>>("old_dirs")->size(), 2u);
  EXPECT_EQ(*history.get<int64_t>("n_iter"), 10);
  EXPECT_NE(open("sgd").root().nested("state"), nullptr);
}

TEST_P(ArchiveGolden, ReadsLoneTensorsOfTorchSave) {
  EXPECT_EQ(tensors_of(open("tensor").root(), false).size(), 1u);
  EXPECT_EQ(tensors_of(open("tensor_list").root(), false).size(), 2u);
}

}  // namespace
}  // namespace ckpt::format
