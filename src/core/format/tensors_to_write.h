// Tensors that a writer is given.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/format/bytes_to_write.h"

namespace ckpt::format {

/// Row-major, little-endian.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  BytesToWrite data = {};
  bool is_parameter = false;
  /// Where this is a further name of another tensor: that one's place in the list; it is no tie itself, and `data` of
  /// this one is empty then.
  int64_t tied_to = -1;
};

/// A text of a file that is known only when the data of all tensors have been asked for: where a writer takes one, it
/// calls `make` then. What that throws ends the writing.
struct LateText {
  std::string key;
  std::string sample;  ///< takes as many bytes as what `make` gives, written as JSON, too
  std::function<std::string()> make;
};

/// kInvalid where the data do not fit the shape, or there are more than 64 dimensions.
void check_data(const TensorToWrite& tensor);

/// check_data() of all; kInvalid too where a tie does not lead to a tensor of the same dtype and shape that has data;
/// kUnsupported for quantized dtypes.
void check_tensors(const std::vector<TensorToWrite>& tensors);

}  // namespace ckpt::format
