#include "core/weights/values.h"

#include "core/base/json.h"
#include "core/format/archive.h"
#include "core/weights/python_values.h"

namespace ckpt::weights {
namespace {

using format::PickleNode;
using format::TorchKind;
using nlohmann::json;

class Walk {
 public:
  explicit Walk(const format::TorchFile& file)
      : file_(file), escaped_(file.is_training_state()), bytes_left_(file.memory_left() / kCostOfText) {}

  /// Discarded: a tensor, or a level of tensors alone.
  json value(PickleNode node, int depth) {
    if (depth > kMaxDepth || left_ == 0) return json(json::value_t::discarded);
    --left_;
    const format::Pickle& pickle = file_.pickle();
    switch (file_.kind(node)) {
      case TorchKind::kTensor:
        return json(json::value_t::discarded);
      case TorchKind::kNone:
        return nullptr;
      case TorchKind::kBool:
        return pickle.boolean(node);
      case TorchKind::kInt:
        return pickle.integer(node);
      case TorchKind::kFloat:
        return json_number(pickle.number(node));
      case TorchKind::kText:
        if (take(pickle.text(node).size())) return std::string(pickle.text(node));
        [[fallthrough]];
      case TorchKind::kBytes:
        return "<" + std::to_string(pickle.text(node).size()) + " bytes>";
      case TorchKind::kDict:
      case TorchKind::kModule:
        return level(node, depth);
      case TorchKind::kList:
        return list(node, depth);
      case TorchKind::kDType: {
        const auto dtype = file_.dtype(node);
        return dtype ? "torch." + std::string(name(*dtype)) : std::string("<torch.dtype>");
      }
      case TorchKind::kForeign:
        if (auto number = python_scalar(file_, node)) return std::move(*number);  // of numpy
        break;
      case TorchKind::kOther:
        break;
    }
    return "<" + name_of(node) + ">";
  }

 private:
  static constexpr int kMaxDepth = 64;
  static constexpr uint64_t kCostOfText = 64;  // a byte of JSON can become some 30 bytes of what it says

  /// Whether so much text more may be shown: it stands in a pickle once, however many values go by it.
  bool take(uint64_t bytes) {
    if (bytes > bytes_left_) return false;
    bytes_left_ -= bytes;
    return true;
  }

  json level(PickleNode node, int depth) {
    json object = json::object();
    const auto items = file_.items(node);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const auto key = file_.key_text(items[i]);
      if (!key || !take(key->size())) continue;
      const std::string name = escaped_ ? format::unescape_name(*key) : *key;
      json below = value(items[i + 1], depth + 1);
      if (below.is_discarded()) continue;
      if (escaped_ && name == "description" && below.is_string()) {
        below = parse_json(below.get<std::string>(), file_.path());
      }
      object[name] = std::move(below);
    }
    return object.empty() && !items.empty() ? json(json::value_t::discarded) : object;
  }

  json list(PickleNode node, int depth) {
    json array = json::array();
    const auto items = file_.items(node);
    for (const PickleNode item : items) {
      json below = value(item, depth + 1);
      if (!below.is_discarded()) array.push_back(std::move(below));
    }
    return array.empty() && !items.empty() ? json(json::value_t::discarded) : array;
  }

  /// The global that made an object.
  std::string name_of(PickleNode node) {
    const format::Pickle& pickle = file_.pickle();
    PickleNode global = node;
    if (pickle.kind(node) == format::PickleKind::kObject) global = pickle.object(node).callable;
    if (pickle.kind(global) != format::PickleKind::kGlobal) return "object";
    if (!take(pickle.module(global).size() + pickle.text(global).size())) return "object";
    return std::string(pickle.module(global)) + "." + std::string(pickle.text(global));
  }

  const format::TorchFile& file_;
  bool escaped_;
  size_t left_ = 100000;
  uint64_t bytes_left_;
};

}  // namespace

json values_of(const format::TorchFile& file) {
  json values = Walk(file).value(file.root(), 0);
  return values.is_discarded() ? json::object() : values;
}

}  // namespace ckpt::weights
