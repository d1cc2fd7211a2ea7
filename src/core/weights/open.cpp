// Which format a path holds.
#include <array>

#include "core/base/quote.h"
#include "core/format/content.h"
#include "core/weights/openers.h"

namespace ckpt {

std::string_view to_string(Format format) {
  constexpr std::array<std::string_view, 9> kNames = {"torch", "torch-legacy", "torchscript",       "archive",
                                                      "pt2",   "safetensors",  "safetensors-index", "checkpoint",
                                                      "run"};
  return kNames[static_cast<size_t>(format)];
}

namespace weights {

Contents open_file(io::File file, const OpenOptions& options) {
  using format::Content;
  Contents contents;
  switch (format::content_of(file)) {
    case Content::kZip:
    case Content::kPickle:
      return open_torch(std::move(file), options);
    case Content::kSafetensors:
      contents = open_safetensors(std::move(file));
      break;
    case Content::kSafetensorsIndex:
      contents = open_sharded(std::move(file));
      break;
    case Content::kManifest:
      throw Error(ErrorCode::kUnsupported, file.path(), "is the manifest of a checkpoint; give its directory");
    case Content::kEmpty:
      throw Error(ErrorCode::kCorrupt, file.path(), "is empty");
    case Content::kUnknown:
      throw Error(format::claims_weights(file.path()) ? ErrorCode::kCorrupt : ErrorCode::kUnsupported, file.path(),
                  "is no torch file, archive or safetensors file");
  }
  keep_wanted(contents, options);
  return contents;
}

Weights Weights::open(const std::string& path, const OpenOptions& options) {
  const std::optional<io::Stat> stat = io::stat(path);
  const bool is_directory = stat && stat->type == io::FileType::kDirectory;
  Contents contents = is_directory ? open_directory(path, options) : open_file(io::File::open(path), options);
  return Weights(std::move(contents), options.strip_wrappers && !options.whole);
}

}  // namespace weights
}  // namespace ckpt
