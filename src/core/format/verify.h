// Checks every byte of a file, in parallel and in one pass over it: hashes of blocks where a manifest has them, CRC-32s
// of zip records where the file is a zip.
#pragma once

#include <string>
#include <vector>

#include "core/format/stored_tensor.h"
#include "core/format/zip_reader.h"
#include "core/io/file.h"

namespace ckpt::format {

/// What a manifest knows of a file; an empty `xxh3_64` of a file with bytes: nothing is known.
struct BlockHashes {
  uint64_t bytes = 0;
  uint64_t block_bytes = 0;
  std::vector<uint64_t> xxh3_64;
};

/// Reads all of `file` once. `hashes` may be nullptr; `zip` may be nullptr (no records to check); `tensors` give names
/// to damage, and may be none. Each damage names the smallest range
/// that it can tell damaged by where that begins: the intersection of a bad block with a bad record; with a good record
/// in a bad block, the headers or padding between. Empty: all is whole. Throws kIo alone.
std::vector<Damage> check_file(const io::File& file, const BlockHashes* hashes, const ZipReader* zip,
                               std::vector<NamedTensor> tensors, unsigned threads);

}  // namespace ckpt::format
