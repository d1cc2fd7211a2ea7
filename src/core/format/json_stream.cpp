#include "core/format/json_stream.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/base/quote.h"

namespace ckpt::format {
namespace {

constexpr size_t kChunkBytes = 65536;
constexpr size_t kMaxTextBytes = 6 << 20;
constexpr size_t kMaxNumberBytes = 4096;
constexpr size_t kMaxDepth = 1000;

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool may_be_in_number(char c) { return is_digit(c) || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; }
/// Stands in a text for itself.
bool is_plain(char c) { return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\'; }

/// Takes digits off the front; false where there are none.
bool take_digits(std::string_view& text) {
  const auto end = std::find_if_not(text.begin(), text.end(), is_digit);
  const bool any = end != text.begin();
  text.remove_prefix(static_cast<size_t>(end - text.begin()));
  return any;
}

bool is_number(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  const bool leading_zero = text.size() > 1 && text[0] == '0' && is_digit(text[1]);
  if (leading_zero || !take_digits(text)) return false;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    if (!take_digits(text)) return false;
  }
  if (text.starts_with('e') || text.starts_with('E')) {
    text.remove_prefix(1);
    if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
    if (!take_digits(text)) return false;
  }
  return text.empty();
}

/// std::nullopt where it is no whole number, or none of type T.
template <class T>
std::optional<T> whole_number(std::string_view digits) {
  T value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

void append_utf8(std::string& text, uint32_t code) {
  const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) return add(code);
  if (code < 0x800) {
    add(0xC0 | code >> 6);
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3F));
  } else {
    add(0xF0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3F));
    add(0x80 | (code >> 6 & 0x3F));
  }
  add(0x80 | (code & 0x3F));
}

}  // namespace

JsonText::JsonText(const io::File& file, uint64_t begin, uint64_t end, std::string what)
    : window_(file, end, kChunkBytes), path_(file.path()), what_(std::move(what)), offset_(begin), end_(end) {}

void JsonText::fill() {
  offset_ += chunk_.size();
  begin_ = 0;
  const auto bytes = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, end_ - offset_));
  chunk_ = as_text(window_.view(offset_, bytes));
}

char JsonText::peek_token() {
  for (;;) {
    const std::string_view next = at_hand();
    const auto token = std::find_if_not(next.begin(), next.end(), is_blank);
    skip(static_cast<size_t>(token - next.begin()));
    if (token != next.end()) return *token;
    if (next.empty()) return '\0';
  }
}

void JsonText::fail(ErrorCode code, const std::string& message, const std::string& tensor) const {
  throw Error(code, path_, what_ + ": " + message, {.offset = offset_ + begin_, .tensor = tensor});
}

void JsonHandler::parse() {
  for (Next next = Next::kValue; next != Next::kEnd;) {
    const char c = text_.peek_token();
    switch (next) {
      case Next::kFirstKey:
        next = c == '}' ? close_level() : take_key();
        break;
      case Next::kKey:
        next = take_key();
        break;
      case Next::kFirstValue:
        next = c == ']' ? close_level() : take_value();
        break;
      case Next::kValue:
        next = take_value();
        break;
      case Next::kSeparator:
        next = take_separator();
        break;
      case Next::kEnd:
        break;
    }
  }
}

JsonHandler::Next JsonHandler::take_key() {
  if (text_.peek() != '"') not_json("a key");
  take_text();
  if (skipped_from_ == SIZE_MAX) on_key(token_);
  if (text_.peek_token() != ':') not_json("\":\"");
  text_.skip(1);
  return Next::kValue;
}

JsonHandler::Next JsonHandler::take_value() {
  const char c = text_.peek();
  switch (c) {
    case '{':
    case '[':
      return open_level(c);
    case '"':
      take_text();
      if (!skips_value()) on_text(token_);
      break;
    case 't':
      take_literal("true");
      if (!skips_value()) on_boolean(true);
      break;
    case 'f':
      take_literal("false");
      if (!skips_value()) on_boolean(false);
      break;
    case 'n':
      take_literal("null");
      if (!skips_value()) on_null();
      break;
    default:
      take_number();
  }
  return Next::kSeparator;
}

JsonHandler::Next JsonHandler::take_separator() {
  const char c = text_.peek();
  if (levels_.empty()) {
    if (!text_.at_end()) not_json("the end");
    return Next::kEnd;
  }
  const bool in_object = levels_.back() == '{';
  if (c == (in_object ? '}' : ']')) return close_level();
  if (c != ',') not_json(in_object ? "\",\" or \"}\"" : "\",\" or \"]\"");
  text_.skip(1);
  return in_object ? Next::kKey : Next::kValue;
}

