// Tensors in the memory of a mapped file.
#include <ATen/ATen.h>

#include "libtorch/bridge/mapped_tensor.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/model/model_state_impl.h"

namespace ckpt {
namespace model {

Mappings::Mappings(const weights::Weights& file) {
  for (const auto& one : file.files()) bytes_.push_back(one->stat().bytes);
  mapped_.resize(bytes_.size());
}

std::shared_ptr<const io::MappedFile> Mappings::of(const weights::Weights& file, uint32_t place) {
  const io::File& wanted = *file.files()[place];
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const io::MappedFile> mapped = mapped_[place].lock();
  if (!mapped) {
    mapped = std::make_shared<const io::MappedFile>(wanted, bytes_[place]);
    mapped_[place] = mapped;
  } else {
    wanted.require_size(bytes_[place]);
  }
  return mapped;
}

}  // namespace model

at::Tensor ModelState::mapped(std::string_view name, const ReadOptions& options) const {
  const size_t place = impl_->place_of(name);
  if (!impl_->file || !bridge::can_be_mapped(impl_->file->tensors()[place].stored)) return tensor(name, options);
  return bridge::wrap_errors(impl_->path, "mapping a tensor", [&] {
    const weights::Weights& file = *impl_->file;
    const weights::Tensor* const tensor = &file.tensors()[place];
    if (options.verify) file.verify(std::span(&tensor, 1), model::threads_of(options.threads));
    return bridge::mapped_tensor(impl_->mappings->of(file, tensor->file), tensor->stored);
  });
}

}  // namespace ckpt
