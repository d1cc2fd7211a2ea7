// Checks of the numbers that describe a stored tensor, the same for all formats.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "core/format/archive.h"

namespace ckpt::format {

inline constexpr size_t kMaxRank = 64;
inline constexpr uint64_t kMaxNameBytes = 65536;
/// Readers may take the size of their files and 64 MiB; some of it is for what is not counted.
inline constexpr uint64_t kMemoryBeyondFile = 60 << 20;

/// The product of `shape`; std::nullopt where a size is negative or the product exceeds 63 bits.
std::optional<uint64_t> element_count(std::span<const int64_t> shape);

/// Row-major strides of `shape`, whose element_count() is known to fit.
std::vector<int64_t> contiguous_strides(std::span<const int64_t> shape);

/// Sets elements, bytes and file_offset of a tensor whose dtype, shape, strides and storage are set and that begins at
/// element `offset` of a storage of `storage_elements`. Returns what is wrong, empty where all of it lies inside.
/// An expanded tensor (stride 0) may have more bytes than its storage, but not more than `expanded_limit`.
std::string place_in_storage(StoredTensor& tensor, int64_t offset, uint64_t storage_elements, uint64_t expanded_limit);

}  // namespace ckpt::format
