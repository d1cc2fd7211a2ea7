#include "libtorch/bridge/mapped_tensor.h"

#include <ATen/ATen.h>

#include <bit>

#include "libtorch/bridge/tensors.h"

namespace ckpt::bridge {

bool can_be_mapped(const format::StoredTensor& stored) {
  const uint64_t bytes = width(stored.dtype);
  const bool own_order = bytes == 1 || stored.big_endian == (std::endian::native == std::endian::big);
  return stored.layout == format::TensorLayout::kStrided && stored.elements != 0 && stored.dtype != DType::kBool &&
         own_order && stored.file_offset % bytes == 0 && scalar_type_of(stored.dtype);
}

at::Tensor mapped_tensor(std::shared_ptr<const io::MappedFile> file, const format::StoredTensor& stored) {
  std::byte* const first = file->data() + stored.file_offset;
  const at::TensorOptions options(*scalar_type_of(stored.dtype));
  return at::from_blob(
      first, stored.shape, stored.strides, [file = std::move(file)](void*) {}, options);
}

}  // namespace ckpt::bridge
