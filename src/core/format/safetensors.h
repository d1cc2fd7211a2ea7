// safetensors: u64 header length, JSON header {name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}, data.
// Offsets are relative to the data, cover it without hole or overlap. Little-endian.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/format/stored_tensor.h"
#include "core/format/tensors_to_write.h"
#include "core/io/block_writer.h"
#include "core/io/file.h"

namespace ckpt::format {

/// A tensor of a dtype that safetensors knows and DType does not, of less than a byte an element (F4, F6_E2M3,
/// F6_E3M2): its place is checked, its elements cannot be read.
struct OpaqueTensor {
  std::string name;
  std::string dtype;  ///< as the file spells it
  std::vector<int64_t> shape;
  uint64_t file_offset = 0;
  uint64_t bytes = 0;
};

struct SafetensorsIndex {
  std::vector<NamedTensor> tensors;  ///< sorted by where their data is
  std::vector<OpaqueTensor> opaque;  ///< the same
  std::map<std::string, std::string> metadata;
  uint64_t data_offset = 0;
};

/// Reads and checks the header: length <= 100,000,000, strict JSON, duplicate keys, offsets, holes, overlaps, sizes,
/// bytes after the end. kCorrupt; kUnsupported for dtypes that are not known. Header parsed as a stream: at most file
/// size + 64 MiB of memory.
SafetensorsIndex read_safetensors(const io::File& file);
/// The same, for one of several files: takes what the index needs from `memory`; kCorrupt where that is not enough. Its
/// tensors come after those of `before`, which stay as they are: of very many, a list is never there twice.
SafetensorsIndex read_safetensors(const io::File& file, uint64_t& memory, std::vector<NamedTensor> before = {});

/// Appends a whole file: tensors sorted by width (widest first), then by name, so that all are aligned; header padded
/// with blanks to a multiple of 8. The same input gives the same bytes. kUnsupported where a dtype has no spelling,
/// kInvalid for duplicate names or data that does not fit the shape; nothing was appended then. No ties: `tied_to` is
/// -1 in all. `late` is an entry of the metadata; kInternal where what it makes has not the length that it said.
void write_safetensors(io::BlockWriter& writer, std::vector<TensorToWrite> tensors,
                       std::map<std::string, std::string> metadata, const LateText* late = nullptr);

/// The order in which write_safetensors() asks for data.
bool safetensors_before(const TensorToWrite& a, const TensorToWrite& b);

}  // namespace ckpt::format
