// Writes what Python's torch.save writes since 1.6 (layout: torch_file.h), readable by torch.load(weights_only=True)
// from 1.13 to 2.x: zip records data.pkl, byteorder, data/<key>, version, .data/serialization_id, in the order of
// torch.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/format/pickle_writer.h"
#include "core/format/tensors_to_write.h"
#include "core/io/block_writer.h"

namespace ckpt::format {

/// Appends a whole file that holds `value`; its Tensor leaves are places in `tensors`, whose names are not used and of
/// which only those are written that a leaf refers to. Tied tensors share a storage; every other one has a storage of
/// its own, no longer than it needs. Parameters are written as plain tensors, as in a state_dict. kUnsupported where a
/// dtype has no torch storage (quantized); kInvalid where data do not fit a shape, or Python would not read the value
/// (PickleWriter::value); nothing was appended then. The same input gives the same bytes. `late` is a record of its
/// own, which other readers do not look at.
void write_torch(io::BlockWriter& writer, const PickleValue& value, const std::vector<TensorToWrite>& tensors,
                 const LateText* late = nullptr);

/// `tensors` as an OrderedDict, a state_dict. `module_metadata`: its `_metadata`, or None.
PickleValue state_dict_value(std::span<const TensorToWrite> tensors, const PickleValue& module_metadata);

}  // namespace ckpt::format
