#include "core/format/pickle_machine.h"

#include <algorithm>
#include <bit>

#include "core/base/quote.h"

namespace ckpt::format {
namespace {

// Far below where a place in an arena would not fit its 32 bits.
constexpr uint64_t kMaxStreamBytes = uint64_t{1} << 30;

std::string hex_of(uint8_t opcode) {
  constexpr char kDigits[] = "0123456789abcdef";
  return {'0', 'x', kDigits[opcode >> 4], kDigits[opcode & 15]};
}

}  // namespace

Pickle Pickle::parse(std::vector<std::byte> bytes, const std::string& path, uint64_t base, uint64_t memory) {
  Pickle pickle;
  pickle.bytes_ = std::move(bytes);
  PickleMachine(pickle, path, base, memory).run();
  return pickle;
}

PickleMachine::PickleMachine(Pickle& pickle, const std::string& path, uint64_t base, uint64_t memory)
    : pickle_(pickle), path_(path), base_(base), memory_(memory) {
  if (pickle_.bytes_.size() > kMaxStreamBytes) fail("a pickle of more than 1 GiB");
  none_ = add(Kind::kNone, 0, 0);
  true_ = add(Kind::kBool, 0, 1);
  false_ = add(Kind::kBool, 0, 0);
  empty_tuple_ = add(Kind::kTuple, 0, 0);
}

void PickleMachine::run() {
  while (true) {
    opcode_position_ = position_;
    if (position_ == pickle_.bytes_.size()) fail("pickle: it ends without STOP");
    const uint8_t opcode = le<uint8_t>();
    if (opcode == '.') break;
    if (!run_scalar(opcode) && !run_container(opcode) && !run_object(opcode) && !run_stack(opcode) &&
        !run_text_line(opcode)) {
      fail("pickle: unknown opcode " + hex_of(opcode));
    }
    check_memory();
  }
  if (stack_.size() != 1 || !marks_.empty()) {
    fail("pickle: expected one value at STOP, found " + std::to_string(stack_.size()) + " and " +
         std::to_string(marks_.size()) + " marks");
  }
  pickle_.root_ = stack_.front();
  pickle_.length_ = position_;
}

void PickleMachine::fail(const std::string& message) const {
  throw Error(ErrorCode::kCorrupt, path_, message, {.offset = base_ + opcode_position_});
}

void PickleMachine::unsupported(const std::string& message) const {
  throw Error(ErrorCode::kUnsupported, path_, message, {.offset = base_ + opcode_position_});
}

void PickleMachine::check_memory() const {
  const uint64_t slots = stack_.size() + memo_.size() + 2 * marks_.size();
  if (pickle_.memory() + 3 * sizeof(Node) * slots > memory_) {
    fail("pickle: its values take more than the " + std::to_string(memory_) + " bytes allowed");
  }
}

ByteView PickleMachine::take(uint64_t bytes) {
  const size_t left = pickle_.bytes_.size() - position_;
  if (bytes > left) {
    fail("pickle: an argument of " + std::to_string(bytes) + " bytes where " + std::to_string(left) + " are left");
  }
  const ByteView taken = ByteView(pickle_.bytes_).subspan(position_, static_cast<size_t>(bytes));
  position_ += static_cast<size_t>(bytes);
  return taken;
}

PickleNode PickleMachine::add(Kind kind, uint32_t a, uint64_t b) {
  pickle_.nodes_.push_back({kind, a, b});
  return static_cast<Node>(pickle_.nodes_.size() - 1);
}

PickleNode PickleMachine::add_text(Kind kind, ByteView in_stream) {
  const auto offset = static_cast<uint64_t>(in_stream.data() - pickle_.bytes_.data());
  return add(kind, 0, offset << 32 | in_stream.size());
}

PickleNode PickleMachine::add_owned(Kind kind, std::string_view text) {
  const uint64_t offset = pickle_.owned_.size();
  pickle_.owned_ += text;
  return add(kind, 1, offset << 32 | text.size());
}

PickleNode PickleMachine::add_container(Kind kind, size_t first_on_stack) {
  const auto first = static_cast<uint32_t>(pickle_.children_.size());
  const uint64_t size = stack_.size() - first_on_stack;
  pickle_.children_.insert(pickle_.children_.end(), stack_.begin() + static_cast<ptrdiff_t>(first_on_stack),
                           stack_.end());
  stack_.resize(first_on_stack);
  return add(kind, first, size << 32 | size);
}

PickleNode PickleMachine::add_global(Node module, Node name) {
  const auto is_text = [&](Node node) { return pickle_.kind(node) == Kind::kText; };
  if (!is_text(module) || !is_text(name)) fail("pickle: a global whose module or name is no text");
  const Node node = add(Kind::kGlobal, 0, uint64_t{module} << 32 | name);
  pickle_.globals_.push_back(node);
  return node;
}

PickleNode PickleMachine::add_object(Node callable, Node arguments, Node keywords, bool is_new) {
  pickle_.objects_.push_back({.callable = callable, .arguments = arguments, .keywords = keywords, .is_new = is_new});
  return add(Kind::kObject, static_cast<uint32_t>(pickle_.objects_.size() - 1), 0);
}

void PickleMachine::append(Node container, std::span<const Node> items) {
  Pickle::Node& node = pickle_.nodes_[container];
  std::vector<Node>& children = pickle_.children_;
  const uint64_t size = static_cast<uint32_t>(node.b), capacity = node.b >> 32;
  const uint64_t wanted = size + items.size();
  if (wanted > capacity) {
    // In place at the end of the arena, else moved there with room to grow: linear in all, however lists take turns.
    const uint64_t room = node.a + capacity == children.size() ? wanted : std::max(wanted, 2 * capacity);
    if (node.a + capacity != children.size()) {
      const size_t from = node.a;
      node.a = static_cast<uint32_t>(children.size());
      children.resize(children.size() + static_cast<size_t>(room), none_);
      std::copy_n(children.begin() + static_cast<ptrdiff_t>(from), size, children.begin() + node.a);
    } else {
      children.resize(static_cast<size_t>(node.a + room), none_);
    }
    node.b = room << 32 | size;
  }
  std::copy(items.begin(), items.end(), children.begin() + node.a + static_cast<ptrdiff_t>(size));
  node.b = (node.b >> 32) << 32 | wanted;
}

PickleNode PickleMachine::items_of(Node target, Kind kind) {
  const Kind target_kind = pickle_.kind(target);
  if (target_kind == kind) return target;
  if (target_kind != Kind::kObject || kind == Kind::kSet) fail("pickle: items for a value that can take none");
  PickleObject& object = pickle_.objects_[pickle_.nodes_[target].a];
  Node& items = kind == Kind::kList ? object.list : object.dict;
  if (items == kNoNode) items = add(kind, static_cast<uint32_t>(pickle_.children_.size()), 0);
  return items;
}

void PickleMachine::push(Node node) { stack_.push_back(node); }

PickleNode PickleMachine::top() const {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("pickle: the stack is empty where a value is needed");
  return stack_.back();
}

PickleNode PickleMachine::pop() {
  const Node node = top();
  stack_.pop_back();
  return node;
}

size_t PickleMachine::pop_mark() {
  if (marks_.empty()) fail("pickle: no mark where one is needed");
  const size_t mark = marks_.back();
  marks_.pop_back();
  return mark;
}

void PickleMachine::append_above(size_t mark, Kind kind) {
  const std::vector<Node> items(stack_.begin() + static_cast<ptrdiff_t>(mark), stack_.end());
  if (kind == Kind::kDict && items.size() % 2 != 0) fail("pickle: a key without a value");
  stack_.resize(mark);
  append(items_of(top(), kind), items);
}

void PickleMachine::memoize(uint64_t index) {
  // Picklers number from 0 or 1 upwards; a number far ahead would only make the table huge.
  if (index > memoized_ + 1) fail("pickle: memo " + std::to_string(index) + " after " + std::to_string(memoized_));
  if (index >= memo_.size()) memo_.resize(static_cast<size_t>(index) + 1, kNoNode);
  PickleNode& place = memo_[static_cast<size_t>(index)];
  if (place == kNoNode) ++memoized_;
  place = top();
}

void PickleMachine::recall(uint64_t index) {
  if (index >= memo_.size() || memo_[static_cast<size_t>(index)] == kNoNode) {
    fail("pickle: memo " + std::to_string(index) + " was never set");
  }
  push(memo_[static_cast<size_t>(index)]);
}

void PickleMachine::push_long(ByteView bytes) {
  if (bytes.size() > 8) return push(add_text(Kind::kBigInt, bytes));
  uint64_t value = !bytes.empty() && (bytes.back() & std::byte{0x80}) != std::byte{0} ? UINT64_MAX : 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | std::to_integer<uint64_t>(bytes[i]);
  push_int(static_cast<int64_t>(value));
}

bool PickleMachine::run_scalar(uint8_t opcode) {
  switch (opcode) {
    case 'N':
      push(none_);
      return true;
    case 0x88:
      push(true_);
      return true;
    case 0x89:
      push(false_);
      return true;
    case 'K':
      push_int(le<uint8_t>());
      return true;
    case 'M':
      push_int(le<uint16_t>());
      return true;
    case 'J':
      push_int(le<int32_t>());
      return true;
    case 0x8a:
      push_long(take(le<uint8_t>()));
      return true;  // LONG1
    case 0x8b:
      push_long(take(le<uint32_t>()));
      return true;  // LONG4: a negative length is beyond every stream
    case 'G': {
      const uint64_t big_endian = le<uint64_t>();
      push(add(Kind::kFloat, 0, __builtin_bswap64(big_endian)));
      return true;
    }
    case 'X':
      push(add_text(Kind::kText, take(le<uint32_t>())));
      return true;
    case 0x8c:
      push(add_text(Kind::kText, take(le<uint8_t>())));
      return true;
    case 0x8d:
      push(add_text(Kind::kText, take(le<uint64_t>())));
      return true;
    case 'T':
      push(add_text(Kind::kText, take(le<uint32_t>())));
      return true;  // Python 2's str
    case 'U':
      push(add_text(Kind::kText, take(le<uint8_t>())));
      return true;
    case 'B':
      push(add_text(Kind::kBytes, take(le<uint32_t>())));
      return true;
    case 'C':
      push(add_text(Kind::kBytes, take(le<uint8_t>())));
      return true;
    case 0x8e:
      push(add_text(Kind::kBytes, take(le<uint64_t>())));
      return true;
    case 0x96:
      push(add_text(Kind::kBytes, take(le<uint64_t>())));
      return true;  // BYTEARRAY8
    default:
      return false;
  }
}

bool PickleMachine::run_container(uint8_t opcode) {
  const auto tuple_of = [&](size_t count) {
    if (stack_.size() - (marks_.empty() ? 0 : marks_.back()) < count) fail("pickle: too few values for a tuple");
    push(add_container(Kind::kTuple, stack_.size() - count));
  };
  switch (opcode) {
    case ')':
      push(empty_tuple_);
      return true;
    case ']':
      push(add_container(Kind::kList, stack_.size()));
      return true;
    case '}':
      push(add_container(Kind::kDict, stack_.size()));
      return true;
    case 0x8f:
      push(add_container(Kind::kSet, stack_.size()));
      return true;
    case 0x85:
      tuple_of(1);
      return true;
    case 0x86:
      tuple_of(2);
      return true;
    case 0x87:
      tuple_of(3);
      return true;
    case 't':
      push(add_container(Kind::kTuple, pop_mark()));
      return true;
    case 'l':
      push(add_container(Kind::kList, pop_mark()));
      return true;
    case 'd': {
      const size_t mark = pop_mark();
      if ((stack_.size() - mark) % 2 != 0) fail("pickle: a key without a value");
      push(add_container(Kind::kDict, mark));
      return true;
    }
    case 0x91:
      push(add_container(Kind::kFrozenSet, pop_mark()));
      return true;
    case 'a': {
      const Node item = pop();
      append(items_of(top(), Kind::kList), std::span(&item, 1));
      return true;
    }
    case 's': {
      const Node value = pop(), key = pop();
      const Node pair[] = {key, value};
      append(items_of(top(), Kind::kDict), pair);
      return true;
    }
    case 'e':
      append_above(pop_mark(), Kind::kList);
      return true;
    case 'u':
      append_above(pop_mark(), Kind::kDict);
      return true;
    case 0x90:
      append_above(pop_mark(), Kind::kSet);
      return true;
    default:
      return false;
  }
}

void PickleMachine::build() {
  const Node state = pop(), target = top();
  if (pickle_.kind(target) != Kind::kObject) fail("pickle: BUILD of a value that is no object");
  PickleObject& object = pickle_.objects_[pickle_.nodes_[target].a];
  if (object.state != kNoNode) fail("pickle: BUILD twice of one object");
  object.state = state;
}

bool PickleMachine::run_object(uint8_t opcode) {
  switch (opcode) {
    case 0x93: {  // STACK_GLOBAL
      const Node name = pop(), module = pop();
      push(add_global(module, name));
      return true;
    }
    case 'R':
    case 0x81: {  // REDUCE, NEWOBJ
      const Node arguments = pop(), callable = pop();
      push(add_object(callable, arguments, kNoNode, opcode != 'R'));
      return true;
    }
    case 0x92: {  // NEWOBJ_EX
      const Node keywords = pop(), arguments = pop(), callable = pop();
      push(add_object(callable, arguments, keywords, true));
      return true;
    }
    case 'o': {  // OBJ: mark, class, arguments
      const size_t mark = pop_mark();
      if (stack_.size() <= mark) fail("pickle: no class for an object");
      const Node callable = stack_[mark];
      const Node arguments = add_container(Kind::kTuple, mark + 1);
      pop();
      push(add_object(callable, arguments, kNoNode, false));
      return true;
    }
    case 'b':
      build();
      return true;
    case 'Q': {
      top();  // there must be an id
      push(add_container(Kind::kPersistent, stack_.size() - 1));
      return true;
    }
    case 0x82:
    case 0x83:
    case 0x84:
      unsupported("pickle: a code of the extension registry");
    case 0x97:
    case 0x98:
      unsupported("pickle: a buffer that lies outside the stream");
    default:
      return false;
  }
}

bool PickleMachine::run_stack(uint8_t opcode) {
  switch (opcode) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case '0':
      // Python takes a mark off where nothing lies above it.
      if (!marks_.empty() && marks_.back() == stack_.size())
        marks_.pop_back();
      else
        pop();
      return true;
    case '1':
      stack_.resize(pop_mark());
      return true;
    case '2':
      push(top());
      return true;
    case 'q':
      memoize(le<uint8_t>());
      return true;
    case 'r':
      memoize(le<uint32_t>());
      return true;
    case 0x94:
      memoize(memoized_);
      return true;  // MEMOIZE
    case 'h':
      recall(le<uint8_t>());
      return true;
    case 'j':
      recall(le<uint32_t>());
      return true;
    case 0x80:
      if (const uint8_t protocol = le<uint8_t>(); protocol > 5) fail("pickle: protocol " + std::to_string(protocol));
      return true;
    case 0x95:
      if (const uint64_t frame = le<uint64_t>(); frame > pickle_.bytes_.size() - position_) {
        fail("pickle: a frame of " + std::to_string(frame) + " bytes reaches past the end");
      }
      return true;
    default:
      return false;
  }
}

}  // namespace ckpt::format
