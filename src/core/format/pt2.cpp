#include "core/format/pt2.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "core/base/checksum.h"
#include "core/base/quote.h"
#include "core/format/json_stream.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

constexpr std::string_view kFolder = "data/weights/";
constexpr std::string_view kTableEnd = "_weights_config.json";
constexpr size_t kChunkBytes = 65536;
constexpr uint64_t kStrided = 7;  // of torch._export.serde.schema.Layout

/// By the numbers of torch._export.serde.schema.ScalarType.
std::optional<DType> dtype_from_number(uint64_t number) {
  constexpr std::array kFrom1 = {DType::kUInt8,     DType::kInt8,      DType::kInt16,      DType::kInt32,
                                 DType::kInt64,     DType::kFloat16,   DType::kFloat32,    DType::kFloat64,
                                 DType::kComplex32, DType::kComplex64, DType::kComplex128, DType::kBool,
                                 DType::kBFloat16};
  constexpr std::array kFrom28 = {DType::kUInt16,         DType::kFloat8E4M3FN,   DType::kFloat8E5M2,
                                  DType::kFloat8E4M3FNUZ, DType::kFloat8E5M2FNUZ, DType::kFloat8E8M0FNU,
                                  DType::kUInt32,         DType::kUInt64};
  if (number >= 1 && number < 1 + kFrom1.size()) return kFrom1[static_cast<size_t>(number - 1)];
  if (number >= 28 && number < 28 + kFrom28.size()) return kFrom28[static_cast<size_t>(number - 28)];
  return std::nullopt;
}

std::string text_of(const ZipReader& zip, std::string_view name, std::string_view if_absent) {
  const ZipRecord* record = zip.find(name);
  if (!record) return std::string(if_absent);
  return std::string(as_text(zip.read(*record, 64)));
}

bool is_big_endian(const ZipReader& zip) {
  const std::string order = text_of(zip, "byteorder", "little");
  if (order != "little" && order != "big") {
    throw Error(ErrorCode::kCorrupt, zip.file().path(),
                "expected byte order \"little\" or \"big\", found " + quote(order));
  }
  return order == "big";
}

/// One table, in the order of its parts: what a weight is, then where it lies.
class Handler : public JsonHandler {
 public:
  /// `prefix` stands before all names.
  Handler(JsonText& text, uint64_t memory, const ZipReader& zip, std::string prefix, std::vector<NamedTensor>& weights)
      : JsonHandler(text, memory),
        zip_(zip),
        limit_(zip.file().stat().bytes + (64 << 20)),
        big_endian_(is_big_endian(zip)),
        prefix_(std::move(prefix)),
        weights_(weights) {}

  /// Before parse(): room for so many more. A vector that grew would hold its weights twice.
  void reserve(size_t more) {
    charge((weights_.size() + more) * sizeof(NamedTensor));
    weights_.reserve(weights_.size() + more);
  }
  bool has_config() const { return config_seen_; }
  /// Names of those that are pickled: a few of them, and how many there are.
  const std::vector<std::string>& pickled() const { return pickled_; }
  uint64_t pickled_count() const { return pickled_count_; }

 private:
  /// What encloses the value at hand.
  enum class In { kFile, kTable, kConfig, kWeight, kMeta, kSizes, kStrides, kNumber, kExpression, kHint };
  enum Field : uint32_t {
    kPathName = 1,
    kIsParam = 2,
    kUsePickle = 4,
    kTensorMeta = 8,
    kDType = 16,
    kSizesField = 32,
    kStridesField = 64,
    kOffset = 128,
    kLayout = 256,
    kRequiresGrad = 512,
  };

  void on_object() override;
  void on_object_end() override;
  void on_array() override;
  void on_array_end() override { in_.pop_back(); }
  void on_key(std::string& key) override;
  void on_text(std::string& value) override;
  void on_boolean(bool value) override;
  void on_null() override;
  void on_unsigned(uint64_t value) override;
  void on_negative(int64_t value) override { number(value); }

  void field(std::string_view key, std::initializer_list<std::pair<std::string_view, Field>> known);
  void number(int64_t value);
  void finish_number();
  void finish_weight();

