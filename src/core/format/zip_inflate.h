// Inflates a deflated record of a zip file piece by piece, in constant memory.
#pragma once

#include <functional>

#include "core/format/zip_reader.h"

namespace ckpt::format {

/// Calls `sink` with each piece in order. kCorrupt where the data is damaged or does not inflate to exactly
/// record.bytes; no more than these are ever given to `sink`.
void inflate_record(const io::File& file, const ZipRecord& record, const std::function<void(ByteView)>& sink);

}  // namespace ckpt::format
