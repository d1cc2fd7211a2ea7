// Live tensors, and those of a file, into a new file.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/weights/convert.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/model/model_state_impl.h"

namespace ckpt::model {
namespace {

constexpr uint64_t kPieceBytes = 4 << 20;

weights::ConvertOptions convert_options(const std::string& path, Format format, const SaveOptions& options) {
  if (format != Format::kSafetensors && format != Format::kTorch && format != Format::kArchive) {
    throw Error(ErrorCode::kUnsupported, path,
                "cannot be written as " + std::string(to_string(format)) + ", expected safetensors, torch or archive");
  }
  weights::ConvertOptions result = {.to = format, .max_shard_bytes = options.max_shard_bytes};
  if (!options.dtype.empty()) {
    result.dtype = dtype_from_name(options.dtype);
    if (!result.dtype || *result.dtype < DType::kFloat16 || *result.dtype > DType::kFloat64) {
      throw Error(ErrorCode::kInvalid, "",
                  "dtype: " + quote(options.dtype) + " is none of float16, bfloat16, float32, float64");
    }
  }
  return result;
}

/// Row-major copies on the CPU of `tensor`, by as many rows at a time as fit into a piece.
void for_each_piece(const at::Tensor& tensor, const std::function<void(const at::Tensor&)>& visit) {
  const uint64_t bytes = tensor.nbytes();
  if (bytes <= kPieceBytes || tensor.dim() == 0) {
    const auto options = tensor.options().device(at::kCPU).memory_format(at::MemoryFormat::Contiguous);
    return visit(bridge::is_plain(tensor) ? tensor : at::empty(tensor.sizes(), options).copy_(tensor));
  }
  const auto rows = static_cast<uint64_t>(tensor.size(0));
  const uint64_t step = std::max<uint64_t>(1, kPieceBytes / (bytes / rows));
  for (uint64_t row = 0; row < rows; row += step) {
    const auto first = static_cast<int64_t>(row);
    const auto count = static_cast<int64_t>(std::min(step, rows - row));
    for_each_piece(count == 1 ? tensor.select(0, first) : tensor.narrow(0, first, count), visit);
  }
}

ByteView bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

format::BytesToWrite data_of(const at::Tensor& tensor, DType from, DType to) {
  if (tensor.nbytes() == 0) return {};
  if (from == to && bridge::is_plain(tensor)) return bytes_of(tensor);
  const uint64_t bytes = static_cast<uint64_t>(tensor.numel()) * width(to);
  return {bytes, [tensor, from, to](const format::ByteSink& sink) {
            const at::NoGradGuard no_grad;  // a setting of each thread
            std::vector<std::byte> converted;
            for_each_piece(tensor.detach(), [&](const at::Tensor& piece) {
              if (from == to) return sink(bytes_of(piece));
              converted.resize(static_cast<size_t>(piece.numel()) * width(to));
              weights::convert_elements(bytes_of(piece), from, converted, to);
              sink(converted);
            });
          }};
}

}  // namespace

std::vector<std::string> save(const StateDict& tensors, const nlohmann::ordered_json& module_metadata,
                              const std::string& path, Format format, const SaveOptions& options) {
  weights::ConvertOptions convert = convert_options(path, format, options);
  const std::vector<int64_t> ties = ties_of(tensors);
  std::vector<format::TensorToWrite> list;
  list.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    const DType from = *bridge::dtype_of(tensor.scalar_type());
    const DType to = convert.dtype && is_floating(from) ? *convert.dtype : from;
    format::TensorToWrite& one = list.emplace_back();
    one.name = name;
    one.dtype = to;
    one.shape = tensor.sizes().vec();
    one.is_parameter = tensor.requires_grad();
    one.tied_to = ties[i];
    if (ties[i] < 0) one.data = data_of(tensor, from, to);
  }
  return weights::write_weights(std::move(list), path, convert, options.metadata, module_metadata);
}

std::vector<std::string> save(const weights::Weights& file, const std::string& path, Format format,
                              const SaveOptions& options) {
  const weights::ConvertOptions convert = convert_options(path, format, options);
  std::map<std::string, std::string> metadata = options.metadata;
  metadata.insert(file.metadata().begin(), file.metadata().end());
  weights::Converted report;
  return weights::write_weights(weights::select(file, convert, report), path, convert, metadata,
                                file.module_metadata());
}

}  // namespace ckpt::model