  const ZipReader& zip_;
  const uint64_t limit_;
  const bool big_endian_;
  const std::string prefix_;
  std::vector<NamedTensor>& weights_;
  bool config_seen_ = false;
  std::vector<std::string> pickled_;
  uint64_t pickled_count_ = 0;

  std::vector<In> in_ = {In::kFile};
  std::string key_;
  // Of the weight at hand.
  uint32_t seen_ = 0;   // fields
  uint32_t field_ = 0;  // at hand
  std::string path_name_;
  bool is_param_ = false, use_pickle_ = false, has_meta_ = false, requires_grad_ = false;
  uint64_t dtype_ = 0, layout_ = 0;
  std::vector<int64_t> sizes_, strides_;
  int64_t offset_ = 0;
  std::optional<int64_t> number_;  // of a size, stride or offset
};

void Handler::on_object() {
  switch (in_.back()) {
    case In::kFile:
      return in_.push_back(In::kTable);
    case In::kTable:
      return in_.push_back(In::kConfig);
    case In::kConfig:
      seen_ = 0;
      is_param_ = use_pickle_ = has_meta_ = requires_grad_ = false;
      return in_.push_back(In::kWeight);
    case In::kWeight:
      if (field_ != kTensorMeta) unexpected("an object");
      has_meta_ = true;
      return in_.push_back(In::kMeta);
    case In::kMeta:
      if (field_ != kOffset) unexpected("an object");
      [[fallthrough]];
    case In::kSizes:
    case In::kStrides:
      number_.reset();
      return in_.push_back(In::kNumber);
    case In::kNumber:
      if (key_ != "as_expr") unexpected("an object");
      return in_.push_back(In::kExpression);
    case In::kExpression:
      return in_.push_back(In::kHint);
    case In::kHint:
      unexpected("an object");
  }
}

void Handler::on_object_end() {
  const In ended = in_.back();
  in_.pop_back();
  if (ended == In::kWeight) finish_weight();
  if (ended == In::kNumber) finish_number();
}

void Handler::on_array() {
  if (in_.back() != In::kMeta || (field_ != kSizesField && field_ != kStridesField)) unexpected("an array");
  (field_ == kSizesField ? sizes_ : strides_).clear();
  in_.push_back(field_ == kSizesField ? In::kSizes : In::kStrides);
}

void Handler::on_key(std::string& key) {
  switch (in_.back()) {
    case In::kTable:
      if (key != "config") return skip_value();
      if (config_seen_) fail("\"config\" is there twice");
      config_seen_ = true;
      return;
    case In::kConfig:
      if (prefix_.size() + key.size() > kMaxNameBytes) fail("a name of " + std::to_string(key.size()) + " bytes");
      name_ = prefix_ + key;
      return;
    case In::kWeight:
      return field(
          key,
          {{"path_name", kPathName}, {"is_param", kIsParam}, {"use_pickle", kUsePickle}, {"tensor_meta", kTensorMeta}});
    case In::kMeta:
      return field(key, {{"dtype", kDType},
                         {"sizes", kSizesField},
                         {"strides", kStridesField},
                         {"storage_offset", kOffset},
                         {"layout", kLayout},
                         {"requires_grad", kRequiresGrad}});
    case In::kExpression:
      if (key != "hint") skip_value();  // expr_str
      return;
    default:
      key_ = std::move(key);
  }
}

/// Fields of newer versions are passed over.
void Handler::field(std::string_view key, std::initializer_list<std::pair<std::string_view, Field>> known) {
  const auto at = std::find_if(known.begin(), known.end(), [&](const auto& item) { return item.first == key; });
  if (at == known.end()) return skip_value();
  field_ = at->second;
  if ((seen_ & field_) != 0) fail("field " + quote(key) + " is there twice");
  seen_ |= field_;
}

void Handler::on_text(std::string& value) {
  if (in_.back() != In::kWeight || field_ != kPathName) unexpected("a text");
  path_name_ = std::move(value);
}

