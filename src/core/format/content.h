// What is in a file, told by its bytes.
#pragma once

#include <cstdint>
#include <string_view>

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

/// Whether a name ends as files of weights do (.pt, .pth, .ckpt, .bin, .safetensors): with a content that is none of
/// them the file is damaged, and not of another kind.
bool claims_weights(std::string_view path);

}  // namespace ckpt::format
