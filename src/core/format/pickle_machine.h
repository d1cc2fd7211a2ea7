// The virtual machine that runs a pickle stream into a Pickle. Only pickle_machine.cpp, pickle_opcodes.cpp and
// pickle_text.cpp need it.
#pragma once

#include <array>
#include <deque>
#include <string>
#include <vector>

#include "core/format/pickle.h"

namespace ckpt::format {

class PickleMachine {
 public:
  PickleMachine(Pickle& pickle, const std::string& path, uint64_t base, uint64_t memory);
  /// Until STOP.
  void run();

 private:
  using Kind = PickleKind;
  using Node = PickleNode;

  /// Each runs `opcode` if it is one of its own.
  bool run_scalar(uint8_t opcode);
  bool run_container(uint8_t opcode);
  bool run_object(uint8_t opcode);
  bool run_stack(uint8_t opcode);
  bool run_text_line(uint8_t opcode);  // protocol 0: arguments are lines of text

  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void unsupported(const std::string& message) const;
  void check_memory() const;

  /// The next bytes of the stream.
  ByteView take(uint64_t bytes);
  template <class T>
  T le() {
    return load_le<T>(take(sizeof(T)).data());
  }
  std::string_view line();

  Node add(Kind kind, uint32_t a, uint64_t b);
  Node add_text(Kind kind, ByteView in_stream);
  Node add_owned(Kind kind, std::string_view text);
  uint32_t add_items(uint64_t size);
  Node add_container(Kind kind, size_t first_on_stack);
  Node add_global(Node module, Node name);
  Node add_object(Node callable, Node arguments, Node keywords, bool is_new);
  void append(Node container, std::span<const Node> items);
  /// Where APPEND or SETITEM on `target` puts its items: itself, or a container of the object.
  Node items_of(Node target, Kind kind);

  void push(Node node);
  void push_int(int64_t value);
  void push_long(ByteView bytes);
  Node pop();
  Node top() const;
  /// Removes the last mark; what lies above it stays on the stack, from the place returned.
  size_t pop_mark();
  void append_above(size_t mark, Kind kind);
  void memoize(uint64_t index);
  void recall(uint64_t index);
  void build();

  // run_text_line's parts.
  int64_t integer_line(std::string_view text);
  std::string unquoted(std::string_view text);
  std::string unescaped_unicode(std::string_view text);

  Pickle& pickle_;
  const std::string& path_;
  uint64_t base_;
  uint64_t memory_;
  size_t position_ = 0;
  size_t opcode_position_ = 0;
  std::vector<Node> stack_;
  std::vector<size_t> marks_;
  std::deque<Node> memo_;  // never copies what it holds to grow
  std::array<Node, 1024> integers_;
  uint64_t memoized_ = 0;
  Node none_, true_, false_, empty_tuple_;
};

}  // namespace ckpt::format