void Handler::on_boolean(bool value) {
  if (in_.back() == In::kWeight && field_ == kIsParam) {
    is_param_ = value;
  } else if (in_.back() == In::kWeight && field_ == kUsePickle) {
    use_pickle_ = value;
  } else if (in_.back() == In::kMeta && field_ == kRequiresGrad) {
    requires_grad_ = value;
  } else {
    unexpected(value ? "true" : "false");
  }
}

void Handler::on_null() {
  const bool no_meta = in_.back() == In::kWeight && field_ == kTensorMeta;
  const bool no_hint = in_.back() == In::kExpression;
  if (!no_meta && !no_hint) unexpected("null");
}

void Handler::on_unsigned(uint64_t value) {
  if (in_.back() == In::kMeta && field_ == kDType) {
    dtype_ = value;
  } else if (in_.back() == In::kMeta && field_ == kLayout) {
    layout_ = value;
  } else if (value > INT64_MAX) {
    unexpected(std::to_string(value));
  } else {
    number(static_cast<int64_t>(value));
  }
}

/// {"as_int": 3} or {"as_expr": {"expr_str": "s0", "hint": {"as_int": 3}}}
void Handler::number(int64_t value) {
  if ((in_.back() != In::kNumber && in_.back() != In::kHint) || key_ != "as_int" || number_) {
    unexpected(std::to_string(value));
  }
  number_ = value;
}

void Handler::finish_number() {
  if (!number_) fail("a size, stride or offset without a number", ErrorCode::kUnsupported);
  if (in_.back() == In::kMeta) {
    offset_ = *number_;
    return;
  }
  std::vector<int64_t>& list = in_.back() == In::kSizes ? sizes_ : strides_;
  if (list.size() == kMaxRank) fail("expected at most 64 dimensions");
  list.push_back(*number_);
}

void Handler::finish_weight() {
  constexpr uint32_t kNeeded = kPathName | kIsParam | kUsePickle | kTensorMeta;
  constexpr uint32_t kMetaNeeded = kDType | kSizesField | kStridesField | kOffset | kLayout;
  if ((seen_ & kNeeded) != kNeeded) fail("expected path_name, is_param, use_pickle and tensor_meta");
  if (use_pickle_) {
    if (pickled_.size() < 8) pickled_.push_back(quote(name_));
    ++pickled_count_;
    name_.clear();
    return;
  }
  if (!has_meta_ || (seen_ & kMetaNeeded) != kMetaNeeded) {
    fail("expected dtype, sizes, strides, storage_offset and layout");
  }
  const std::optional<DType> dtype = dtype_from_number(dtype_);
  if (!dtype || layout_ != kStrided) {
    fail("dtype " + std::to_string(dtype_) + " and layout " + std::to_string(layout_), ErrorCode::kUnsupported);
  }
  const ZipRecord* record = zip_.find(std::string(kFolder) + path_name_);
  if (!record) fail("no zip record " + quote(std::string(kFolder) + path_name_));
  if (record->deflated) fail("deflated zip record " + quote(record->name), ErrorCode::kUnsupported);
  charge(name_.size() + 16 + record->name.size() + 16 + 2 * (8 * sizes_.size() + 16) + 4);
  StoredTensor tensor;
  tensor.dtype = *dtype;
  tensor.shape.assign(sizes_.begin(), sizes_.end());
  tensor.strides.assign(strides_.begin(), strides_.end());
  tensor.record = record->name;
  tensor.storage_offset = record->data_offset;
  tensor.storage_bytes = record->bytes;
  tensor.is_parameter = is_param_ || requires_grad_;
  tensor.big_endian = big_endian_;
  const std::string wrong = place_in_storage(tensor, offset_, record->bytes / width(*dtype), limit_);
  if (!wrong.empty()) fail("zip record " + quote(record->name) + ": " + wrong + ",");
  weights_.push_back({std::move(name_), std::move(tensor)});
  name_.clear();
}

