// From a call of a rebuild function to the place of a tensor.
#include "core/base/quote.h"
#include "core/format/tensor_check.h"
#include "core/format/torch_file_impl.h"

namespace ckpt::format {
namespace {

// A subclass of Parameter with a state is three calls deep.
constexpr int kMaxCalls = 8;

std::span<const PickleNode> tuple(const Pickle& pickle, PickleNode node) {
  if (node == kNoNode || pickle.kind(node) != PickleKind::kTuple) return {};
  return pickle.items(node);
}

/// Where the arguments of a rebuild function stand; 0: it has none such.
struct Places {
  size_t fewest = 0;
  size_t most = 0;
  size_t requires_grad = 0;
  size_t dtype = 0;
  size_t metadata = 0;
};

Places places_of(TorchGlobal function) {
  switch (function) {
    case TorchGlobal::kRebuildTensor:
      return {4, 4};
    case TorchGlobal::kRebuildTensorV3:
      return {7, 8, 4, 6, 7};
    case TorchGlobal::kRebuildQuantized:
      return {7, 7, 5};
    default:
      return {6, 7, 4, 0, 6};
  }
}

}  // namespace

std::optional<TorchTensorCall> TorchFile::Impl::tensor_call(PickleNode node) const {
  TorchTensorCall call;
  for (int calls = 0; calls < kMaxCalls; ++calls) {
    if (pickle.kind(node) != PickleKind::kObject || pickle.object(node).is_new) return std::nullopt;
    call.function = meaning(pickle.object(node).callable);
    call.arguments = tuple(pickle, pickle.object(node).arguments);
    if (call.function == TorchGlobal::kRebuildFromType && call.arguments.size() == 4) {
      call.function = meaning(call.arguments[0]);
      call.arguments = tuple(pickle, call.arguments[2]);
      if (call.function == TorchGlobal::kRebuildFromType) return std::nullopt;
    }
    if (!rebuilds_tensor(call.function)) return std::nullopt;
    if (call.function != TorchGlobal::kRebuildParameter || call.arguments.empty()) return call;
    call.is_parameter = true;
    node = call.arguments[0];
  }
  return std::nullopt;
}

StoredTensor TorchFile::Impl::tensor(PickleNode node) const {
  const std::optional<TorchTensorCall> call = tensor_call(node);
  if (!call) corrupt("a tensor made by something that is not understood");
  switch (call->function) {
    case TorchGlobal::kRebuildSparse:
      return sparse(*call);
    case TorchGlobal::kRebuildParameter:
    case TorchGlobal::kRebuildFromType:
      corrupt("a tensor around another, without the arguments for that");
    default:
      return strided(*call);
  }
}

StoredTensor TorchFile::Impl::strided(const TorchTensorCall& call) const {
  const auto& arguments = call.arguments;
  const Places places = places_of(call.function);
  if (arguments.size() < places.fewest || arguments.size() > places.most) {
    corrupt("expected " + std::to_string(places.fewest) + " to " + std::to_string(places.most) +
            " arguments of a tensor, found " + std::to_string(arguments.size()));
  }
  const bool has_grad = places.requires_grad != 0;
  if (pickle.kind(arguments[1]) != PickleKind::kInt ||
      (has_grad && pickle.kind(arguments[places.requires_grad]) != PickleKind::kBool)) {
    corrupt("arguments of a tensor have the wrong types");
  }
  if (places.metadata != 0 && places.metadata < arguments.size()) {
    check_math_bits(arguments[places.metadata]);
  }
  const TorchStorageUse& use = storage_use(arguments[0]);
  const TorchStorage& storage = storages[use.storage];
  StoredTensor tensor;
  tensor.dtype = storage.dtype;
  if (places.dtype != 0) {
    const auto stated = dtype(arguments[places.dtype]);
    if (!stated) fail(ErrorCode::kUnsupported, "a tensor of a dtype that is not known");
    tensor.dtype = *stated;
  }
  tensor.shape = integers(arguments[2], "sizes");
  tensor.strides = integers(arguments[3], "strides");
  tensor.is_parameter = call.is_parameter || (has_grad && pickle.boolean(arguments[places.requires_grad]));
  tensor.big_endian = big_endian;
  if (is_quantized(tensor.dtype)) tensor.layout = TensorLayout::kQuantized;
  if (storage.record) tensor.record = storage.record->name;
  tensor.storage_bytes = storage.bytes;
  tensor.storage_offset = storage.offset + use.first_byte;
  const std::string wrong =
      place_in_storage(tensor, pickle.integer(arguments[1]), use.bytes / width(tensor.dtype), file_bytes + (64 << 20));
  if (!wrong.empty())
    corrupt((storage.record ? "in zip record " + quote(tensor.record) + ": " : std::string()) + wrong);
  tensor.storage_offset = storage.offset;  // a view shares memory with the rest of its storage
  return tensor;
}

void TorchFile::Impl::check_math_bits(PickleNode metadata) const {
  const PickleKind kind = pickle.kind(metadata);
  if (kind == PickleKind::kNone) return;
  if (kind != PickleKind::kDict) corrupt("the metadata of a tensor is no dict");
  const auto items = pickle.items(metadata);
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (pickle.kind(items[i]) != PickleKind::kText || pickle.kind(items[i + 1]) != PickleKind::kBool) {
      corrupt("the metadata of a tensor are no flags");
    }
    if (pickle.boolean(items[i + 1])) {
      fail(ErrorCode::kUnsupported,
           "a tensor whose values are to be changed as they are read (" + quote(pickle.text(items[i])) + ")");
    }
  }
}

