// Which format a path holds, and what that format's reader finds in it.
#include <algorithm>
#include <array>
#include <unordered_set>

#include "core/base/quote.h"
#include "core/format/content.h"
#include "core/format/safetensors.h"
#include "core/weights/weights.h"

namespace ckpt {

std::string_view to_string(Format format) {
  constexpr std::array<std::string_view, 9> kNames = {"torch", "torch-legacy", "torchscript",       "archive",
                                                      "pt2",   "safetensors",  "safetensors-index", "checkpoint",
                                                      "run"};
  return kNames[static_cast<size_t>(format)];
}

namespace weights {
namespace {

/// The names that safetensors' save_model dropped: `__metadata__` says which tensor each one was.
void restore_ties(Contents& contents) {
  std::map<std::string_view, size_t> places;
  std::vector<Tensor>& tensors = contents.tensors;
  if (contents.metadata.empty()) return;
  for (size_t i = 0; i < tensors.size(); ++i) places.emplace(tensors[i].name, i);
  std::vector<Tensor> dropped;
  for (auto entry = contents.metadata.begin(); entry != contents.metadata.end();) {
    const auto kept = places.find(entry->second);
    if (kept == places.end() || places.contains(entry->first)) {
      ++entry;
      continue;
    }
    dropped.push_back(tensors[kept->second]);
    dropped.back().name = entry->first;
    entry = contents.metadata.erase(entry);
  }
  std::move(dropped.begin(), dropped.end(), std::back_inserter(tensors));
}

Contents open_safetensors(io::File file) {
  Contents contents{.format = Format::kSafetensors, .path = file.path(), .tensors = {}, .files = {}};
  format::SafetensorsIndex index = format::read_safetensors(file);
  contents.files = {std::make_shared<const io::File>(std::move(file))};
  contents.metadata = std::move(index.metadata);
  contents.tensors.reserve(index.tensors.size());
  for (format::NamedTensor& named : index.tensors) {
    contents.tensors.push_back({std::move(named.name), std::move(named.tensor)});
  }
  restore_ties(contents);
  return contents;
}

Contents open_file(const std::string& path, const OpenOptions& options) {
  io::File file = io::File::open(path);
  switch (format::content_of(file)) {
    case format::Content::kSafetensors:
      return open_safetensors(std::move(file));
    default:
      break;
  }
  (void)options;
  throw Error(ErrorCode::kCorrupt, path, "is no file of weights of any known format");
}

}  // namespace

Weights Weights::open(const std::string& path, const OpenOptions& options) {
  return Weights(open_file(path, options), options.strip_wrappers);
}

}  // namespace weights
}  // namespace ckpt
