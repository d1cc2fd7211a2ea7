#include "core/weights/weights.h"

#include <algorithm>

#include "core/weights/names.h"

namespace ckpt::weights {
namespace {

/// Where the last element of a tensor ends, in the file.
uint64_t end_of(const format::StoredTensor& stored) {
  uint64_t last = 0;
  for (size_t d = 0; d < stored.shape.size(); ++d) {
    last += static_cast<uint64_t>(stored.shape[d] - 1) * static_cast<uint64_t>(stored.strides[d]);
  }
  return stored.file_offset + (last + 1) * width(stored.dtype);
}

bool has_elements(const Tensor& tensor) {
  return tensor.stored.elements != 0 && tensor.stored.layout != format::TensorLayout::kSparse;
}

}  // namespace

Weights::Weights(Contents contents, bool strip) : contents_(std::move(contents)) {
  if (contents_.tensors.empty() && contents_.opaque.empty())
    throw Error(ErrorCode::kNotFound, contents_.path, "holds no tensors");
  if (strip) strip_wrappers(contents_);
  by_name_ = index_names(contents_);
  find_ties(contents_.tensors);
}

const Tensor* Weights::find(std::string_view name) const {
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name, [&](uint32_t i, std::string_view wanted) {
    return contents_.tensors[i].name < wanted;
  });
  if (found == by_name_.end() || contents_.tensors[*found].name != name) return nullptr;
  return &contents_.tensors[*found];
}

uint64_t Weights::wasted_bytes() const {
  std::vector<const Tensor*> order;
  for (const Tensor& tensor : contents_.tensors) {
    if (tensor.stored.layout != format::TensorLayout::kSparse) order.push_back(&tensor);
  }
  const auto storage = [](const Tensor* one) { return std::pair(one->file, one->stored.storage_offset); };
  std::sort(order.begin(), order.end(), [&](const Tensor* a, const Tensor* b) {
    return storage(a) != storage(b) ? storage(a) < storage(b) : a->stored.file_offset < b->stored.file_offset;
  });
  uint64_t wasted = 0;
  for (size_t i = 0; i < order.size();) {
    const auto here = storage(order[i]);
    uint64_t storage_bytes = 0, covered = 0, end = 0;
    for (; i < order.size() && storage(order[i]) == here; ++i) {
      const format::StoredTensor& stored = order[i]->stored;
      storage_bytes = std::max(storage_bytes, stored.storage_bytes);
      if (!has_elements(*order[i]) || end_of(stored) <= end) continue;
      covered += end_of(stored) - std::max(end, stored.file_offset);
      end = end_of(stored);
    }
    wasted += storage_bytes - std::min(storage_bytes, covered);
  }
  return wasted;
}

}  // namespace ckpt::weights
