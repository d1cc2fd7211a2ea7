#include "core/format/safetensors_header.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/base/checked.h"
#include "core/base/quote.h"
#include "core/format/tensor_check.h"
#include "core/format/window.h"

namespace ckpt::format {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr size_t kChunkBytes = 65536;
// The JSON lexer takes a text's length several times over.
constexpr size_t kMaxTextBytes = 8 << 20;
// `"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`
constexpr uint64_t kLeastBytesOfTensor = 49;

/// The header as a stream of characters.
class HeaderText {
 public:
  HeaderText(const io::File& file, uint64_t bytes)
      : window_(file, kLengthBytes + bytes, kChunkBytes), path_(file.path()), end_(kLengthBytes + bytes) {}

  bool at_end() const { return offset_ == end_; }
  uint64_t offset() const { return offset_; }

  char current() {
    if (offset_ >= filled_) fill();
    return static_cast<char>(chunk_[static_cast<size_t>(offset_ - begin_)]);
  }

  void advance() {
    const char c = current();
    if (c == '\0') {  // the JSON lexer would take it for the end and leave what follows unread
      throw Error(ErrorCode::kCorrupt, path_, "header: not JSON: it holds NUL", {.offset = offset_});
    }
    if (!in_text_) {
      in_text_ = c == '"';
      text_bytes_ = 0;
    } else if (++text_bytes_ > kMaxTextBytes) {
      throw Error(ErrorCode::kCorrupt, path_, "header: a text of more than " + std::to_string(kMaxTextBytes) + " bytes",
                  {.offset = offset_});
    } else if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_text_ = false;
    }
    ++offset_;
  }

 private:
  void fill() {
    begin_ = offset_;
    const auto bytes = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, end_ - offset_));
    chunk_ = window_.view(offset_, bytes);
    filled_ = begin_ + bytes;
  }

  Window window_;
  const std::string& path_;
  uint64_t end_;
  uint64_t offset_ = kLengthBytes;
  uint64_t begin_ = 0, filled_ = 0;
  ByteView chunk_;
  bool in_text_ = false, escaped_ = false;
  size_t text_bytes_ = 0;
};

/// What nlohmann's parser wants to read from.
class HeaderIterator {
 public:
  using difference_type = std::ptrdiff_t;
  using value_type = char;
  using pointer = const char*;
  using reference = char;
  using iterator_category = std::input_iterator_tag;

  explicit HeaderIterator(HeaderText* text) : text_(text) {}
  char operator*() const { return text_->current(); }
  HeaderIterator& operator++() {
    text_->advance();
    return *this;
  }
  bool operator==(const HeaderIterator& other) const { return at_end() == other.at_end(); }
  bool operator!=(const HeaderIterator& other) const { return !(*this == other); }

 private:
  bool at_end() const { return text_ == nullptr || text_->at_end(); }
  HeaderText* text_;
};

class Handler {
 public:
  Handler(const HeaderText& text, const std::string& path, uint64_t memory, SafetensorsIndex& index)
      : text_(text), path_(path), memory_(memory), index_(index) {}

  // The events of nlohmann's SAX interface.
  bool null() { unexpected("null"); }
  bool boolean(bool) { unexpected("a boolean"); }
  bool number_integer(int64_t value) { unexpected(std::to_string(value).c_str()); }
  bool number_unsigned(uint64_t value);
  bool number_float(double, const std::string& digits) { unexpected(digits.c_str()); }
  bool string(std::string& value);
  bool binary(nlohmann::json::binary_t&) { unexpected("binary data"); }
  bool start_object(size_t);
  bool key(std::string& name);
  bool end_object();
  bool start_array(size_t);
  bool end_array();
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error);

 private:
  enum class In { kNothing, kHeader, kMetadata, kTensor, kShape, kOffsets, kDone };

  [[noreturn]] void fail(const std::string& message) const {
    throw Error(ErrorCode::kCorrupt, path_, "header: " + message, {.offset = text_.offset(), .tensor = name_});
  }
  [[noreturn]] void unexpected(const char* what) const { fail("unexpected " + quote(what) + of_tensor()); }
  std::string of_tensor() const { return name_.empty() ? "" : " in tensor " + quote(name_); }
  void charge(uint64_t bytes) {
    if (bytes > memory_) fail("what it holds takes more memory than a file of this size may");
    memory_ -= bytes;
  }
  void finish_tensor();

  const HeaderText& text_;
  const std::string& path_;
  uint64_t memory_;
  SafetensorsIndex& index_;
  In in_ = In::kNothing;
  std::string name_;   // of the tensor at hand
  std::string field_;  // the key at hand, in a tensor or the metadata
  bool metadata_seen_ = false;
  std::string dtype_;
  std::vector<int64_t> shape_;
  std::vector<uint64_t> offsets_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
};

bool Handler::start_object(size_t) {
  if (in_ == In::kNothing) {
    in_ = In::kHeader;
  } else if (in_ == In::kHeader && field_ == "__metadata__") {
    if (metadata_seen_) fail("__metadata__ is there twice");
    metadata_seen_ = true;
    in_ = In::kMetadata;
  } else if (in_ == In::kHeader) {
    if (field_.size() > kMaxNameBytes) fail("a name of " + std::to_string(field_.size()) + " bytes");
    name_ = std::move(field_);
    has_dtype_ = has_shape_ = has_offsets_ = false;
    in_ = In::kTensor;
  } else {
    unexpected("an object");
  }
  return true;
}

