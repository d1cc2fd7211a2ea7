#include "libtorch/training/parts.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/weights/names.h"
#include "libtorch/model/module_tensors.h"
#include "libtorch/training/shadows.h"

namespace ckpt::training {
namespace {

bool is_wrapper(const std::string& child) { return child == "module" || child == "_orig_mod"; }

[[noreturn]] void fail(const std::string& part, const std::string& text) {
  throw Error(ErrorCode::kInvalid, "", "part " + quote(part) + ": " + text);
}

// Two tensors, or a tensor and a child, of one name cannot both be in an archive.
void check_names(const Node& node, const std::string& part) {
  std::vector<std::string_view> names;
  for (const Node::Leaf& leaf : node.tensors) names.push_back(leaf.name);
  for (const auto& child : node.children) names.push_back(child.first);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail(part, "two parameters, buffers or children are called " + quote(*twice));
  for (std::string_view name : names) {
    if (!is_utf8(name)) fail(part, "the name " + quote(name) + " is not UTF-8");
  }
}

void fill(Node& node, const torch::nn::Module& module, const std::string& part) {
  model::visit_level(
      module,
      [&](const std::string& name, const at::Tensor& tensor, bool is_buffer) {
        node.tensors.push_back({name, tensor, is_buffer});
      },
      [&](const std::string& name, const torch::nn::Module& child) { fill(node.child(name), child, part); });
  check_names(node, part);
}

// A level that only wraps: no tensors, and one child called as wrappers call it.
bool wraps(const Node& node) {
  return node.tensors.empty() && node.children.size() == 1 && is_wrapper(node.children.front().first);
}

Node list_tree(const TensorList& list) {
  const size_t prefix =
      weights::wrapper_prefix(list.tensors, [](const auto& item) { return std::string_view(item.first); }).size();
  Node node;
  for (const auto& [name, tensor] : list.tensors) {
    node.dotted.push_back({name.substr(prefix), tensor, !tensor.requires_grad()});
  }
  return node;
}

// As its module's, so that plain LibTorch reads it into one.
Node averager_tree(const std::string& name, Averager& averager) {
  Averager::Shadows& shadows = averager.shadows();
  shadows.check_not_swapped("save or load");
  const std::vector<Averager::Shadows::Shadow>& list = shadows.look();
  Node node;
  fill(node, shadows.module(), name);
  size_t next = 0;
  for_each_tensor(node, "", [&](const std::string&, Node::Leaf& leaf) {
    const Averager::Shadows::Shadow& shadow = list.at(next++);
    // Shares the memory, and tells parameters as the module's own do.
    leaf.tensor = shadow.average.detach().set_requires_grad(shadow.live.requires_grad());
  });
  return node;
}

}  // namespace

const char* kind_of(const Part& part) {
  static constexpr const char* kKinds[] = {"module",    "tensors", "averager", "optimizer", "scheduler",
                                           "scheduler", "sampler", "scaler",   "custom"};
  static_assert(std::size(kKinds) == std::variant_size_v<Part>);
  return kKinds[part.index()];
}

bool holds_weights(const Part& part) {
  return std::holds_alternative<torch::nn::Module*>(part) || std::holds_alternative<TensorList>(part) ||
         std::holds_alternative<Averager*>(part);
}

Node weights_tree(const std::string& name, const Part& part) {
  if (const auto* list = std::get_if<TensorList>(&part)) return list_tree(*list);
  Node node;
  if (Averager* const* averager = std::get_if<Averager*>(&part)) {
    node = averager_tree(name, **averager);
  } else {
    fill(node, *std::get<torch::nn::Module*>(part), name);
  }
  while (wraps(node)) {
    Node inner = std::move(node.children.front().second);
    node = std::move(inner);
  }
  return node;
}

void NameTable::add(std::string name, const at::Tensor& tensor) {
  by_tensor_.emplace(tensor.unsafeGetTensorImpl(), all_.size());
  all_.emplace_back(std::move(name), tensor);
}

const std::string* NameTable::find(const at::Tensor& tensor) const {
  const auto found = by_tensor_.find(tensor.unsafeGetTensorImpl());
  return found == by_tensor_.end() ? nullptr : &all_[found->second].first;
}

std::optional<std::string> NameTable::name_of(const at::Tensor& tensor) const {
  const std::string* name = find(tensor);
  return name ? std::optional(*name) : std::nullopt;
}

at::Tensor NameTable::tensor_of(const std::string& name) const {
  if (by_name_.empty()) {
    for (size_t i = 0; i < all_.size(); ++i) by_name_.emplace(all_[i].first, i);
  }
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? at::Tensor() : all_[found->second].second;
}

NameTable names_of(const TrainingState& state) {
  NameTable names;
  for (const auto& [name, part] : state.parts().list) {
    if (!holds_weights(part)) continue;
    Node node = weights_tree(name, part);
    for_each_tensor(node, name + "/",
                    [&](std::string tensor_name, Node::Leaf& leaf) { names.add(std::move(tensor_name), leaf.tensor); });
  }
  return names;
}

const std::string& parameter_name(const NameTable& names, const at::Tensor& parameter, const std::string& optimizer,
                                  size_t group, size_t index) {
  const std::string* name = parameter.defined() ? names.find(parameter) : nullptr;
  if (!name) {
    fail(optimizer,
         "parameter " + std::to_string(index) + " of group " + std::to_string(group) + " is in no registered module");
  }
  return *name;
}

Node with_levels(const std::vector<Node::Leaf>& dotted) {
  std::unordered_set<std::string_view> names;
  for (const Node::Leaf& leaf : dotted) names.insert(leaf.name);
  Node root;
  std::unordered_map<std::string_view, Node*> levels;
  for (const Node::Leaf& leaf : dotted) {
    const std::string_view name = leaf.name;
    Node* level = &root;
    size_t begin = 0;
    for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
      const std::string_view prefix = name.substr(0, dot);
      if (names.count(prefix)) continue;
      Node*& below = levels[prefix];
      if (!below) below = &level->child(std::string(name.substr(begin, dot - begin)));
      level = below;
      begin = dot + 1;
    }
    level->tensors.push_back({std::string(name.substr(begin)), leaf.tensor, leaf.is_buffer, leaf.owned});
  }
  return root;
}

void for_each_tensor(Node& node, const std::string& prefix,
                     const std::function<void(std::string name, Node::Leaf& leaf)>& visit) {
  for (Node::Leaf& leaf : node.tensors) visit(prefix + leaf.name, leaf);
  for (Node::Leaf& leaf : node.dotted) visit(prefix + leaf.name, leaf);
  for (auto& [name, child] : node.children) for_each_tensor(child, prefix + name + ".", visit);
}

}  // namespace ckpt::training
