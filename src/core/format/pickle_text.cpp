// The opcodes of protocol 0, whose arguments are lines of text (GLOBAL, INST and PERSID came to stay).
#include <bit>
#include <charconv>

#include "core/base/quote.h"
#include "core/format/pickle_machine.h"

namespace ckpt::format {
namespace {

/// The value of `digits` hex digits at the front of `text`, or -1.
int64_t hex_value(std::string_view text, size_t digits) {
  if (text.size() < digits) return -1;
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, value, 16);
  return error == std::errc() && end == text.data() + digits ? int64_t{value} : -1;
}

void append_utf8(std::string& to, uint32_t code) {
  const auto tail = [&](int shift) { to += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) {
    to += static_cast<char>(code);
  } else if (code < 0x800) {
    to += static_cast<char>(0xc0 | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    to += static_cast<char>(0xe0 | (code >> 12));
    tail(6), tail(0);
  } else {
    to += static_cast<char>(0xf0 | (code >> 18));
    tail(12), tail(6), tail(0);
  }
}

}  // namespace

std::string_view PickleMachine::line() {
  const std::string_view rest = as_text(ByteView(pickle_.bytes_).subspan(position_));
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) fail("pickle: a line of text without an end");
  position_ += end + 1;
  return rest.substr(0, end);
}

int64_t PickleMachine::integer_line(std::string_view text) {
  if (text.ends_with('L')) text.remove_suffix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) unsupported("pickle: an integer of more than 64 bits, " + quote(text));
  if (error != std::errc() || end != text.data() + text.size())
    fail("pickle: expected an integer, found " + quote(text));
  return value;
}

std::string PickleMachine::unquoted(std::string_view text) {
  if (text.size() < 2 || text.front() != text.back() || (text.front() != '\'' && text.front() != '"')) {
    fail("pickle: expected a quoted string, found " + quote(text));
  }
  text = text.substr(1, text.size() - 2);
  std::string result;
  while (!text.empty()) {
    const char c = text.front();
    text.remove_prefix(1);
    if (c != '\\') {
      result += c;
      continue;
    }
    if (text.empty()) fail("pickle: a string that ends in a backslash");
    const char escaped = text.front();
    text.remove_prefix(1);
    constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t at = kFrom.find(escaped); at != std::string_view::npos) {
      result += kTo[at];
    } else if (const int64_t value = escaped == 'x' ? hex_value(text, 2) : -1; value >= 0) {
      result += static_cast<char>(value);
      text.remove_prefix(2);
    } else {
      fail("pickle: a string with an unknown escape");  // octal ones are not written by any repr()
    }
  }
  return result;
}

std::string PickleMachine::unescaped_unicode(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t digits = text.starts_with("\\u") ? 4 : text.starts_with("\\U") ? 8 : 0;
    if (digits == 0) {
      append_utf8(result, static_cast<unsigned char>(text.front()));  // the line is Latin-1
      text.remove_prefix(1);
      continue;
    }
    const int64_t code = hex_value(text.substr(2), digits);
    if (code < 0 || code > 0x10ffff) fail("pickle: a text with a wrong escape");
    append_utf8(result, static_cast<uint32_t>(code));
    text.remove_prefix(2 + digits);
  }
  return result;
}

bool PickleMachine::run_text_line(uint8_t opcode) {
  const auto text_node = [&](std::string_view text) { return add_text(Kind::kText, as_bytes(text)); };
  switch (opcode) {
    case 'I': {
      const std::string_view text = line();
      if (text == "00" || text == "01")
        push(text == "01" ? true_ : false_);
      else
        push_int(integer_line(text));
      return true;
    }
    case 'L':
      push_int(integer_line(line()));
      return true;
    case 'F': {
      const std::string_view text = line();
      double value = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || end != text.data() + text.size())
        fail("pickle: expected a number, found " + quote(text));
      push(add(Kind::kFloat, 0, std::bit_cast<uint64_t>(value)));
      return true;
    }
    case 'S':
      push(add_owned(Kind::kText, unquoted(line())));
      return true;
    case 'V':
      push(add_owned(Kind::kText, unescaped_unicode(line())));
      return true;
    case 'p':
      memoize(static_cast<uint64_t>(integer_line(line())));
      return true;  // negative: beyond every memo
    case 'g':
      recall(static_cast<uint64_t>(integer_line(line())));
      return true;
    case 'P': {
      push(text_node(line()));
      push(add_container(Kind::kPersistent, stack_.size() - 1));
      return true;
    }
    case 'c':
    case 'i': {  // GLOBAL; INST: mark, arguments
      const Node module = text_node(line()), name = text_node(line());
      const Node global = add_global(module, name);
      if (opcode == 'c') {
        push(global);
      } else {
        push(add_object(global, add_container(Kind::kTuple, pop_mark()), kNoNode, false));
      }
      return true;
    }
    default:
      return false;
  }
}

}  // namespace ckpt::format
