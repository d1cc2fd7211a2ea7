#include "libtorch/training/snapshot.h"

#include <torch/serialize/output-archive.h>

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>

#include "core/base/quote.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/training/snapshot_impl.h"

namespace ckpt::training {
namespace {

void build(torch::serialize::OutputArchive& archive, const Node& node) {
  const auto write_children = [&](const Node& from) {
    for (const auto& [name, child] : from.children) {
      torch::serialize::OutputArchive nested(archive.compilation_unit());
      build(nested, child);
      archive.write(format::escape_name(name), nested);
    }
  };
  const auto write_tensors = [&](const Node& from) {
    for (const Node::Leaf& leaf : from.tensors) {
      archive.write(format::escape_name(leaf.name), leaf.tensor, leaf.is_buffer);
    }
  };
  for (const auto& [name, number] : node.numbers) archive.write(format::escape_name(name), c10::IValue(number));
  for (const Node::Text& text : node.texts) archive.write(format::escape_name(text.name), c10::IValue(text.make()));
  write_tensors(node);
  write_children(node);
  if (!node.dotted.empty()) {
    const Node levels = with_levels(node.dotted);
    write_tensors(levels);
    write_children(levels);
  }
}

class TreeCopier {
 public:
  explicit TreeCopier(std::vector<format::TensorToWrite>& tensors) : tensors_(tensors) {}

  format::ArchiveToWrite copy(const Node& node, const std::string& prefix) {
    format::ArchiveToWrite level;
    for (const auto& [name, number] : node.numbers) level.members.emplace_back(format::escape_name(name), number);
    for (const Node::Text& text : node.texts) level.members.emplace_back(format::escape_name(text.name), text.make());
    add(node, prefix, level);
    if (!node.dotted.empty()) add(with_levels(node.dotted), prefix, level);
    return level;
  }

 private:
  void add(const Node& node, const std::string& prefix, format::ArchiveToWrite& level) {
    for (const Node::Leaf& leaf : node.tensors) {
      level.members.emplace_back(format::escape_name(leaf.name), place(leaf, prefix + leaf.name));
    }
    for (const auto& [name, child] : node.children) {
      level.members.emplace_back(format::escape_name(name),
                                 std::make_shared<const format::ArchiveToWrite>(copy(child, prefix + name + ".")));
    }
  }

  format::TensorPlace place(const Node::Leaf& leaf, const std::string& name) {
    const at::Tensor& tensor = leaf.tensor;
    const ByteView bytes(static_cast<const std::byte*>(tensor.nbytes() == 0 ? nullptr : tensor.data_ptr()),
                         tensor.nbytes());
    const size_t index = tensors_.size();
    format::TensorToWrite made{
        name, *bridge::dtype_of(tensor.scalar_type()), tensor.sizes().vec(), bytes, tensor.requires_grad(), -1};
    if (!bytes.empty()) {
      const size_t first = places_.emplace(std::tuple(bytes.data(), made.dtype, made.shape), index).first->second;
      if (first != index) {
        made.tied_to = static_cast<int64_t>(first);
        made.data = {};
      }
    }
    tensors_.push_back(std::move(made));
    return {index};
  }

  std::vector<format::TensorToWrite>& tensors_;
  std::map<std::tuple<const std::byte*, DType, std::vector<int64_t>>, size_t> places_;
};

// Memory that stays as it is while the file is written: what lies inside needs no copy on its way.
class StableMemory {
 public:
  void add(const at::Tensor& tensor) {
    if (tensor.nbytes() == 0) return;
    const auto* begin = static_cast<const std::byte*>(tensor.data_ptr());
    ranges_.emplace_back(begin, begin + tensor.nbytes());
  }
  void sort() { std::sort(ranges_.begin(), ranges_.end()); }

  bool holds(ByteView bytes) const {
    auto after = std::upper_bound(ranges_.begin(), ranges_.end(), bytes.data(),
                                  [](const std::byte* at, const auto& range) { return at < range.first; });
    return after != ranges_.begin() && bytes.data() + bytes.size() <= std::prev(after)->second;
  }

 private:
  std::vector<std::pair<const std::byte*, const std::byte*>> ranges_;
};

}  // namespace

Snapshot::Snapshot(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Snapshot::Snapshot(Snapshot&&) noexcept = default;
Snapshot& Snapshot::operator=(Snapshot&&) noexcept = default;
Snapshot::~Snapshot() = default;

const run::CheckpointHead& Snapshot::head() const { return impl_->head; }

uint64_t Snapshot::expected_bytes() const {
  // A record costs its header, its name, its padding and its entry in the directory; the pickle names each tensor.
  return impl_->tensor_bytes + impl_->tensors * 512 + 65536;
}

void Snapshot::write(io::BlockWriter& writer) const {
  bridge::wrap_errors("", "writing state.pt", [&] {
    StableMemory stable;
    for_each_tensor(impl_->root, "", [&](const std::string&, Node::Leaf& leaf) { stable.add(leaf.tensor); });
    stable.sort();
    torch::serialize::OutputArchive archive;
    build(archive, impl_->root);
    // LibTorch aborts or hides it where a writer returns short, so the callback never does: finish() tells of errors.
    archive.save_to([&](const void* data, size_t size) {
      const ByteView bytes(static_cast<const std::byte*>(data), size);
      if (size >= kStableFrom && stable.holds(bytes)) {
        writer.append_stable(bytes);
      } else {
        writer.append(bytes);
      }
      return size;
    });
  });
}

format::ArchiveToWrite Snapshot::tree(std::vector<format::TensorToWrite>& tensors) const {
  return TreeCopier(tensors).copy(impl_->root, "");
}

bool Snapshot::holds_weights(const std::string& part) const {
  return std::any_of(impl_->weights.begin(), impl_->weights.end(), [&](const auto& one) { return one.first == part; });
}

Weights Snapshot::weights() const {
  Weights weights;
  std::unordered_map<const void*, std::pair<std::string, at::Tensor>> kept;  // by memory: ties share theirs
  for (auto& [part, node] : impl_->weights) {
    const std::string prefix = impl_->weights.size() == 1 ? "" : part + ".";
    for_each_tensor(*node, prefix, [&](const std::string& name, Node::Leaf& leaf) {
      const at::Tensor& tensor = leaf.tensor;
      const void* memory = tensor.nbytes() == 0 ? nullptr : tensor.data_ptr();
      const auto [first, fresh] = kept.emplace(memory, std::pair(name, tensor));
      const auto& [first_name, first_tensor] = first->second;
      if (memory != nullptr && !fresh && first_tensor.sizes() == tensor.sizes()) {
        weights.ties.emplace(name, first_name);
        return;
      }
      weights.tensors.push_back({name, *bridge::dtype_of(tensor.scalar_type()), tensor.sizes().vec(),
                                 ByteView(static_cast<const std::byte*>(memory), tensor.nbytes())});
    });
  }
  return weights;
}

}  // namespace ckpt::training
