#include "core/format/torch_globals.h"

#include <algorithm>
#include <array>

#include "core/base/dtype.h"

namespace ckpt::format {
namespace {

template <size_t kSize>
bool is_one_of(std::string_view name, const std::array<std::string_view, kSize>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// torch names these too, and this library has no such elements.
constexpr std::array<std::string_view, 20> kFurtherDTypes = {
    "bits1x8", "bits2x4", "bits4x2", "bits8", "bits16", "int1",  "int2",  "int3",  "int4",  "int5",
    "int6",    "int7",    "uint1",   "uint2", "uint3",  "uint4", "uint5", "uint6", "uint7", "float4_e2m1fn_x2"};
constexpr std::array<std::string_view, 11> kTorchValues = {"device",
                                                           "Tensor",
                                                           "preserve_format",
                                                           "contiguous_format",
                                                           "channels_last",
                                                           "channels_last_3d",
                                                           "per_tensor_affine",
                                                           "per_tensor_symmetric",
                                                           "per_channel_affine",
                                                           "per_channel_symmetric",
                                                           "per_channel_affine_float_qparams"};
constexpr std::array<std::string_view, 9> kBuiltinTypes = {"int",       "float",   "bool",   "str",    "bytes",
                                                           "bytearray", "complex", "object", "unicode"};
constexpr std::array<std::string_view, 4> kSequences = {"set", "frozenset", "list", "tuple"};
constexpr std::array<std::string_view, 4> kScriptLists = {"build_intlist", "build_doublelist", "build_boollist",
                                                          "build_tensorlist"};
constexpr std::array<std::string_view, 4> kStorages = {"UntypedStorage", "_UntypedStorage", "TypedStorage",
                                                       "_TypedStorage"};

TorchGlobal of_torch(std::string_view name) {
  if (name == "Size") return TorchGlobal::kSequence;
  if (dtype_from_storage_class(name) || is_one_of(name, kStorages)) return TorchGlobal::kStorage;
  const std::optional<DType> dtype = dtype_from_name(name);
  if ((dtype && ckpt::name(*dtype) == name) || is_one_of(name, kFurtherDTypes)) return TorchGlobal::kDType;
  return is_one_of(name, kTorchValues) ? TorchGlobal::kNoUse : TorchGlobal::kUnknown;
}

TorchGlobal of_utils(std::string_view name) {
  if (name == "_rebuild_tensor_v2") return TorchGlobal::kRebuildTensorV2;
  if (name == "_rebuild_parameter") return TorchGlobal::kRebuildParameter;
  if (name == "_rebuild_tensor") return TorchGlobal::kRebuildTensor;
  if (name == "_rebuild_tensor_v3") return TorchGlobal::kRebuildTensorV3;
  if (name == "_rebuild_qtensor") return TorchGlobal::kRebuildQuantized;
  if (name == "_rebuild_sparse_tensor") return TorchGlobal::kRebuildSparse;
  if (name == "_rebuild_parameter_with_state") return TorchGlobal::kRebuildParameter;
  return TorchGlobal::kUnknown;
}

TorchGlobal of_builtins(std::string_view name) {
  if (name == "dict") return TorchGlobal::kMapping;
  if (is_one_of(name, kSequences)) return TorchGlobal::kSequence;
  return is_one_of(name, kBuiltinTypes) ? TorchGlobal::kNoUse : TorchGlobal::kUnknown;
}

TorchGlobal of_collections(std::string_view name) {
  if (name == "OrderedDict" || name == "Counter") return TorchGlobal::kMapping;
  return name == "defaultdict" ? TorchGlobal::kDefaultDict : TorchGlobal::kUnknown;
}

}  // namespace

TorchGlobal meaning_of(std::string_view module, std::string_view name) {
  using enum TorchGlobal;
  if (module == "torch._utils") return of_utils(name);
  if (module == "torch") return of_torch(name);
  if (module == "collections") return of_collections(name);
  if (module == "builtins" || module == "__builtin__") return of_builtins(name);
  if (module == "__torch__" || module.starts_with("__torch__.")) {
    // Those of C++ (packed weights of quantised layers, ...) keep a state that only they can read.
    return module.starts_with("__torch__.torch.classes") ? kUnknown : kScriptClass;
  }
  if (module == "torch.jit._pickle") {
    return name == "restore_type_tag" ? kTypeTag : is_one_of(name, kScriptLists) ? kScriptList : kUnknown;
  }
  if (module == "torch._tensor" || module == "torch.tensor") {
    return name == "_rebuild_from_type_v2" || name == "_rebuild_from_type" ? kRebuildFromType : kUnknown;
  }
  if (module == "torch.nn.parameter" || module == "torch.nn") {
    // Before 0.4 a Parameter was pickled as a call of its class. A Buffer is a tensor's class alone.
    return name == "Parameter" ? kRebuildParameter : name == "Buffer" ? kNoUse : kUnknown;
  }
  if (module == "torch.autograd.variable") return name == "Variable" ? kRebuildParameter : kUnknown;
  if (module == "torch.storage") return is_one_of(name, kStorages) ? kStorage : kUnknown;
  if (module == "torch.serialization") return name == "_get_layout" ? kNoUse : kUnknown;
  if (module == "copy_reg" || module == "copyreg") return name == "_reconstructor" ? kReconstructor : kUnknown;
  if (module == "_codecs") return name == "encode" ? kNoUse : kUnknown;
  return kUnknown;
}

}  // namespace ckpt::format