bool Handler::key(std::string& name) {
  if (in_ == In::kTensor) {
    bool& seen = name == "dtype" ? has_dtype_ : name == "shape" ? has_shape_ : has_offsets_;
    if (name != "dtype" && name != "shape" && name != "data_offsets")
      fail("unknown field " + quote(name) + of_tensor());
    if (seen) fail("field " + quote(name) + " is there twice" + of_tensor());
    seen = true;
  }
  field_ = std::move(name);
  return true;
}

bool Handler::string(std::string& value) {
  if (in_ == In::kMetadata) {
    charge(field_.size() + value.size() + 128);
    if (!index_.metadata.emplace(std::move(field_), std::move(value)).second)
      fail("a key of __metadata__ is there twice");
  } else if (in_ == In::kTensor && field_ == "dtype") {
    dtype_ = std::move(value);
  } else {
    unexpected("a text");
  }
  return true;
}

bool Handler::start_array(size_t) {
  if (in_ == In::kTensor && field_ == "shape") {
    in_ = In::kShape;
    shape_.clear();
  } else if (in_ == In::kTensor && field_ == "data_offsets") {
    in_ = In::kOffsets;
    offsets_.clear();
  } else {
    unexpected("an array");
  }
  return true;
}

bool Handler::number_unsigned(uint64_t value) {
  if (in_ == In::kShape) {
    if (value > INT64_MAX) fail("a size of " + std::to_string(value) + of_tensor());
    if (shape_.size() == kMaxRank) fail("expected at most 64 dimensions" + of_tensor());
    shape_.push_back(static_cast<int64_t>(value));
  } else if (in_ == In::kOffsets && offsets_.size() < 2) {
    offsets_.push_back(value);
  } else {
    unexpected(std::to_string(value).c_str());
  }
  return true;
}

bool Handler::end_array() {
  in_ = In::kTensor;
  return true;
}

bool Handler::end_object() {
  if (in_ == In::kTensor) finish_tensor();
  in_ = in_ == In::kHeader ? In::kDone : In::kHeader;
  name_.clear();
  return true;
}

void Handler::finish_tensor() {
  if (!has_dtype_ || !has_shape_ || !has_offsets_ || offsets_.size() != 2) {
    fail("expected dtype, shape and two data_offsets" + of_tensor());
  }
  const std::optional<DType> dtype = dtype_from_safetensors(dtype_);
  if (!dtype) {
    throw Error(ErrorCode::kUnsupported, path_, "header: dtype " + quote(dtype_) + of_tensor(),
                {.offset = text_.offset(), .tensor = name_});
  }
  const std::optional<uint64_t> elements = element_count(shape_);
  const std::optional<uint64_t> bytes = elements ? checked_mul(*elements, width(*dtype)) : std::nullopt;
  if (!bytes) fail("its sizes are too large" + of_tensor());
  if (offsets_[0] > offsets_[1] || offsets_[1] - offsets_[0] != *bytes) {
    fail("expected " + std::to_string(*bytes) + " bytes, found data_offsets " + std::to_string(offsets_[0]) + " to " +
         std::to_string(offsets_[1]) + of_tensor());
  }
  charge(sizeof(NamedTensor) + (name_.size() > 15 ? name_.size() + 16 : 0) + 2 * (8 * shape_.size() + 16));
  NamedTensor& named = index_.tensors.emplace_back();
  named.name = std::move(name_);
  named.tensor.dtype = *dtype;
  named.tensor.strides = contiguous_strides(shape_);
  named.tensor.shape.assign(shape_.begin(), shape_.end());
  named.tensor.elements = *elements;
  named.tensor.bytes = named.tensor.storage_bytes = *bytes;
  named.tensor.file_offset = offsets_[0];
}

bool Handler::parse_error(size_t, const std::string&, const nlohmann::json::exception& error) {
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ...": from the last part on
  std::string_view what = error.what();
  if (const size_t at = what.find(": "); at != std::string_view::npos) what.remove_prefix(at + 2);
  name_.clear();
  fail("not JSON: " + quote(what));
}

/// At most how many tensors the header can hold.
size_t count_braces(const io::File& file, uint64_t header_bytes) {
  Window window(file, kLengthBytes + header_bytes, kChunkBytes);
  uint64_t braces = 0;
  for (uint64_t at = 0; at < header_bytes; at += kChunkBytes) {
    const ByteView chunk =
        window.view(kLengthBytes + at, static_cast<size_t>(std::min<uint64_t>(kChunkBytes, header_bytes - at)));
    braces += static_cast<uint64_t>(std::count(chunk.begin(), chunk.end(), std::byte{'{'}));
  }
  return static_cast<size_t>(std::min(braces, header_bytes / kLeastBytesOfTensor));
}

}  // namespace

void parse_safetensors_header(const io::File& file, uint64_t header_bytes, uint64_t memory, SafetensorsIndex& index) {
  const uint64_t tensors = count_braces(file, header_bytes);
  // A vector that grew would hold its tensors twice.
  index.tensors.reserve(static_cast<size_t>(std::min(tensors, memory / sizeof(NamedTensor))));
  HeaderText text(file, header_bytes);
  Handler handler(text, file.path(), memory, index);
  nlohmann::json::sax_parse(HeaderIterator(&text), HeaderIterator(nullptr), &handler);
}

}  // namespace ckpt::format
