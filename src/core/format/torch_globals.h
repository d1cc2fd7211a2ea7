// What the globals mean that torch puts into its pickles: the whole list of what the reader of torch files understands.
#pragma once

#include <cstdint>
#include <string_view>

namespace ckpt::format {

enum class TorchGlobal : uint8_t {
  kUnknown,           ///< foreign: never more than a name
  kNoUse,             ///< known, of no use to a reader of weights: torch.device, complex, ...
  kMapping,           ///< OrderedDict, dict, Counter: called with nothing, a dict or a list of pairs
  kDefaultDict,       ///< called with a factory
  kSequence,          ///< torch.Size, set, list, ...: called with nothing or a sequence
  kDType,             ///< torch.float32
  kStorage,           ///< torch.FloatStorage
  kReconstructor,     ///< class, base, state of the base: what protocols 0 and 1 have for NEWOBJ
  kScriptClass,       ///< __torch__...: a TorchScript class
  kScriptList,        ///< torch.jit._pickle.build_intlist, ...
  kTypeTag,           ///< torch.jit._pickle.restore_type_tag: its first argument
  kRebuildTensor,     ///< storage, offset, sizes, strides
  kRebuildTensorV2,   ///< and requires_grad, hooks [, metadata]
  kRebuildTensorV3,   ///< and requires_grad, hooks, dtype [, metadata]
  kRebuildQuantized,  ///< and quantizer, requires_grad, hooks
  kRebuildSparse,     ///< layout, (indices ..., values, sizes [, coalesced])
  kRebuildParameter,  ///< tensor, requires_grad, hooks [, state]
  kRebuildFromType,   ///< function, class, its arguments, state
};

TorchGlobal meaning_of(std::string_view module, std::string_view name);

/// Makes a tensor out of its own arguments, or of another tensor.
constexpr bool rebuilds_tensor(TorchGlobal global) { return global >= TorchGlobal::kRebuildTensor; }

}  // namespace ckpt::format
