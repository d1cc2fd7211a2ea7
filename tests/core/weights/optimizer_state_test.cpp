#include "core/weights/optimizer_state.h"

#include <gtest/gtest.h>

#include "core/weights/weights_testing.h"
#include "support/temp_dir.h"

namespace ckpt::weights {
namespace {

using Parameters = std::vector<std::pair<std::string, size_t>>;

/// A state whose optimizer describes itself by `description`, without tensors.
format::ArchiveFile state_with(const std::string& path, const std::string& description) {
  test::write_all(path, "x");
  auto part = std::make_shared<format::Archive>();
  part->members.emplace_back("description", description);
  part->members.emplace_back("state", std::make_shared<const format::Archive>());
  part->index();
  auto root = std::make_shared<format::Archive>();
  root->members.emplace_back("ckpt", std::make_shared<const format::Archive>());
  root->members.emplace_back("optimizer", std::shared_ptr<const format::Archive>(std::move(part)));
  root->index();
  return format::ArchiveFile(std::make_shared<const io::File>(io::File::open(path)), std::move(root));
}

std::string sgd(const std::string& momentum, const std::string& parameters, const std::string& state = "{}") {
  return R"({"type": "SGD", "groups": [{"options": {"lr": 0.1, "momentum": )" + momentum +
         R"(, "dampening": 0, "weight_decay": 0, "nesterov": false}, "parameters": )" + parameters +
         R"(}], "state": )" + state + "}";
}

class OptimizerToWrite : public ::testing::Test {
 protected:
  format::ArchiveToWrite make(const std::string& description, const std::string& type = "") {
    const format::ArchiveFile file = state_with(dir_ / "f", description);
    return optimizer_to_write(file, type, parameters_, tensors_);
  }
  ErrorCode code_of(const std::string& description, const std::string& type = "") {
    return test::error_of([&] { make(description, type); }).code();
  }
  const test::TempDir dir_;
  std::vector<format::TensorToWrite> tensors_{{"a", DType::kFloat32, {2}}, {"b", DType::kFloat32, {3}}};
  Parameters parameters_{{"a", 0}, {"b", 1}};
};

TEST_F(OptimizerToWrite, FindsParametersByNameInAnyOrder) {
  const format::ArchiveToWrite made = make(sgd("0.9", R"(["model/b", "model/a"])"));
  const auto description = nlohmann::json::parse(std::get<std::string>(made.members.at(0).second));
  EXPECT_EQ(description["groups"][0]["parameters"], (nlohmann::json{"model/b", "model/a"}));
  EXPECT_EQ(description["type"], "SGD");
}

TEST_F(OptimizerToWrite, CountsATensorOfTwoNamesOnceByName) {
  tensors_.push_back({"c", DType::kFloat32, {2}, {}, true, 0});
  parameters_.emplace_back("c", 2);
  EXPECT_NO_THROW(make(sgd("0.9", R"(["model/a", "model/b"])")));
  EXPECT_NO_THROW(make(sgd("0.9", R"(["model/a", "model/b", "model/a"])")));
}

TEST_F(OptimizerToWrite, RefusesWhatDoesNotFit) {
  const std::string both = R"(["model/a", "model/b"])";
  EXPECT_EQ(code_of(sgd("0.9", R"(["model/a"])")), ErrorCode::kMismatch);
  EXPECT_EQ(code_of(sgd("0.9", R"(["model/a", "model/x"])")), ErrorCode::kMismatch);
  EXPECT_EQ(code_of(sgd("\"much\"", both)), ErrorCode::kMismatch);
  EXPECT_EQ(code_of(sgd("0.9", both, R"({"model/x": {}})")), ErrorCode::kMismatch);
  EXPECT_EQ(code_of(sgd("0.9", both, R"({"model/a": {"step": 1}})")), ErrorCode::kMismatch);
  EXPECT_EQ(code_of(sgd("0.9", both), "adam"), ErrorCode::kMismatch);
  EXPECT_EQ(code_of(R"({"type": "Lion", "groups": [{"options": {"lr": 1}, "parameters": []}], "state": {}})"),
            ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(R"({"type": "SGD", "groups": [], "state": {}})"), ErrorCode::kMismatch);
}

TEST_F(OptimizerToWrite, ADescriptionOfAnotherFormIsDamage) {
  for (const char* description :
       {"{", "[]", "{}", R"({"type": 1, "groups": [], "state": {}})", R"({"type": "SGD", "groups": 1, "state": {}})",
        R"({"type": "SGD", "groups": [{"options": 1, "parameters": []}], "state": {}})",
        R"({"type": "SGD", "groups": [{"options": {}, "parameters": [1]}], "state": {}})"}) {
    EXPECT_EQ(code_of(description), ErrorCode::kCorrupt) << description;
  }
}

}  // namespace
}  // namespace ckpt::weights
