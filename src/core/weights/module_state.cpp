#include "core/weights/module_state.h"

#include <memory>
#include <utility>

#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/format/state_layout.h"
#include "core/weights/module_metadata.h"
#include "core/weights/python_optimizer.h"
#include "core/weights/state_tree.h"

namespace ckpt::weights {
namespace {

constexpr uint64_t kMaxLevels = 1'000'000;

void require_plain(const Weights& weights, const Tensor& tensor) {
  const char* what = tensor.stored.layout != format::TensorLayout::kStrided ? "quantized or sparse"
                     : tensor.stored.big_endian                             ? "big-endian"
                     : tensor.file != 0                                     ? "in one of several files"
                                                                            : nullptr;
  if (what == nullptr) return;
  throw Error(ErrorCode::kUnsupported, weights.path(),
              "tensor " + quote(tensor.name) + " is " + what + ": convert the file first", {.tensor = tensor.name});
}

}  // namespace

format::ArchiveFile module_state_of(const Weights& weights, const std::string& part,
                                    const std::set<std::string>* parameters) {
  std::vector<std::pair<std::string, format::ArchiveValue>> values;
  values.reserve(weights.tensors().size());
  std::vector<std::string_view> names;
  for (const Tensor& tensor : weights.tensors()) {
    require_plain(weights, tensor);
    format::StoredTensor stored = tensor.stored;
    stored.is_parameter = parameters ? parameters->contains(tensor.name) : may_be_parameter(tensor);
    values.emplace_back(tensor.name, std::move(stored));
    names.push_back(tensor.name);
  }
  const std::vector<std::string> levels = empty_levels(weights.module_metadata(), std::move(names));
  auto root = std::make_shared<format::Archive>();
  std::shared_ptr<const format::Archive> tree = StateTree(weights.path(), kMaxLevels).make(std::move(values), levels);
  root->members.emplace_back(format::kHeadPart, std::make_shared<const format::Archive>());
  root->members.emplace_back(format::escape_name(part), std::move(tree));
  root->index();
  return format::ArchiveFile(weights.files().front(), std::move(root));
}

std::set<std::string> parameters_of(const format::ArchiveFile& optimizer_state) {
  std::set<std::string> names;
  const format::Archive* part = optimizer_state.root().nested("optimizer");
  const std::string* text = part ? part->get<std::string>("description") : nullptr;
  if (!text) return names;
  const std::string& path = optimizer_state.file().path();
  const nlohmann::json description = parse_json(*text, path);
  try {
    for (const auto& group : description.at("groups")) {
      for (const auto& name : group.at("parameters")) {
        const auto& full = name.get_ref<const std::string&>();
        names.insert(full.substr(full.find('/') + 1));
      }
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kCorrupt, path, std::string("part \"optimizer\": \"description\": ") + error.what());
  }
  return names;
}

}  // namespace ckpt::weights
