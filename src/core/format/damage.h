// From bad blocks and bad records to the smallest ranges that are known to be damaged.
#pragma once

#include "core/format/verify.h"

namespace ckpt::format {

/// What the checksums said. One byte each, so that threads can write to neighbours.
struct Findings {
  std::vector<uint8_t> bad_blocks;   ///< for each hash of the manifest
  std::vector<uint8_t> bad_records;  ///< for each record of the zip
};

/// In the order of the file. Parameters as check_file().
std::vector<Damage> locate_damage(const Findings& findings, uint64_t file_bytes, const BlockHashes* hashes,
                                  const ZipReader* zip, std::vector<NamedTensor> tensors);

}  // namespace ckpt::format
