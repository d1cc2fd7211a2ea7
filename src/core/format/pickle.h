// Python's pickle (protocols 0 to 5) as inert data: the virtual machine builds a graph of values and never imports,
// calls or runs anything. A global is its name; what a stream asks to be called is an object with its callable and its
// arguments. Meaning is given to both elsewhere, by a list of what is known.
//
// Nodes live in one arena and name each other by number, so shared values stay shared, a value may hold itself, and
// depth costs nothing, neither to parse nor to destroy. Who walks the graph must bound depth and guard against cycles.
//
// Thread rule: a Pickle does not change once parsed; read it from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"
#include "core/format/pickle_arena.h"

namespace ckpt::format {

enum class PickleKind : uint8_t {
  kNone,
  kBool,
  kInt,
  kBigInt,  ///< beyond 64 bits: text() is its two's complement, little-endian
  kFloat,
  kText,
  kBytes,
  kTuple,
  kList,
  kSet,
  kFrozenSet,
  kDict,        ///< items() alternate key, value; keys in order, duplicates kept
  kGlobal,      ///< module() and text()
  kObject,      ///< what REDUCE, NEWOBJ, OBJ, INST would have made; see object()
  kPersistent,  ///< a persistent id: items() holds the id alone
};

inline constexpr PickleNode kNoNode = UINT32_MAX;

/// A call that was never made, and what the stream did to its result.
struct PickleObject {
  PickleNode callable = kNoNode;   ///< any kind: check that it is the global you know
  PickleNode arguments = kNoNode;  ///< a tuple, if the stream is well-meant
  PickleNode keywords = kNoNode;   ///< NEWOBJ_EX alone
  PickleNode state = kNoNode;      ///< by BUILD
  PickleNode list = kNoNode;       ///< a kList of what APPEND and APPENDS gave it
  PickleNode dict = kNoNode;       ///< a kDict of what SETITEM and SETITEMS gave it
  bool is_new = false;             ///< made by NEWOBJ: an instance of the class `callable`
};

class Pickle {
 public:
  /// Parses one pickle at the start of `bytes`, which are kept. `base` is their offset in the file `path`.
  /// `memory` bounds what the graph and the machine take. kCorrupt where the stream is malformed, has no STOP, leaves
  /// the stack wrong or exceeds `memory`; kUnsupported for extension codes, out-of-band buffers and decimal integers
  /// beyond 64 bits.
  static Pickle parse(std::vector<std::byte> bytes, const std::string& path, uint64_t base, uint64_t memory);

  PickleNode root() const { return root_; }
  /// Nodes are numbered from 0 to before this.
  size_t size() const { return nodes_.size(); }
  /// Bytes up to and with STOP; more may follow.
  size_t length() const { return length_; }
  /// What the graph takes, at most.
  uint64_t memory() const;

  PickleKind kind(PickleNode node) const { return nodes_[node].kind; }
  bool boolean(PickleNode node) const { return nodes_[node].b != 0; }
  int64_t integer(PickleNode node) const { return static_cast<int64_t>(nodes_[node].b); }
  double number(PickleNode node) const;
  /// kText, kBytes, kBigInt: the content; kGlobal: the name in its module.
  std::string_view text(PickleNode node) const;
  /// kGlobal.
  std::string_view module(PickleNode node) const;
  /// kTuple, kList, kSet, kFrozenSet, kDict, kPersistent.
  std::span<const PickleNode> items(PickleNode node) const;
  /// kObject.
  const PickleObject& object(PickleNode node) const { return objects_[nodes_[node].a]; }

  bool is_global(PickleNode node, std::string_view module_name, std::string_view name) const;
  /// Every global that the stream names, used or not.
  const std::vector<PickleNode>& globals() const { return globals_; }

 private:
  friend class PickleMachine;

  // What a and b mean:  kBool, kInt, kFloat: b holds the value;  text kinds: a is 1 when it lies in owned_, b is
  // offset << 32 | length;  containers: a is the first place in children_, b is capacity << 32 | size;
  // kGlobal: b is node of module << 32 | node of name;  kObject: a is the place in objects_.
  struct Node {
    PickleKind kind = PickleKind::kNone;
    uint32_t a = 0;
    uint64_t b = 0;
  };
  static_assert(sizeof(Node) == 16);

  std::vector<std::byte> bytes_;
  std::string owned_;       // texts that do not stand in bytes_ as they are
  std::deque<Node> nodes_;  // a deque never copies what it holds to grow
  PickleArena children_;
  std::deque<PickleObject> objects_;
  std::vector<PickleNode> globals_;
  PickleNode root_ = kNoNode;
  size_t length_ = 0;
};

}  // namespace ckpt::format
