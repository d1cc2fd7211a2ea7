#include "core/format/json_stream.h"

#include <iterator>

#include "core/base/quote.h"

namespace ckpt::format {
namespace {

constexpr size_t kChunkBytes = 65536;
constexpr size_t kMaxTextBytes = 6 << 20;
// Of a number: nlohmann's lexer would keep any length.
constexpr size_t kMaxNumberBytes = 4096;
constexpr size_t kMaxDepth = 1000;

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool is_structure(char c) { return c == '{' || c == '}' || c == '[' || c == ']' || c == ':' || c == ','; }

/// What nlohmann's parser wants to read from.
class TextIterator {
 public:
  using difference_type = std::ptrdiff_t;
  using value_type = char;
  using pointer = const char*;
  using reference = char;
  using iterator_category = std::input_iterator_tag;

  explicit TextIterator(JsonText* text) : text_(text) {}
  char operator*() const { return text_->current(); }
  TextIterator& operator++() {
    text_->advance();
    return *this;
  }
  bool operator==(const TextIterator& other) const { return at_end() == other.at_end(); }
  bool operator!=(const TextIterator& other) const { return !(*this == other); }

 private:
  bool at_end() const { return text_ == nullptr || text_->at_end(); }
  JsonText* text_;
};

}  // namespace

JsonText::JsonText(const io::File& file, uint64_t begin, uint64_t end, std::string what)
    : window_(file, end, kChunkBytes), path_(file.path()), what_(std::move(what)), offset_(begin), end_(end) {
  if (!at_end() && current() == '\xef') fail(ErrorCode::kCorrupt, "not JSON: a byte order mark");
}

void JsonText::fill() {
  begin_ = offset_;
  const auto bytes = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, end_ - offset_));
  chunk_ = window_.view(offset_, bytes);
  filled_ = begin_ + bytes;
}

void JsonText::advance() {
  const char c = current();
  if (c == '\0') {  // the lexer would take it for the end and leave what follows unread
    fail(ErrorCode::kCorrupt, "not JSON: it holds NUL");
  }
  ++offset_;
  if (in_text_) {
    in_text(c);
  } else {
    outside_text(c);
  }
}

void JsonText::in_text(char c) {
  if (++token_bytes_ > kMaxTextBytes) {
    fail(ErrorCode::kCorrupt, "a text of more than " + std::to_string(kMaxTextBytes) + " bytes");
  }
  if (escaped_) {
    escaped_ = false;
  } else if (c == '\\') {
    escaped_ = true;
  } else if (c == '"') {
    in_text_ = false;
    token_bytes_ = 0;
  }
}

// The lexer keeps a token and the blanks before it in memory.
void JsonText::outside_text(char c) {
  if (is_blank(c)) {
    while (!at_end() && is_blank(current())) ++offset_;
  }
  if (c == '"') in_text_ = true;
  if (c == '"' || is_blank(c) || is_structure(c)) {
    token_bytes_ = 0;
  } else if (++token_bytes_ > kMaxNumberBytes) {
    fail(ErrorCode::kCorrupt, "a number of more than " + std::to_string(kMaxNumberBytes) + " digits");
  }
}

void JsonText::fail(ErrorCode code, const std::string& message, const std::string& tensor) const {
  throw Error(code, path_, what_ + ": " + message, {.offset = offset_, .tensor = tensor});
}

void JsonHandler::parse() { nlohmann::json::sax_parse(TextIterator(&text_), TextIterator(nullptr), this); }

void JsonHandler::fail(const std::string& message, ErrorCode code) const {
  text_.fail(code, name_.empty() ? message : message + " in tensor " + quote(name_), name_);
}

void JsonHandler::unexpected(std::string_view what) const { fail("unexpected " + quote(what)); }

void JsonHandler::charge(uint64_t bytes) {
  if (bytes > memory_) fail("what it holds takes more memory than a file of this size may");
  memory_ -= bytes;
}

bool JsonHandler::skips_scalar() {
  const bool skips = skip_next_ || skip_depth_ > 0;
  skip_next_ = false;
  return skips;
}

bool JsonHandler::skips_start() {
  if (!skips_scalar()) return false;
  if (++skip_depth_ > kMaxDepth) fail("nested deeper than " + std::to_string(kMaxDepth));
  return true;
}

bool JsonHandler::skips_end() {
  if (skip_depth_ == 0) return false;
  --skip_depth_;
  return true;
}

bool JsonHandler::null() {
  if (!skips_scalar()) on_null();
  return true;
}

bool JsonHandler::boolean(bool value) {
  if (!skips_scalar()) on_boolean(value);
  return true;
}

bool JsonHandler::number_integer(int64_t value) {
  if (!skips_scalar()) on_negative(value);
  return true;
}

bool JsonHandler::number_unsigned(uint64_t value) {
  if (!skips_scalar()) on_unsigned(value);
  return true;
}

bool JsonHandler::number_float(double, const std::string& digits) {
  if (!skips_scalar()) unexpected(digits);
  return true;
}

bool JsonHandler::string(std::string& value) {
  if (!skips_scalar()) on_text(value);
  return true;
}

bool JsonHandler::binary(nlohmann::json::binary_t&) { unexpected("binary data"); }

bool JsonHandler::start_object(size_t) {
  if (!skips_start()) on_object();
  return true;
}

bool JsonHandler::key(std::string& name) {
  if (skip_depth_ == 0) on_key(name);
  return true;
}

bool JsonHandler::end_object() {
  if (!skips_end()) on_object_end();
  return true;
}

bool JsonHandler::start_array(size_t) {
  if (!skips_start()) on_array();
  return true;
}

bool JsonHandler::end_array() {
  if (!skips_end()) on_array_end();
  return true;
}

bool JsonHandler::parse_error(size_t, const std::string&, const nlohmann::json::exception& error) {
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ...": from the last part on
  std::string_view what = error.what();
  if (const size_t at = what.find(": "); at != std::string_view::npos) what.remove_prefix(at + 2);
  name_.clear();
  fail("not JSON: " + quote(what));
}

}  // namespace ckpt::format
