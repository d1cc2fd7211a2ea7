// Writes values as a pickle of protocol 2: the subset that torch.load(weights_only=True) reads from 1.13 on, and what
// LibTorch reads in its archives.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "core/format/tensors_to_write.h"

namespace ckpt::format {

struct PickleValue;
struct PickleEntry;
using PickleItems = std::vector<PickleValue>;

/// What a Python program would have pickled.
struct PickleValue {
  struct None {};
  struct Tensor {
    size_t index = 0;  ///< in the list of tensors that the file is written with
  };
  struct List {
    PickleItems items;
  };
  struct Tuple {
    PickleItems items;
  };
  /// Keys are kept in order. `ordered`: a collections.OrderedDict, whose attribute `_metadata` is `metadata` where that
  /// is not empty.
  struct Dict {
    std::vector<PickleEntry> items;
    bool ordered = false;
    PickleItems metadata = {};  ///< none or one
  };
  std::variant<None, bool, int64_t, double, std::string, Tensor, List, Tuple, Dict> value;
};

/// Key and value. No std::pair: its constructors ask what a PickleValue can be made of while that is being told.
struct PickleEntry {
  PickleEntry(PickleValue key, PickleValue value) : first(std::move(key)), second(std::move(value)) {}

  PickleValue first;
  PickleValue second;
};

enum class PickleReader {
  kPython,    ///< torch.load(weights_only=True): dtypes without a class of storage by _rebuild_tensor_v3
  kLibTorch,  ///< its Unpickler: a class of storage for every dtype, and parameters that ask for gradients
};

/// A pickle under way. Texts, globals and storages that recur are written once. Holds no more than the pickle and what
/// may recur.
class PickleWriter {
 public:
  /// `tensors`, which passed check_tensors(), outlive this.
  PickleWriter(PickleReader reader, const std::vector<TensorToWrite>& tensors);

  void none();
  void boolean(bool value);
  void integer(int64_t value);
  void number(double value);
  /// kInvalid where it is not UTF-8, or longer than 4 GiB.
  void text(std::string_view value);
  void global(std::string_view module, std::string_view name);
  /// kInvalid where `index` is no place in the tensors.
  void tensor(size_t index);
  /// What `write_item(i)` writes, as a tuple, as a list, and as what is put into the dictionary before it (of which an
  /// item is key and value).
  template <class WriteItem>
  void tuple(size_t count, const WriteItem& write_item);
  template <class WriteItem>
  void list(size_t count, const WriteItem& write_item);
  template <class WriteItem>
  void set_items(size_t count, const WriteItem& write_item);
  void empty_dict() { op('}'); }
  void empty_tuple() { op(')'); }
  /// Calls the global before the tuple before it.
  void reduce() { op('R'); }
  void new_object() { op('\x81'); }
  /// Gives the object its attributes: the dictionary before it.
  void build() { op('b'); }

  /// kInvalid for keys that are there twice or that no dictionary can hold, and more than 1,000 values inside each
  /// other.
  void value(const PickleValue& value);

  /// The whole pickle. Nothing may be written afterwards.
  std::string finish();
  /// The tensors whose data are the storages "0", "1", ...
  const std::vector<size_t>& storages() const { return storages_; }

 private:
  void op(char code) { stream_ += code; }
  /// Writes that it recurs and returns true, or gives it the last place in the memo: it is to be written and memoized.
  bool recall(std::string key);
  void memoize(size_t place);
  void storage(size_t index, std::string_view module, std::string_view name, uint64_t count);
  void integers(const std::vector<int64_t>& values);
  void dict(const PickleValue::Dict& dict);

  PickleReader reader_;
  const std::vector<TensorToWrite>& tensors_;
  std::string stream_;
  std::unordered_map<std::string, uint32_t> memo_;
  std::vector<size_t> storages_;
  int depth_ = 0;
};

// As many items at once as Python's pickle puts: a reader's stack stays small.
inline constexpr size_t kPickleBatch = 1000;

template <class WriteItem>
void PickleWriter::tuple(size_t count, const WriteItem& write_item) {
  if (count == 0) return empty_tuple();
  if (count > 3) op('(');
  for (size_t i = 0; i < count; ++i) write_item(i);
  op(count > 3 ? 't' : static_cast<char>('\x84' + count));  // TUPLE, TUPLE1, TUPLE2, TUPLE3
}

template <class WriteItem>
void PickleWriter::list(size_t count, const WriteItem& write_item) {
  op(']');
  for (size_t i = 0; i < count; ++i) {
    if (i % kPickleBatch == 0) op('(');
    write_item(i);
    if ((i + 1) % kPickleBatch == 0 || i + 1 == count) op('e');
  }
}

template <class WriteItem>
void PickleWriter::set_items(size_t count, const WriteItem& write_item) {
  for (size_t i = 0; i < count; ++i) {
    if (i % kPickleBatch == 0) op('(');
    write_item(i);
    if ((i + 1) % kPickleBatch == 0 || i + 1 == count) op('u');
  }
}

}  // namespace ckpt::format
