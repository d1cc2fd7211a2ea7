// Writes values as a pickle of protocol 2, the subset that torch.load(weights_only=True) reads from 1.13 on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ckpt::format {

struct PickleValue;
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
    std::vector<std::pair<PickleValue, PickleValue>> items;
    bool ordered = false;
    PickleItems metadata = {};  ///< none or one
  };
  std::variant<None, bool, int64_t, double, std::string, Tensor, List, Tuple, Dict> value;
};

}  // namespace ckpt::format