// layout, (indices, values, sizes [, coalesced]) for COO; (compressed, plain, values, sizes) for CSR and its like
StoredTensor TorchFile::Impl::sparse(const TorchTensorCall& call) const {
  const auto data = call.arguments.size() == 2 ? tuple(pickle, call.arguments[1]) : std::span<const PickleNode>();
  const PickleNode layout = data.empty() ? kNoNode : call.arguments[0];
  const auto name = layout != kNoNode && pickle.kind(layout) == PickleKind::kObject
                        ? tuple(pickle, pickle.object(layout).arguments)
                        : std::span<const PickleNode>();
  if (name.size() != 1 || pickle.kind(name[0]) != PickleKind::kText) corrupt("a sparse tensor without a layout");
  const size_t indices = pickle.text(name[0]) == "torch.sparse_coo" ? 1 : 2;
  if (data.size() != indices + 2 && data.size() != indices + 3) {
    corrupt("expected " + std::to_string(indices + 2) + " parts of a sparse tensor, found " +
            std::to_string(data.size()));
  }
  std::vector<StoredTensor> parts;
  for (size_t i = 0; i <= indices; ++i) {
    const auto part = tensor_call(data[i]);
    if (!part || places_of(part->function).fewest > part->arguments.size() ||
        part->function == TorchGlobal::kRebuildSparse) {
      corrupt("a sparse tensor whose indices or values are no tensors");
    }
    parts.push_back(strided(*part));
  }
  StoredTensor tensor;
  tensor.layout = TensorLayout::kSparse;
  tensor.dtype = parts.back().dtype;
  tensor.bytes = parts.back().bytes;
  tensor.big_endian = big_endian;
  tensor.is_parameter = call.is_parameter || parts.back().is_parameter;
  tensor.shape = integers(data[indices + 1], "sizes");
  const auto elements = element_count(tensor.shape);
  if (!elements) corrupt("a sparse tensor whose sizes are negative or too large");
  tensor.elements = *elements;
  return tensor;
}

std::vector<int64_t> TorchFile::Impl::integers(PickleNode node, const char* what) const {
  const TorchValue list = value(node);  // torch.Size is one too
  if (list.kind != TorchKind::kList) corrupt(std::string("expected a tuple as ") + what);
  if (list.items.size() > kMaxRank) {
    corrupt("expected at most 64 dimensions, found " + std::to_string(list.items.size()));
  }
  std::vector<int64_t> values;
  values.reserve(list.items.size());
  for (PickleNode item : list.items) {
    if (pickle.kind(item) != PickleKind::kInt) corrupt(std::string("expected integers as ") + what);
    values.push_back(pickle.integer(item));
  }
  return values;
}

std::optional<DType> TorchFile::Impl::dtype(PickleNode node) const {
  if (value(node).kind != TorchKind::kDType) return std::nullopt;
  return dtype_from_name(pickle.text(node));
}

StoredTensor TorchFile::tensor(PickleNode node) const { return impl_->tensor(node); }
std::optional<DType> TorchFile::dtype(PickleNode node) const { return impl_->dtype(node); }

}  // namespace ckpt::format
