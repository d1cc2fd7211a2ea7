#include "core/format/safetensors_header.h"

#include <algorithm>

#include "core/base/checked.h"
#include "core/base/name_order.h"
#include "core/base/quote.h"
#include "core/format/json_stream.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr size_t kChunkBytes = 65536;
// `"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`
constexpr uint64_t kLeastBytesOfTensor = 49;

/// Bits of an element of a dtype that safetensors knows and DType does not.
std::optional<uint64_t> bits_without_dtype(std::string_view name) {
  if (name == "F4") return 4;
  if (name == "F6_E2M3" || name == "F6_E3M2") return 6;
  return std::nullopt;
}

class Handler : public JsonHandler {
 public:
  Handler(JsonText& text, uint64_t memory, SafetensorsIndex& index) : JsonHandler(text, memory), index_(index) {}

  void reserve(uint64_t tensors) {
    const uint64_t all = index_.tensors.size() + tensors;
    if (all <= index_.tensors.capacity()) return;
    charge(all * sizeof(NamedTensor));
    index_.tensors.reserve(static_cast<size_t>(all));
  }

 private:
  enum class In { kNothing, kHeader, kMetadata, kTensor, kShape, kOffsets, kDone };

  void on_unsigned(uint64_t value) override;
  void on_text(std::string& value) override;
  void on_object() override;
  void on_key(std::string& name) override;
  void on_object_end() override;
  void on_array() override;
  void on_array_end() override { in_ = In::kTensor; }
  void finish_tensor();

  SafetensorsIndex& index_;
  In in_ = In::kNothing;
  std::string field_;  // the key at hand, in a tensor or the metadata
  bool metadata_seen_ = false;
  std::string dtype_;
  std::vector<int64_t> shape_;
  std::vector<uint64_t> offsets_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
};

void Handler::on_object() {
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
}

void Handler::on_key(std::string& name) {
  if (in_ == In::kTensor) {
    bool& seen = name == "dtype" ? has_dtype_ : name == "shape" ? has_shape_ : has_offsets_;
    if (name != "dtype" && name != "shape" && name != "data_offsets") fail("unknown field " + quote(name));
    if (seen) fail("field " + quote(name) + " is there twice");
    seen = true;
  }
  field_ = std::move(name);
}

void Handler::on_text(std::string& value) {
  if (in_ == In::kMetadata) {
    charge(field_.size() + value.size() + 128);
    if (!index_.metadata.emplace(std::move(field_), std::move(value)).second)
      fail("a key of __metadata__ is there twice");
  } else if (in_ == In::kTensor && field_ == "dtype") {
    dtype_ = std::move(value);
  } else {
    unexpected("a text");
  }
}

void Handler::on_array() {
  if (in_ == In::kTensor && field_ == "shape") {
    in_ = In::kShape;
    shape_.clear();
  } else if (in_ == In::kTensor && field_ == "data_offsets") {
    in_ = In::kOffsets;
    offsets_.clear();
  } else {
    unexpected("an array");
  }
}

void Handler::on_unsigned(uint64_t value) {
  if (in_ == In::kShape) {
    if (value > INT64_MAX) fail("a size of " + std::to_string(value));
    if (shape_.size() == kMaxRank) fail("expected at most 64 dimensions");
    shape_.push_back(static_cast<int64_t>(value));
  } else if (in_ == In::kOffsets && offsets_.size() < 2) {
    offsets_.push_back(value);
  } else {
    unexpected(std::to_string(value));
  }
}

void Handler::on_object_end() {
  if (in_ == In::kTensor) finish_tensor();
  in_ = in_ == In::kHeader ? In::kDone : In::kHeader;
  name_.clear();
}

void Handler::finish_tensor() {
  if (!has_dtype_ || !has_shape_ || !has_offsets_ || offsets_.size() != 2) {
    fail("expected dtype, shape and two data_offsets");
  }
  const std::optional<DType> dtype = dtype_from_safetensors(dtype_);
  const std::optional<uint64_t> bits = dtype ? 8 * width(*dtype) : bits_without_dtype(dtype_);
  if (!bits) fail("dtype " + quote(dtype_), ErrorCode::kUnsupported);
  const std::optional<uint64_t> elements = element_count(shape_);
  const std::optional<uint64_t> all_bits = elements ? checked_mul(*elements, *bits) : std::nullopt;
  if (!all_bits || *all_bits % 8 != 0) fail("its sizes are too large, or end inside a byte");
  const uint64_t bytes = *all_bits / 8;
  if (offsets_[0] > offsets_[1] || offsets_[1] - offsets_[0] != bytes) {
    fail("expected " + std::to_string(bytes) + " bytes, found data_offsets " + std::to_string(offsets_[0]) + " to " +
         std::to_string(offsets_[1]));
  }
  // The last part is for all lists of names and places that are made later, one after another.
  charge((name_.size() > 15 ? name_.size() + 16 : 0) + 2 * (8 * shape_.size() + 16) + kNameOrderBytes);
  if (!dtype) {
    charge(3 * sizeof(OpaqueTensor));  // while the list grows
    index_.opaque.push_back({std::move(name_), std::move(dtype_), {shape_.begin(), shape_.end()}, offsets_[0], bytes});
    return;
  }
  NamedTensor& named = index_.tensors.emplace_back();
  named.name = std::move(name_);
  named.stored.dtype = *dtype;
  named.stored.strides = contiguous_strides(shape_);
  named.stored.shape.assign(shape_.begin(), shape_.end());
  named.stored.elements = *elements;
  named.stored.bytes = named.stored.storage_bytes = bytes;
  named.stored.file_offset = offsets_[0];
}

/// How many objects the header holds, the outermost not counted, where it is JSON: what stands in texts is passed over.
uint64_t count_objects(const io::File& file, uint64_t header_bytes) {
  Window window(file, kLengthBytes + header_bytes, kChunkBytes);
  uint64_t braces = 0;
  bool in_text = false, escaped = false;
  for (uint64_t at = 0; at < header_bytes; at += kChunkBytes) {
    for (std::byte byte :
         window.view(kLengthBytes + at, static_cast<size_t>(std::min<uint64_t>(kChunkBytes, header_bytes - at)))) {
      const char c = static_cast<char>(byte);
      if (escaped) {
        escaped = false;
      } else if (c == '"') {
        in_text = !in_text;
      } else if (in_text) {
        escaped = c == '\\';
      } else {
        braces += c == '{';
      }
    }
  }
  return std::min(braces, header_bytes / kLeastBytesOfTensor + 1);
}

}  // namespace

void parse_safetensors_header(const io::File& file, uint64_t header_bytes, uint64_t& memory, SafetensorsIndex& index) {
  JsonText text(file, kLengthBytes, kLengthBytes + header_bytes, "header");
  Handler handler(text, memory, index);
  // A vector that grew would hold its tensors twice.
  handler.reserve(count_objects(file, header_bytes));
  handler.parse();
  memory = handler.memory();
}

}  // namespace ckpt::format
