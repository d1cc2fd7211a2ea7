// What is in a file, told by its bytes.
#pragma once

#include <cstdint>

#include "core/io/file.h"

namespace ckpt::format {

enum class Content : uint8_t {
  kEmpty,
  kZip,  ///< torch files, archives, .pt2
  kSafetensors,
  kSafetensorsIndex,  ///< model.safetensors.index.json
  kManifest,          ///< MANIFEST.json of a checkpoint
  kPickle,            ///< torch.save before 1.6, or Python's own
  kUnknown,
};

/// By the first bytes, with one exception: a damaged head is told by an intact tail.
Content content_of(const io::File& file);

}  // namespace ckpt::format
