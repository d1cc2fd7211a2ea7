// JSON parsed while it is read: neither its text nor a tree of it is ever in memory as a whole. For the tables of large
// files; small ones are better off with core/base/json.h.
//
// Strict: one value, no NUL, no byte order mark; texts of at most 6 MiB (the lexer takes their length several times).
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "core/format/window.h"

namespace ckpt::format {

/// A JSON text as a stream of characters. Runs of blanks are passed on as one.
class JsonText {
 public:
  /// The bytes [begin, end) of a file. `what` is how messages call it ("header").
  JsonText(const io::File& file, uint64_t begin, uint64_t end, std::string what);
  JsonText(const JsonText&) = delete;
  JsonText& operator=(const JsonText&) = delete;

  bool at_end() const { return offset_ == end_; }
  char current() {
    if (offset_ >= filled_) fill();
    return static_cast<char>(chunk_[static_cast<size_t>(offset_ - begin_)]);
  }
  void advance();

  /// Where in the file the parser is.
  uint64_t offset() const { return offset_; }
  [[noreturn]] void fail(ErrorCode code, const std::string& message, const std::string& tensor = {}) const;

 private:
  void fill();
  void in_text(char c);
  void outside_text(char c);

  Window window_;
  std::string path_, what_;
  uint64_t offset_, end_;
  uint64_t begin_ = 0, filled_ = 0;  // what chunk_ holds
  ByteView chunk_;
  bool in_text_ = false, escaped_ = false;
  size_t token_bytes_ = 0;
};

/// Takes the parts of a JSON text as they come. What a derived class does not expect is an error.
class JsonHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  /// `memory` bounds what charge() may add up to.
  JsonHandler(JsonText& text, uint64_t memory) : text_(text), memory_(memory) {}

  /// Takes the whole text. kCorrupt where it is not JSON, and whatever the derived class throws.
  void parse();
  /// What of `memory` is not used.
  uint64_t memory() const { return memory_; }

  bool null() final;
  bool boolean(bool value) final;
  bool number_integer(int64_t value) final;
  bool number_unsigned(uint64_t value) final;
  bool number_float(double value, const std::string& digits) final;
  bool string(std::string& value) final;
  bool binary(nlohmann::json::binary_t& value) final;
  bool start_object(size_t) final;
  bool key(std::string& name) final;
  bool end_object() final;
  bool start_array(size_t) final;
  bool end_array() final;
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) final;

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
  bool skips_scalar();
  bool skips_start();
  bool skips_end();

  JsonText& text_;
  uint64_t memory_;
  bool skip_next_ = false;
  size_t skip_depth_ = 0;
};

}  // namespace ckpt::format
