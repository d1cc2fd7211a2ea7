#include "core/format/pickle_writer.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/base/quote.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

constexpr int kMaxDepth = 1000;

[[noreturn]] void invalid(const std::string& message) { throw Error(ErrorCode::kInvalid, "", "pickle: " + message); }

/// Whether Python has a class for storages of `dtype`: the list has been closed since 1.13.
bool has_python_class(DType dtype) {
  switch (dtype) {
    case DType::kUInt16:
    case DType::kUInt32:
    case DType::kUInt64:
    case DType::kComplex32:
      return false;
    default:
      return dtype < DType::kFloat8E4M3FN;
  }
}

void check_keys(const PickleValue::Dict& dict) {
  std::vector<std::string_view> texts;
  std::vector<int64_t> integers;
  for (const auto& [key, value] : dict.items) {
    if (const auto* text = std::get_if<std::string>(&key.value)) texts.push_back(*text);
    if (const auto* integer = std::get_if<int64_t>(&key.value)) integers.push_back(*integer);
    if (std::holds_alternative<PickleValue::List>(key.value) || std::holds_alternative<PickleValue::Dict>(key.value)) {
      invalid("a list or dictionary as key of a dictionary");
    }
  }
  std::sort(texts.begin(), texts.end());
  std::sort(integers.begin(), integers.end());
  if (const auto twice = std::adjacent_find(texts.begin(), texts.end()); twice != texts.end()) {
    invalid("a dictionary with two keys " + quote(*twice));
  }
  if (const auto twice = std::adjacent_find(integers.begin(), integers.end()); twice != integers.end()) {
    invalid("a dictionary with two keys " + std::to_string(*twice));
  }
}

}  // namespace

PickleWriter::PickleWriter(PickleReader reader, const std::vector<TensorToWrite>& tensors)
    : reader_(reader), tensors_(tensors), stream_("\x80\x02") {}

void PickleWriter::memoize(size_t place) {
  op(place < 256 ? 'q' : 'r');  // BINPUT, LONG_BINPUT
  append_le(stream_, place, place < 256 ? 1 : 4);
}

bool PickleWriter::recall(std::string key) {
  const auto [at, is_new] = memo_.emplace(std::move(key), static_cast<uint32_t>(memo_.size()));
  if (is_new) return false;
  op(at->second < 256 ? 'h' : 'j');  // BINGET, LONG_BINGET
  append_le(stream_, at->second, at->second < 256 ? 1 : 4);
  return true;
}

void PickleWriter::none() { op('N'); }

void PickleWriter::boolean(bool value) { op(value ? '\x88' : '\x89'); }

void PickleWriter::integer(int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  if (bits <= 0xff) {
    op('K');  // BININT1
    append_le(stream_, bits, 1);
  } else if (bits <= 0xffff) {
    op('M');  // BININT2
    append_le(stream_, bits, 2);
  } else if (value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max()) {
    op('J');  // BININT
    append_le(stream_, bits, 4);
  } else {
    stream_ += "\x8a\x08";  // LONG1; LibTorch reads 8 bytes alone
    append_le(stream_, bits, 8);
  }
}

void PickleWriter::number(double value) {
  op('G');  // BINFLOAT, the highest byte first
  const auto bits = std::bit_cast<uint64_t>(value);
  for (int i = 7; i >= 0; --i) op(static_cast<char>(bits >> (8 * i)));
}

void PickleWriter::text(std::string_view value) {
  if (!is_utf8(value)) invalid("the text " + quote(value) + " is not UTF-8");
  if (value.size() > UINT32_MAX) invalid("a text of " + std::to_string(value.size()) + " bytes");
  if (recall("X" + std::string(value))) return;
  op('X');  // BINUNICODE
  append_le(stream_, value.size(), 4);
  stream_ += value;
  memoize(memo_.size() - 1);
}

void PickleWriter::global(std::string_view module, std::string_view name) {
  std::string opcode = "c" + std::string(module) + "\n" + std::string(name) + "\n";
  if (recall(opcode)) return;
  stream_ += opcode;
  memoize(memo_.size() - 1);
}