/// Checks its CRC. At least as many weights as there are in it: each has a path_name.
size_t check_table(const ZipReader& zip, const ZipRecord& record) {
  constexpr std::string_view kOnce = "\"path_name\"";
  Window window(zip.file(), record.data_offset + record.bytes, kChunkBytes);
  size_t count = 0;
  uint32_t crc = 0;
  for (uint64_t at = 0; at < record.bytes;) {
    const auto bytes = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, record.bytes - at));
    const ByteView chunk = window.view(record.data_offset + at, bytes);
    const std::string_view text = as_text(chunk);
    for (size_t found = 0; (found = text.find(kOnce, found)) != std::string_view::npos; ++found) ++count;
    // The last bytes are seen again, with what follows them.
    const size_t step = at + bytes == record.bytes ? bytes : bytes - (kOnce.size() - 1);
    crc = crc32(chunk.first(step), crc);
    at += step;
  }
  if (!zip.crcs_absent() && crc != record.crc) {
    throw Error(ErrorCode::kCorrupt, zip.file().path(),
                "zip record " + quote(record.name) + ": expected CRC " + to_hex(record.crc).substr(8) + ", found " +
                    to_hex(crc).substr(8),
                {.offset = record.data_offset});
  }
  return count;
}

/// Appends what is in one table; takes what it needs from `memory`.
void read_table(const ZipReader& zip, const ZipRecord& record, const std::string& prefix, uint64_t& memory,
                std::vector<NamedTensor>& weights) {
  const std::string where = "zip record " + quote(record.name);
  if (record.deflated) {
    throw Error(ErrorCode::kUnsupported, zip.file().path(), where + ": is deflated", {.offset = record.data_offset});
  }
  const size_t count = check_table(zip, record);
  JsonText text(zip.file(), record.data_offset, record.data_offset + record.bytes, where);
  Handler handler(text, memory, zip, prefix, weights);
  handler.reserve(count);
  handler.parse();
  if (!handler.has_config()) text.fail(ErrorCode::kCorrupt, "it has no \"config\"");
  if (handler.pickled_count() != 0) {
    std::string names;
    for (const std::string& name : handler.pickled()) names += (names.empty() ? "" : ", ") + name;
    text.fail(ErrorCode::kUnsupported, std::to_string(handler.pickled_count()) +
                                           " weights are pickled (tensors of a Python subclass): " + names);
  }
  memory = handler.memory();
}

bool is_table(const ZipRecord& record) {
  return record.name.size() > kFolder.size() + kTableEnd.size() && record.name.starts_with(kFolder) &&
         record.name.ends_with(kTableEnd);
}

void check_names(const std::vector<NamedTensor>& weights, const std::string& path) {
  std::vector<uint32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return weights[a].name < weights[b].name; });
  const auto twice = std::adjacent_find(order.begin(), order.end(),
                                        [&](uint32_t a, uint32_t b) { return weights[a].name == weights[b].name; });
  if (twice != order.end()) {
    const std::string& name = weights[*twice].name;
    throw Error(ErrorCode::kCorrupt, path, "two weights " + quote(name), {.tensor = name});
  }
}

}  // namespace

bool is_pt2(const ZipReader& zip) { return zip.find("archive_format") != nullptr; }

std::vector<NamedTensor> read_pt2(const ZipReader& zip) {
  const std::string& path = zip.file().path();
  const std::string format = text_of(zip, "archive_format", ""), version = text_of(zip, "archive_version", "0");
  if (format != "pt2" || version != "0") {
    throw Error(
        ErrorCode::kUnsupported, path,
        "expected an archive of format \"pt2\" and version \"0\", found " + quote(format) + " and " + quote(version));
  }
  std::vector<const ZipRecord*> tables;
  uint64_t memory = zip.file().stat().bytes + kMemoryBeyondFile;
  memory -= std::min(memory, zip.memory());
  for (const ZipRecord& record : zip.records()) {
    if (is_table(record)) tables.push_back(&record);
  }
  if (tables.empty()) {
    throw Error(ErrorCode::kUnsupported, path, "it holds no table of weights (data/weights/*_weights_config.json)");
  }
  std::vector<NamedTensor> weights;
  for (const ZipRecord* table : tables) {
    const size_t begin = kFolder.size(), end = table->name.size() - kTableEnd.size();
    const std::string prefix = tables.size() > 1 ? table->name.substr(begin, end - begin) + "." : "";
    read_table(zip, *table, prefix, memory, weights);
  }
  check_names(weights, path);
  return weights;
}

}  // namespace ckpt::format
