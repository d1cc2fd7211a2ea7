// Parts of a checkpoint's state.pt as files of their own.
#pragma once

#include <string>

#include "core/format/archive.h"

namespace ckpt::tool {

/// Writes `part` (model, ema, optimizer; all: the whole state.pt) of an open state.pt to `path`, whole or not at all;
/// ".safetensors" for the tensors of a module, ".pt" for an archive. kNotFound: there is no such part.
void write_part(const format::ArchiveFile& state, const std::string& part, const std::string& path);

/// kNotFound where the state has no such part.
void require_part(const format::ArchiveFile& state, const std::string& part);

}  // namespace ckpt::tool
