#include "core/weights/names.h"

#include <algorithm>
#include <string_view>
#include <tuple>

#include "core/base/name_order.h"
#include "core/base/quote.h"
#include "core/weights/module_metadata.h"

namespace ckpt::weights {
namespace {

/// Sizes and strides of the dimensions that are more than one place long; a stride over one place is never used.
template <class Visit>
void for_each_long_dimension(const format::StoredTensor& tensor, Visit visit) {
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    if (tensor.shape[d] != 1) visit(tensor.strides[d]);
  }
}

bool same_strides(const format::StoredTensor& a, const format::StoredTensor& b) {
  for (size_t d = 0; d < a.shape.size(); ++d) {
    if (a.shape[d] != 1 && a.strides[d] != b.strides[d]) return false;
  }
  return true;
}

bool can_be_tied(const Tensor& tensor) {
  return tensor.stored.elements != 0 && tensor.stored.layout != format::TensorLayout::kSparse;
}

}  // namespace

void strip_wrappers(Contents& contents) {
  const std::string wrappers = wrapper_prefix(contents.tensors, &Tensor::name);
  if (wrappers.empty()) return;
  for (Tensor& tensor : contents.tensors) tensor.name.erase(0, wrappers.size());
  strip_module_paths(contents.module_metadata, wrappers);
}

std::vector<uint32_t> index_names(const Contents& contents) {
  const std::vector<Tensor>& tensors = contents.tensors;
  std::vector<uint32_t> order =
      order_by_name(tensors.size(), [&](size_t i) -> std::string_view { return tensors[i].name; });
  const auto twice = std::adjacent_find(order.begin(), order.end(),
                                        [&](uint32_t a, uint32_t b) { return tensors[a].name == tensors[b].name; });
  if (twice != order.end()) {
    const std::string& name = tensors[*twice].name;
    throw Error(ErrorCode::kCorrupt, contents.path, "two tensors " + quote(name), {.tensor = name});
  }
  return order;
}

void find_ties(std::vector<Tensor>& tensors) {
  std::vector<uint32_t> order;
  order.reserve(tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) {
    if (can_be_tied(tensors[i])) order.push_back(i);
  }
  const auto key = [&](uint32_t i) {
    const format::StoredTensor& stored = tensors[i].stored;
    return std::tie(tensors[i].file, stored.file_offset, stored.storage_offset, stored.dtype, stored.layout,
                    stored.shape);
  };
  const auto before = [&](uint32_t a, uint32_t b) {
    if (key(a) != key(b)) return key(a) < key(b);
    std::vector<int64_t> strides_a, strides_b;
    for_each_long_dimension(tensors[a].stored, [&](int64_t stride) { strides_a.push_back(stride); });
    for_each_long_dimension(tensors[b].stored, [&](int64_t stride) { strides_b.push_back(stride); });
    return strides_a != strides_b ? strides_a < strides_b : a < b;
  };
  if (!std::is_sorted(order.begin(), order.end(), before)) std::sort(order.begin(), order.end(), before);
  size_t first = 0;
  for (size_t i = 1; i < order.size(); ++i) {
    const uint32_t known = order[first], one = order[i];
    const bool same = key(known) == key(one) && same_strides(tensors[known].stored, tensors[one].stored);
    if (same) {
      tensors[one].tied_to = static_cast<int32_t>(known);
    } else {
      first = i;
    }
  }
}

}  // namespace ckpt::weights
