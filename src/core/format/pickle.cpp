#include "core/format/pickle.h"

#include <bit>

namespace ckpt::format {

double Pickle::number(PickleNode node) const { return std::bit_cast<double>(nodes_[node].b); }

std::string_view Pickle::text(PickleNode node) const {
  const Node& value = nodes_[node];
  if (value.kind == PickleKind::kGlobal) return text(static_cast<PickleNode>(value.b));
  const std::string_view all = value.a != 0 ? std::string_view(owned_) : as_text(bytes_);
  return all.substr(static_cast<size_t>(value.b >> 32), static_cast<uint32_t>(value.b));
}

std::string_view Pickle::module(PickleNode node) const { return text(static_cast<PickleNode>(nodes_[node].b >> 32)); }

std::span<const PickleNode> Pickle::items(PickleNode node) const {
  const Node& value = nodes_[node];
  return children_.at(value.a, static_cast<uint32_t>(value.b));
}

uint64_t Pickle::memory() const {
  // A growing vector holds its old and its new block at once.
  return 3 * sizeof(PickleNode) * globals_.size() + children_.memory() + nodes_.size() * sizeof(Node) +
         objects_.size() * sizeof(PickleObject) + 3 * owned_.size();
}

bool Pickle::is_global(PickleNode node, std::string_view module_name, std::string_view name) const {
  return node != kNoNode && kind(node) == PickleKind::kGlobal && module(node) == module_name && text(node) == name;
}

}  // namespace ckpt::format
