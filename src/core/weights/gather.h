// Elements that lie anywhere in a storage, read into a row-major tensor with little memory.
#pragma once

#include <span>

#include "core/format/stored_tensor.h"
#include "core/io/file.h"

namespace ckpt::weights {

/// The elements of `tensor` as they stand in the file, row-major, into exactly tensor.bytes bytes. Contiguous ones go
/// straight there; others are read in the order of the storage, through a buffer of 1 MiB. kCorrupt where the file has
/// become shorter.
void gather(const io::File& file, const format::StoredTensor& tensor, std::span<std::byte> into);

}  // namespace ckpt::weights
