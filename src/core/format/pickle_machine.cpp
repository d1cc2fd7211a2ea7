#include "core/format/pickle_machine.h"

#include <algorithm>

namespace ckpt::format {
namespace {

// Far below where a place in an arena would not fit its 32 bits.
constexpr uint64_t kMaxStreamBytes = uint64_t{1} << 30;
// Each takes little; what takes much at once checks its memory itself.
constexpr uint64_t kOpcodesBetweenChecks = 64;

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
  integers_.fill(kNoNode);
  none_ = add(Kind::kNone, 0, 0);
  true_ = add(Kind::kBool, 0, 1);
  false_ = add(Kind::kBool, 0, 0);
  empty_tuple_ = add(Kind::kTuple, add_items(0), 0);
}

void PickleMachine::run() {
  for (uint64_t opcodes = 1;; ++opcodes) {
    opcode_position_ = position_;
    if (position_ == pickle_.bytes_.size()) fail("pickle: it ends without STOP");
    const uint8_t opcode = le<uint8_t>();
    if (opcode == '.') break;
    if (!run_scalar(opcode) && !run_container(opcode) && !run_object(opcode) && !run_stack(opcode) &&
        !run_text_line(opcode)) {
      fail("pickle: unknown opcode " + hex_of(opcode));
    }
    if (opcodes % kOpcodesBetweenChecks == 0) check_memory();
  }
  check_memory();
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
  const uint64_t slots = 3 * (stack_.size() + 2 * marks_.size()) + memo_.size();
  if (pickle_.memory() + sizeof(Node) * slots > memory_) {
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

uint32_t PickleMachine::add_items(uint64_t size) {
  const uint32_t place = pickle_.children_.add(size);
  if (place == UINT32_MAX) fail("pickle: its containers hold more than can be numbered");
  check_memory();
  return place;
}

PickleNode PickleMachine::add_container(Kind kind, size_t first_on_stack) {
  const uint64_t size = stack_.size() - first_on_stack;
  const uint32_t place = add_items(size);
  std::copy(stack_.begin() + static_cast<ptrdiff_t>(first_on_stack), stack_.end(),
            pickle_.children_.at(place, size).begin());
  stack_.resize(first_on_stack);
  return add(kind, place, size << 32 | size);
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
  PickleArena& children = pickle_.children_;
  const uint64_t size = static_cast<uint32_t>(node.b), capacity = node.b >> 32;
  const uint64_t wanted = size + items.size();
  if (wanted > capacity) {
    // In place at the end of the arena, else moved there with room to grow: linear in all, however lists take turns.
    uint64_t room = wanted;
    if (!children.extend(node.a, capacity, wanted)) {
      room = std::max(wanted, 2 * capacity);
      const uint32_t place = add_items(room);
      std::copy_n(children.at(node.a, size).begin(), size, children.at(place, size).begin());
      node.a = place;
    }
    node.b = room << 32 | size;
  }
  std::copy(items.begin(), items.end(), children.at(node.a, wanted).begin() + static_cast<ptrdiff_t>(size));
  node.b = (node.b >> 32) << 32 | wanted;
}

PickleNode PickleMachine::items_of(Node target, Kind kind) {
  const Kind target_kind = pickle_.kind(target);
  if (target_kind == kind) return target;
  if (target_kind != Kind::kObject || kind == Kind::kSet) fail("pickle: items for a value that can take none");
  PickleObject& object = pickle_.objects_[pickle_.nodes_[target].a];
  Node& items = kind == Kind::kList ? object.list : object.dict;
  if (items == kNoNode) items = add(kind, add_items(0), 0);
  return items;
}

// Sizes, strides and offsets are the same few numbers all over: those met lately are not made again.
void PickleMachine::push_int(int64_t value) {
  Node& known = integers_[static_cast<uint64_t>(value) % integers_.size()];
  if (known == kNoNode || pickle_.integer(known) != value) known = add(Kind::kInt, 0, static_cast<uint64_t>(value));
  push(known);
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

}  // namespace ckpt::format