JsonHandler::Next JsonHandler::open_level(char bracket) {
  if (levels_.size() >= kMaxDepth) fail("nested deeper than " + std::to_string(kMaxDepth));
  if (skips_value()) {
    skipped_from_ = std::min(skipped_from_, levels_.size());
  } else if (bracket == '{') {
    on_object();
  } else {
    on_array();
  }
  text_.skip(1);
  levels_ += bracket;
  return bracket == '{' ? Next::kFirstKey : Next::kFirstValue;
}

JsonHandler::Next JsonHandler::close_level() {
  const char bracket = levels_.back();
  levels_.pop_back();
  text_.skip(1);
  if (skipped_from_ == SIZE_MAX) {
    bracket == '{' ? on_object_end() : on_array_end();
  } else if (skipped_from_ == levels_.size()) {
    skipped_from_ = SIZE_MAX;
  }
  return Next::kSeparator;
}

void JsonHandler::take_literal(std::string_view word) {
  for (const char c : word) {
    if (text_.peek() != c) not_json(quote(word));
    text_.skip(1);
  }
}

void JsonHandler::take_number() {
  token_.clear();
  for (;;) {
    const std::string_view next = text_.at_hand();
    const auto end = std::find_if_not(next.begin(), next.end(), may_be_in_number);
    token_.append(next.begin(), end);
    text_.skip(static_cast<size_t>(end - next.begin()));
    if (token_.size() > kMaxNumberBytes) fail("a number of more than " + std::to_string(kMaxNumberBytes) + " digits");
    if (end != next.end() || next.empty()) break;
  }
  if (token_.empty()) not_json("a value");
  if (!is_number(token_)) fail("not JSON: " + quote(token_, 40) + " is no number");
  if (skips_value()) return;
  if (const auto whole = whole_number<uint64_t>(token_)) return on_unsigned(*whole);
  if (const auto negative = whole_number<int64_t>(token_)) return on_negative(*negative);
  unexpected(token_);
}

void JsonHandler::take_text() {
  text_.skip(1);
  token_.clear();
  for (;;) {
    const std::string_view next = text_.at_hand();
    const auto end = std::find_if_not(next.begin(), next.end(), is_plain);
    token_.append(next.begin(), end);
    text_.skip(static_cast<size_t>(end - next.begin()));
    if (token_.size() > kMaxTextBytes) fail("a text of more than " + std::to_string(kMaxTextBytes) + " bytes");
    if (next.empty()) not_json("the end of a text");
    if (end == next.end()) continue;
    if (*end == '"') break;
    if (*end != '\\') not_json("no control character in a text");
    take_escape();
  }
  text_.skip(1);
  if (!is_utf8(token_)) fail("not JSON: a text that is not UTF-8");
}

void JsonHandler::take_escape() {
  text_.skip(1);
  constexpr std::string_view kEscapes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
  const char c = text_.peek();
  if (c != 'u') {
    const size_t at = kEscapes.find(c);
    if (at == std::string_view::npos) not_json("an escape");
    token_ += kMeanings[at];
    text_.skip(1);
    return;
  }
  uint32_t code = take_code_unit();
  if (code >= 0xD800 && code < 0xDC00) {
    if (text_.peek() != '\\') not_json("the second half of a surrogate pair");
    text_.skip(1);
    const uint32_t low = text_.peek() == 'u' ? take_code_unit() : 0;
    if (low < 0xDC00 || low > 0xDFFF) not_json("the second half of a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code <= 0xDFFF) {
    not_json("the first half of a surrogate pair before the second");
  }
  append_utf8(token_, code);
}

uint32_t JsonHandler::take_code_unit() {
  text_.skip(1);
  uint32_t code = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = text_.peek();
    const char letter = static_cast<char>(c | 0x20);
    if (!is_digit(c) && (letter < 'a' || letter > 'f')) not_json("four hex digits");
    code = code << 4 | static_cast<uint32_t>(is_digit(c) ? c - '0' : letter - 'a' + 10);
    text_.skip(1);
  }
  return code;
}

bool JsonHandler::skips_value() {
  const bool skips = skip_next_ || skipped_from_ != SIZE_MAX;
  skip_next_ = false;
  return skips;
}

void JsonHandler::not_json(const std::string& expected) {
  name_.clear();
  const std::string_view next = text_.at_hand();
  fail("not JSON: expected " + expected + ", found " + (next.empty() ? "its end" : quote(next.substr(0, 1))));
}

void JsonHandler::fail(const std::string& message, ErrorCode code) const {
  text_.fail(code, name_.empty() ? message : message + " in tensor " + quote(name_), name_);
}

void JsonHandler::unexpected(std::string_view what) const { fail("unexpected " + quote(what)); }

void JsonHandler::charge(uint64_t bytes) {
  if (bytes > memory_) fail("what it holds takes more memory than a file of this size may");
  memory_ -= bytes;
}

}  // namespace ckpt::format
