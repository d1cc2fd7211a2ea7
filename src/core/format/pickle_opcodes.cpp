// The opcodes whose arguments are binary; those of protocol 0 are in pickle_text.cpp.
#include "core/format/pickle_machine.h"

namespace ckpt::format {

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
