// Stored tensors as they lie in a mapped file.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "core/format/stored_tensor.h"
#include "core/io/mapped_file.h"

namespace ckpt::bridge {

/// Whether a tensor's elements can be used where they lie in a file: strided, of a dtype that this LibTorch has, in
/// this machine's byte order, each at a multiple of its size, and no bools (only 0 and 1 are defined, and a file's may
/// be any byte). False for one without elements, which needs no file.
bool can_be_mapped(const format::StoredTensor& stored);

/// One for which that holds, with its strides; keeps `file` for as long as its memory is used.
at::Tensor mapped_tensor(std::shared_ptr<const io::MappedFile> file, const format::StoredTensor& stored);

}  // namespace ckpt::bridge