void PickleWriter::integers(const std::vector<int64_t>& values) {
  tuple(values.size(), [&](size_t i) { integer(values[i]); });
}

// ("storage", class, key, location, count) as persistent id.
void PickleWriter::storage(size_t index, std::string_view module, std::string_view name, uint64_t count) {
  if (recall("Q" + std::to_string(index))) return;
  const size_t place = memo_.size() - 1;
  op('(');
  text("storage");
  global(module, name);
  const std::string key = std::to_string(storages_.size());
  op('X');  // no text(): each comes once
  append_le(stream_, key.size(), 4);
  stream_ += key;
  text("cpu");
  integer(static_cast<int64_t>(count));
  stream_ += "tQ";  // TUPLE, BINPERSID
  memoize(place);
  storages_.push_back(index);
}

void PickleWriter::tensor(size_t index) {
  if (index >= tensors_.size()) {
    invalid("tensor " + std::to_string(index) + " of " + std::to_string(tensors_.size()));
  }
  const TensorToWrite& tensor = tensors_[index];
  const size_t owner = tensor.tied_to == -1 ? index : static_cast<size_t>(tensor.tied_to);
  const uint64_t bytes = tensors_[owner].data.bytes;
  const bool typed = reader_ == PickleReader::kLibTorch || has_python_class(tensor.dtype);
  // Only what has a derivative may ask for one.
  const bool gradient = reader_ == PickleReader::kLibTorch && tensor.is_parameter &&
                        (is_floating(tensor.dtype) || is_complex(tensor.dtype));
  global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  op('(');
  if (typed)
    storage(owner, "torch", storage_class(tensor.dtype), bytes / width(tensor.dtype));
  else
    storage(owner, "torch.storage", "UntypedStorage", bytes);
  integer(0);  // offset in the storage
  integers(tensor.shape);
  integers(contiguous_strides(tensor.shape));
  boolean(gradient);
  global("collections", "OrderedDict");  // hooks: none
  empty_tuple();
  reduce();
  if (!typed) global("torch", name(tensor.dtype));
  op('t');
  reduce();
}

void PickleWriter::dict(const PickleValue::Dict& dict) {
  check_keys(dict);
  if (dict.ordered) {
    global("collections", "OrderedDict");
    empty_tuple();
    reduce();
  } else {
    empty_dict();
  }
  set_items(dict.items.size(), [&](size_t i) {
    value(dict.items[i].first);
    value(dict.items[i].second);
  });
  if (dict.metadata.empty()) return;
  if (!dict.ordered || dict.metadata.size() > 1) invalid("metadata of a dictionary that has no attributes");
  empty_dict();
  set_items(1, [&](size_t) {
    text("_metadata");
    value(dict.metadata[0]);
  });
  build();
}

void PickleWriter::value(const PickleValue& value) {
  if (++depth_ > kMaxDepth) invalid("more than 1,000 values inside each other");
  std::visit(
      [&](const auto& held) {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, PickleValue::None>) none();
        if constexpr (std::is_same_v<Held, bool>) boolean(held);
        if constexpr (std::is_same_v<Held, int64_t>) integer(held);
        if constexpr (std::is_same_v<Held, double>) number(held);
        if constexpr (std::is_same_v<Held, std::string>) text(held);
        if constexpr (std::is_same_v<Held, PickleValue::Tensor>) tensor(held.index);
        if constexpr (std::is_same_v<Held, PickleValue::List>) {
          list(held.items.size(), [&](size_t i) { this->value(held.items[i]); });
        }
        if constexpr (std::is_same_v<Held, PickleValue::Tuple>) {
          tuple(held.items.size(), [&](size_t i) { this->value(held.items[i]); });
        }
        if constexpr (std::is_same_v<Held, PickleValue::Dict>) dict(held);
      },
      value.value);
  --depth_;
}

std::string PickleWriter::finish() {
  op('.');
  return std::move(stream_);
}

}  // namespace ckpt::format
