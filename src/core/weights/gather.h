// Elements that lie anywhere in a storage, read into a row-major tensor with little memory.
#pragma once

#include <bit>
#include <span>

#include "core/format/stored_tensor.h"
#include "core/io/file.h"

namespace ckpt::weights {

/// The elements of `tensor` as they stand in the file, row-major, into exactly tensor.bytes bytes. Contiguous ones go
/// straight there; others are read in the order of the storage, through a buffer of 1 MiB. kCorrupt where the file has
/// become shorter.
void gather(const io::File& file, const format::StoredTensor& tensor, std::span<std::byte> into);

/// Makes elements of `tensor` that were read as they stand in the file those of a program: bools 0 or 1, whatever the
/// file says, and the bytes in the order asked for.
void finish_elements(const format::StoredTensor& tensor, std::endian order, std::span<std::byte> elements);

}  // namespace ckpt::weights
