// state.pt: what a TrainingState is in a file, and the tree that it has in memory on its way there.
//
// One archive of torch::serialize. Names that LibTorch cannot read back are escaped (format::escape_name). At the top:
//   ckpt          `version` (int, 1) and `description`, a JSON text:
//                 {"parts": {name: {"kind"}}, "epoch", "iteration", "metrics": {}, "best_metric": number or null,
//                  "metadata": {}}
//   rng           `cpu`, `cuda0`, `cuda1`, ...: byte tensors, the states of the generators
//   <part>        one archive for each part, by kind:
//     module      what torch::nn::Module::save writes: parameters and buffers, an archive for each child
//     tensors     the same form; dots in names make levels
//     optimizer   `description`: {"type", "groups": [{"options": {}, "parameters": [name]}], "state": {name: {field:
//                 number}}} and the archive `state`: <field>/<name of the parameter>, dots in both making levels. The
//                 parameters that have a state are the names in "state". LBFGS: one state, of flat vectors in the order
//                 of "parameters", lists of tensors as <field>.0, <field>.1, ...
//     scheduler   `description`: {"type", "hyperparameters": {}, "counters": {}}
//     sampler     `description`: {"size", "seed", "shuffle", "epoch", "first", "batches", "batch_size"}
//     scaler      `description`: {"scale", "growth_factor", "backoff_factor", "growth_interval", "growth_tracker"}
//     custom      `description`: {"type", "values"} and the archive `tensors`, dots in names making levels
// Names of parameters are `<part>/<qualified name>`. Floating numbers are as json_number() writes them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace ckpt::training {

inline constexpr int64_t kStateVersion = 1;
inline constexpr const char* kHeadPart = "ckpt";
inline constexpr const char* kRandomPart = "rng";

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
