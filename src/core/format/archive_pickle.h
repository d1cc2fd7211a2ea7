// From the pickle of an archive to its tree: what the few globals mean that torch::serialize writes.
#pragma once

#include <memory>

#include "core/format/archive.h"
#include "core/format/pickle.h"

namespace ckpt::format {

/// `memory` bounds the tree, and what tensors_of() would make of it. kCorrupt, kUnsafe, kUnsupported as
/// ArchiveFile::open says.
std::shared_ptr<const Archive> archive_from_pickle(const ZipReader& zip, const Pickle& pickle, uint64_t memory);

}  // namespace ckpt::format
