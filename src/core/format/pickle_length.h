// Where a pickle ends, told without keeping anything of it: several may follow each other in a file, with other bytes
// after the last.
#pragma once

#include <cstdint>

#include "core/io/file.h"

namespace ckpt::format {

/// Bytes of the pickle at `offset`, up to and with STOP. kCorrupt where it would pass `end`, or holds an unknown
/// opcode.
uint64_t pickle_length(const io::File& file, uint64_t offset, uint64_t end);

}  // namespace ckpt::format
