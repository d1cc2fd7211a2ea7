#include "core/format/tensors_to_write.h"

#include "core/base/checked.h"
#include "core/base/quote.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

[[noreturn]] void fail(const TensorToWrite& tensor, const std::string& what, ErrorCode code = ErrorCode::kInvalid) {
  throw Error(code, "", "tensor " + quote(tensor.name) + ": " + what, {.tensor = tensor.name});
}

void check_tie(const TensorToWrite& tensor, const std::vector<TensorToWrite>& tensors) {
  if (tensor.tied_to < 0 || static_cast<uint64_t>(tensor.tied_to) >= tensors.size()) {
    fail(tensor, "is tied to tensor " + std::to_string(tensor.tied_to) + " of " + std::to_string(tensors.size()));
  }
  const TensorToWrite& first = tensors[static_cast<size_t>(tensor.tied_to)];
  if (first.tied_to != -1) fail(tensor, "is tied to " + quote(first.name) + ", which is tied itself");
  if (first.dtype != tensor.dtype || first.shape != tensor.shape) {
    fail(tensor, "is tied to " + quote(first.name) + ", which has another dtype or shape");
  }
  if (tensor.data.bytes != 0) fail(tensor, "is tied to " + quote(first.name) + ", but has data of its own");
}

}  // namespace

void check_data(const TensorToWrite& tensor) {
  if (tensor.shape.size() > kMaxRank) {
    fail(tensor, "expected at most 64 dimensions, found " + std::to_string(tensor.shape.size()));
  }
  const std::optional<uint64_t> elements = element_count(tensor.shape);
  const std::optional<uint64_t> bytes = elements ? checked_mul(*elements, width(tensor.dtype)) : std::nullopt;
  if (!bytes || *bytes != tensor.data.bytes) {
    fail(tensor, "expected " + (bytes ? std::to_string(*bytes) : "fewer") + " bytes, found " +
                     std::to_string(tensor.data.bytes));
  }
  if (!tensor.data.produce && tensor.data.memory.size() != tensor.data.bytes) {
    fail(tensor, "said to be " + std::to_string(tensor.data.bytes) + " bytes, but given " +
                     std::to_string(tensor.data.memory.size()));
  }
}

void check_tensors(const std::vector<TensorToWrite>& tensors) {
  for (const TensorToWrite& tensor : tensors) {
    if (is_quantized(tensor.dtype)) {
      fail(tensor, "of the quantized dtype " + std::string(name(tensor.dtype)) + " cannot be written",
           ErrorCode::kUnsupported);
    }
    if (tensor.tied_to != -1)
      check_tie(tensor, tensors);
    else
      check_data(tensor);
  }
}

}  // namespace ckpt::format
