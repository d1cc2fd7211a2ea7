// The tree that state.pt (core/format/state_layout.h) has in memory on its way to the file.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/format/state_layout.h"

namespace ckpt::training {

using format::kHeadPart;
using format::kRandomPart;
using format::kStateVersion;

/// One level of the archive, names not escaped.
struct Node {
  struct Leaf {
    std::string name;
    at::Tensor tensor;
    bool is_buffer = false;
    bool owned = false;  ///< made for the snapshot: needs no copy
  };
  struct Text {
    std::string name;
    std::function<std::string()> make;  ///< called where the archive is written, off the training thread
  };

  std::vector<Leaf> tensors;
  /// Tensors below this level: each dot in a name makes a level when the archive is written.
  std::vector<Leaf> dotted;
  std::vector<std::pair<std::string, int64_t>> numbers;
  std::vector<Text> texts;
  std::deque<std::pair<std::string, Node>> children;  // references stay valid while it grows

  Node& child(std::string name) { return children.emplace_back(std::move(name), Node()).second; }
};

/// The levels of `dotted`. Where a name is also the beginning of another ("a" and "a.b"), the longer one keeps
/// its dot, which reads back as the same name. Names are unique.
Node with_levels(const std::vector<Node::Leaf>& dotted);

/// Visits all tensors below `node`, with names joined by dots.
void for_each_tensor(Node& node, const std::string& prefix,
                     const std::function<void(std::string name, Node::Leaf& leaf)>& visit);

}  // namespace ckpt::training
