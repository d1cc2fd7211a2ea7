// JSON parsed while it is read: neither its text nor a tree of it is ever in memory as a whole. For the tables of large
// files; small ones are better off with core/base/json.h.
//
// Strict (RFC 8259): one value, valid UTF-8, no byte order mark, whole numbers within 64 bits told apart from others;
// texts of at most 6 MiB, at most 1,000 levels.
#pragma once

#include <string>
#include <string_view>

#include "core/format/window.h"

namespace ckpt::format {

/// The bytes of a JSON text, some of them at hand.
class JsonText {
 public:
  /// The bytes [begin, end) of a file. `what` is how messages call it ("header").
  JsonText(const io::File& file, uint64_t begin, uint64_t end, std::string what);
  JsonText(const JsonText&) = delete;
  JsonText& operator=(const JsonText&) = delete;

  /// What comes next, as much as is in memory; empty at the end.
  std::string_view at_hand() {
    if (begin_ == chunk_.size()) fill();
    return chunk_.substr(begin_);
  }
  /// Goes on behind some of at_hand().
  void skip(size_t bytes) { begin_ += bytes; }
  /// The next byte, which is not passed; NUL at the end, where no JSON has one.
  char peek() {
    const std::string_view next = at_hand();
    return next.empty() ? '\0' : next.front();
  }
  /// The next byte behind blanks.
  char peek_token();
  bool at_end() { return at_hand().empty(); }

  [[noreturn]] void fail(ErrorCode code, const std::string& message, const std::string& tensor = {}) const;

 private:
  void fill();

  Window window_;
  std::string path_, what_;
  uint64_t offset_, end_;  // of chunk_ in the file; of the text
  std::string_view chunk_;
  size_t begin_ = 0;  // of at_hand(), in chunk_
};

/// Takes the parts of a JSON text as they come. What a derived class does not expect is an error.
class JsonHandler {
 public:
  /// `memory` bounds what charge() may add up to.
  JsonHandler(JsonText& text, uint64_t memory) : text_(text), memory_(memory) {}
  virtual ~JsonHandler() = default;

  /// Takes the whole text. kCorrupt where it is not JSON, and whatever the derived class throws.
  void parse();
  /// What of `memory` is not used.
  uint64_t memory() const { return memory_; }

 protected:
  virtual void on_null() { unexpected("null"); }
  virtual void on_boolean(bool value) { unexpected(value ? "true" : "false"); }
  virtual void on_negative(int64_t value) { unexpected(std::to_string(value)); }
  virtual void on_unsigned(uint64_t value) { unexpected(std::to_string(value)); }
  virtual void on_text(std::string&) { unexpected("a text"); }
  virtual void on_object() { unexpected("an object"); }
  virtual void on_key(std::string&) {}
  virtual void on_object_end() {}
  virtual void on_array() { unexpected("an array"); }
  virtual void on_array_end() {}

  /// The value that comes next is passed over, whatever it is.
  void skip_value() { skip_next_ = true; }
  [[noreturn]] void fail(const std::string& message, ErrorCode code = ErrorCode::kCorrupt) const;
  [[noreturn]] void unexpected(std::string_view what) const;
  void charge(uint64_t bytes);

  std::string name_;  ///< of the tensor at hand, for messages; empty: none

 private:
  enum class Next { kValue, kFirstValue, kKey, kFirstKey, kSeparator, kEnd };

  Next take_value();
  Next take_key();
  Next take_separator();
  Next open_level(char bracket);
  Next close_level();
  void take_literal(std::string_view word);
  void take_number();
  void take_text();
  void take_escape();
  uint32_t take_code_unit();
  bool skips_value();
  [[noreturn]] void not_json(const std::string& expected);

  JsonText& text_;
  uint64_t memory_;
  std::string levels_;  // the bracket that began each, innermost last
  std::string token_;
  bool skip_next_ = false;
  size_t skipped_from_ = SIZE_MAX;  // levels that are not skipped, while one is
};

}  // namespace ckpt::format
