// Weights in safetensors files, and what else has names but no tree.
#include <algorithm>
#include <iterator>
#include <map>

#include "core/base/quote.h"
#include "core/format/safetensors_shards.h"
#include "core/weights/find.h"
#include "core/weights/openers.h"

namespace ckpt::weights {
namespace {

/// The names that safetensors' save_model dropped: `__metadata__` says which tensor each one was.
void restore_ties(Contents& contents) {
  std::vector<Tensor>& tensors = contents.tensors;
  if (contents.metadata.empty()) return;
  std::map<std::string_view, size_t> places;
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

void add_index(format::SafetensorsIndex index, Contents& contents) {
  const auto file = static_cast<uint32_t>(contents.files.size() - 1);
  contents.tensors.reserve(contents.tensors.size() + index.tensors.size());
  for (format::NamedTensor& named : index.tensors) {
    contents.tensors.push_back({std::move(named.name), std::move(named.tensor), file});
  }
  std::move(index.opaque.begin(), index.opaque.end(), std::back_inserter(contents.opaque));
}

void warn_of_opaque(Contents& contents) {
  if (contents.opaque.empty()) return;
  std::vector<std::string> names;
  for (const format::OpaqueTensor& tensor : contents.opaque) names.push_back(tensor.name);
  contents.warnings.push_back("of dtypes that are listed alone: " + listed(names));
}

/// Keeps the tensors that `prefix` and a dot stand before, without them; or the one of that name.
bool keep_below(std::vector<Tensor>& tensors, const std::string& prefix) {
  const std::string begin = prefix + ".";
  const auto is_below = [&](const Tensor& tensor) {
    return tensor.name.size() > begin.size() && tensor.name.starts_with(begin);
  };
  if (!std::any_of(tensors.begin(), tensors.end(), is_below)) {
    const auto bare = std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& t) { return t.name == prefix; });
    if (bare == tensors.end()) return false;
    Tensor only = std::move(*bare);
    only.name = "tensor";
    tensors.clear();
    tensors.push_back(std::move(only));
    return true;
  }
  std::erase_if(tensors, [&](const Tensor& tensor) { return !is_below(tensor); });
  for (Tensor& tensor : tensors) tensor.name.erase(0, begin.size());
  return true;
}

/// What stands before the first dot of the names, each once.
std::vector<std::string> first_levels(const std::vector<Tensor>& tensors) {
  std::vector<std::string> levels;
  for (const Tensor& tensor : tensors) levels.push_back(tensor.name.substr(0, tensor.name.find('.')));
  std::sort(levels.begin(), levels.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  return levels;
}

}  // namespace

Contents open_safetensors(io::File file) {
  Contents contents{.format = Format::kSafetensors, .path = file.path(), .tensors = {}, .files = {}};
  format::SafetensorsIndex index = format::read_safetensors(file);
  contents.files = {std::make_shared<const io::File>(std::move(file))};
  contents.metadata = std::move(index.metadata);
  add_index(std::move(index), contents);
  warn_of_opaque(contents);
  restore_ties(contents);
  return contents;
}

Contents open_sharded(io::File file) {
  Contents contents{.format = Format::kSafetensorsIndex, .path = file.path(), .tensors = {}, .files = {}};
  format::ShardedIndex sharded = format::read_sharded(file);
  contents.metadata = std::move(sharded.metadata);
  for (format::Shard& shard : sharded.shards) {
    contents.files.push_back(shard.file);
    add_index(std::move(shard.index), contents);
  }
  warn_of_opaque(contents);
  restore_ties(contents);
  return contents;
}

void keep_wanted(Contents& contents, const OpenOptions& options) {
  if (options.whole || (options.key.empty() && !options.ema)) return;
  const std::string before = options.key.empty() ? "" : options.key + ".";
  std::vector<std::string> wanted;
  if (options.ema) {
    for (const std::string_view name : kAveragedNames) wanted.push_back(before + std::string(name));
  } else {
    wanted.push_back(options.key);
  }
  for (const std::string& name : wanted) {
    if (keep_below(contents.tensors, name)) return;
  }
  throw Error(ErrorCode::kNotFound, contents.path,
              (options.ema ? "has no averaged weights" : "has no " + quote(options.key)) + "; it holds " +
                  listed(first_levels(contents.tensors)));
}

}  // namespace ckpt::weights
