// The JSON header of a safetensors file, parsed while it is read: neither its text nor a tree of it is ever in memory
// as a whole.
#pragma once

#include "core/format/safetensors.h"

namespace ckpt::format {

/// Parses `header_bytes` bytes after the length and appends to tensors (dtype, shape, strides, elements, bytes;
/// file_offset is relative to the data still), to opaque and metadata, in the order of the header. Takes what they need
/// from `memory`. kCorrupt, kUnsupported as read_safetensors says.
void parse_safetensors_header(const io::File& file, uint64_t header_bytes, uint64_t& memory, SafetensorsIndex& index);

}  // namespace ckpt::format
