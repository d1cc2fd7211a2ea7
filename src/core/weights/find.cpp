#include "core/weights/find.h"

#include <algorithm>

#include "core/base/quote.h"
#include "core/format/archive.h"
#include "core/format/state_layout.h"

namespace ckpt::weights {
namespace {

using format::kNoNode;
using format::PickleNode;
using format::TorchFile;
using format::TorchKind;

constexpr std::array<std::string_view, 6> kWrapperNames = {"model_state_dict", "state_dict", "model_state", "model",
                                                           "module",           "net"};
constexpr size_t kMostListed = 20;

class Finder {
 public:
  explicit Finder(const TorchFile& file) : file_(file) {}

  FoundWeights find(const OpenOptions& options) const {
    PickleNode top = file_.root();
    if (options.whole) return at(top);
    if (!options.key.empty()) top = follow(top, options.key);
    if (options.ema) return averaged(top);
    if (!options.key.empty()) return at(top);
    if (file_.is_training_state()) return part(top);
    // The members of a module are weights, whatever their names.
    if (file_.kind(top) != TorchKind::kDict) return at(top);
    if (auto found = first_with_tensors(top, kWrapperNames)) return std::move(*found);
    return at(top);
  }

 private:
  FoundWeights at(PickleNode node) const { return {node, format::tensors_below(file_, node)}; }

  /// The member of a dict, module or list, or kNoNode.
  PickleNode member(PickleNode node, std::string_view name) const {
    switch (file_.kind(node)) {
      case TorchKind::kDict:
      case TorchKind::kModule: {
        const PickleNode found =
            file_.find(node, file_.is_training_state() ? format::escape_name(name) : std::string(name));
        return found != kNoNode ? found : numbered_member(node, name);
      }
      case TorchKind::kList: {
        const auto items = file_.items(node);
        for (size_t i = 0; i < items.size(); ++i) {
          if (std::to_string(i) == name) return items[i];
        }
        return kNoNode;
      }
      default:
        return kNoNode;
    }
  }

  /// Under a key that is no text, as an optimizer's state has them.
  PickleNode numbered_member(PickleNode dict, std::string_view name) const {
    const auto items = file_.items(dict);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (file_.kind(items[i]) == TorchKind::kInt && file_.key_text(items[i]) == name) return items[i + 1];
    }
    return kNoNode;
  }

  /// Keys may hold dots themselves: the shortest that is there is tried first. kNoNode where no way leads there;
  /// `furthest` is then where the longest way ended.
  PickleNode descend(PickleNode node, std::string_view path, size_t done,
                     std::pair<size_t, PickleNode>& furthest) const {
    if (done == path.size()) return node;
    if (done > furthest.first) furthest = {done, node};
    for (size_t end = path.find('.', done);; end = path.find('.', end + 1)) {
      const std::string_view name = path.substr(done, end == std::string_view::npos ? end : end - done);
      if (const PickleNode next = member(node, name); next != kNoNode) {
        const size_t after = end == std::string_view::npos ? path.size() : end + 1;
        if (const PickleNode found = descend(next, path, after, furthest); found != kNoNode) return found;
      }
      if (end == std::string_view::npos) return kNoNode;
    }
  }

  PickleNode follow(PickleNode top, std::string_view path) const {
    std::pair<size_t, PickleNode> furthest = {0, top};
    const PickleNode found = descend(top, path, 0, furthest);
    if (found != kNoNode) return found;
    const auto [done, node] = furthest;
    const std::string where = done == 0 ? "it" : quote(path.substr(0, done - 1));
    throw Error(ErrorCode::kNotFound, file_.path(),
                "has no " + quote(path) + "; " + where + " holds " + listed(keys_of(node)));
  }

  template <size_t kCount>
  std::optional<FoundWeights> first_with_tensors(PickleNode top,
                                                 const std::array<std::string_view, kCount>& names) const {
    for (const std::string_view name : names) {
      const PickleNode node = file_.find(top, name);
      if (node == kNoNode || !is_container(node)) continue;
      FoundWeights found = at(node);
      if (!found.below.tensors.empty()) return found;
    }
    return std::nullopt;
  }

  FoundWeights averaged(PickleNode top) const {
    if (file_.kind(top) == TorchKind::kDict || file_.kind(top) == TorchKind::kModule) {
      if (auto found = first_with_tensors(top, kAveragedNames)) return std::move(*found);
    }
    throw Error(
        ErrorCode::kNotFound, file_.path(),
        "has no averaged weights (ema_state_dict, model_ema, ema, ema_model); it holds " + listed(keys_of(top)));
  }

  /// Of a training state: the model, or the only part that is weights.
  FoundWeights part(PickleNode top) const {
    const PickleNode model = file_.find(top, "model");
    if (model != kNoNode && is_weights_part("model", model)) return at(model);
    std::vector<std::string> names;
    PickleNode only = kNoNode;
    const auto items = file_.items(top);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const std::optional<std::string> name = file_.key_text(items[i]);
      if (!name || !is_weights_part(*name, items[i + 1])) continue;
      names.push_back(format::unescape_name(*name));
      only = items[i + 1];
    }
    if (names.size() == 1) return at(only);
    throw Error(ErrorCode::kNotFound, file_.path(),
                names.empty() ? "holds no weights" : "has no part \"model\"; name one of " + listed(names));
  }

  /// Modules and lists of tensors: all others describe themselves (state_layout.h).
  bool is_weights_part(std::string_view name, PickleNode node) const {
    return name != format::kHeadPart && name != format::kRandomPart && file_.kind(node) == TorchKind::kModule &&
           file_.find(node, "description") == kNoNode;
  }

  bool is_container(PickleNode node) const {
    const TorchKind kind = file_.kind(node);
    return kind == TorchKind::kDict || kind == TorchKind::kModule || kind == TorchKind::kList;
  }

  std::vector<std::string> keys_of(PickleNode node) const {
    std::vector<std::string> keys;
    const auto items = file_.items(node);
    if (file_.kind(node) == TorchKind::kList) {
      for (size_t i = 0; i < items.size(); ++i) keys.push_back(std::to_string(i));
      return keys;
    }
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const std::optional<std::string> key = file_.key_text(items[i]);
      if (key) keys.push_back(file_.is_training_state() ? format::unescape_name(*key) : *key);
      if (keys.size() > kMostListed) break;
    }
    return keys;
  }

  const TorchFile& file_;
};

}  // namespace

FoundWeights find_weights(const TorchFile& file, const OpenOptions& options) { return Finder(file).find(options); }

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMostListed); ++i) text += (i == 0 ? "" : ", ") + quote(names[i]);
  if (names.size() > kMostListed) text += ", ...";
  return text.empty() ? "nothing" : text;
}

}  // namespace ckpt::weights
