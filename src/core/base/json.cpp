#include "core/base/json.h"

#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "ckpt/error.h"
#include "core/base/quote.h"

namespace ckpt {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 1000;

// Reads `text` and tells how far the parser has come: nlohmann's handlers get no position.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

class Builder : public nlohmann::json_sax<json> {
 public:
  Builder(const std::string& path, const char* begin, const char* const* furthest)
      : path_(path), begin_(begin), furthest_(furthest) {}

  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return refuse("binary value"); }

  bool start_object(size_t) override { return open(json::object()); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto [place, added] = open_.back()->get_ref<json::object_t&>().emplace(name, nullptr);
    if (!added) return refuse("duplicate key " + quote(name));
    member_ = &place->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception& error) override {
    // 101 is bad syntax; others are a number that overflows. The library's own text repeats the input unquoted.
    const bool syntax = error.id == 101;
    throw Error(ErrorCode::kCorrupt, path_, syntax ? "not valid JSON" : "a number of the JSON is out of range",
                {.offset = position == 0 ? 0 : position - 1});
  }

 private:
  bool add(json value) {
    place(std::move(value));
    return true;
  }

  json* place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  bool open(json empty) {
    if (open_.size() == kMaxDepth) return refuse("JSON nested deeper than " + std::to_string(kMaxDepth));
    open_.push_back(place(std::move(empty)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  [[noreturn]] bool refuse(const std::string& why) const {
    throw Error(ErrorCode::kCorrupt, path_, why, {.offset = static_cast<uint64_t>(*furthest_ - begin_)});
  }

  const std::string& path_;
  const char* begin_;
  const char* const* furthest_;
  json root_;
  std::vector<json*> open_;  // a child that is being filled is the last of its parent: nothing moves it
  json* member_ = nullptr;
};

}  // namespace

json json_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

std::optional<double> number_from_json(const json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (value == "Infinity") return std::numeric_limits<double>::infinity();
  if (value == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

json parse_json(std::string_view text, const std::string& path) {
  // nlohmann's lexer takes a NUL byte for the end and skips a byte order mark.
  if (size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(ErrorCode::kCorrupt, path, "not valid JSON: a NUL byte", {.offset = nul});
  }
  if (text.starts_with("\xEF\xBB\xBF")) {
    throw Error(ErrorCode::kCorrupt, path, "not valid JSON: a byte order mark", {.offset = 0});
  }
  const char* furthest = text.data();
  const CountingIterator begin(text.data(), &furthest);
  const CountingIterator end(text.data() + text.size(), &furthest);
  Builder builder(path, text.data(), &furthest);
  json::sax_parse(begin, end, &builder);
  return builder.take();
}

std::string dump_json(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace ckpt
