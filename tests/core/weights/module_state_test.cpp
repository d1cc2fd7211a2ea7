#include "core/weights/module_state.h"

#include <gtest/gtest.h>

#include "core/weights/weights_testing.h"
#include "support/temp_dir.h"

namespace ckpt::weights {
namespace {

/// A state whose optimizer describes itself by `description`.
format::ArchiveFile state_with(const std::string& path, const std::string& description) {
  test::write_all(path, "x");
  auto part = std::make_shared<format::Archive>();
  part->members.emplace_back("description", description);
  part->index();
  auto root = std::make_shared<format::Archive>();
  root->members.emplace_back("optimizer", std::shared_ptr<const format::Archive>(std::move(part)));
  root->index();
  return format::ArchiveFile(std::make_shared<const io::File>(io::File::open(path)), std::move(root));
}

TEST(ModuleState, ParametersAreNamedWithoutTheirPart) {
  const test::TempDir dir;
  const auto state = state_with(dir / "f", R"({"groups": [{"parameters": ["model/a.b", "c"]}, {"parameters": []}]})");
  EXPECT_EQ(parameters_of(state), (std::set<std::string>{"a.b", "c"}));
}

TEST(ModuleState, ADescriptionOfAnotherFormIsDamage) {
  const test::TempDir dir;
  for (const char* description : {"{}", "[]", R"({"groups": 1})", R"({"groups": [{"parameters": [1]}]})", "{"}) {
    const auto state = state_with(dir / "f", description);
    EXPECT_EQ(test::error_of([&] { parameters_of(state); }).code(), ErrorCode::kCorrupt) << description;
  }
}

}  // namespace
}  // namespace ckpt::weights
