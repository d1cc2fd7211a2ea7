#include "libtorch/bridge/archive_tensors.h"

#include <ATen/ATen.h>
#include <torch/serialize/output-archive.h>

#include <memory>
#include <type_traits>
#include <variant>

#include "ckpt/error.h"
#include "libtorch/bridge/tensors.h"

namespace ckpt::bridge {

at::Tensor ArchiveTensors::read(const format::StoredTensor& stored) {
  const auto type = scalar_type_of(stored.dtype);
  if (!type) {
    throw Error(ErrorCode::kUnsupported, file_.file().path(),
                "this LibTorch has no dtype " + std::string(name(stored.dtype)));
  }
  at::Tensor& tensor = tensors_[{stored.file_offset, static_cast<int>(stored.dtype), stored.shape, stored.strides}];
  if (tensor.defined()) return tensor;
  at::Tensor& bytes = storages_[stored.storage_offset];
  if (!bytes.defined()) {
    bytes = at::empty({static_cast<int64_t>(stored.storage_bytes)}, at::kByte);
    file_.file().read_at(stored.storage_offset, {static_cast<std::byte*>(bytes.data_ptr()), stored.storage_bytes});
  }
  const auto first = static_cast<int64_t>((stored.file_offset - stored.storage_offset) / width(stored.dtype));
  tensor = at::empty({0}, at::TensorOptions().dtype(*type)).set_(bytes.storage(), first, stored.shape, stored.strides);
  const bool differentiable = at::isFloatingType(*type) || at::isComplexType(*type);
  if (stored.is_parameter && differentiable) tensor.requires_grad_(true);
  return tensor;
}

}  // namespace ckpt::bridge
