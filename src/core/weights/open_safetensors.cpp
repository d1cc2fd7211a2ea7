// Weights in safetensors files, and what else has names but no tree.
#include <algorithm>
#include <string_view>
#include <utility>

#include "core/base/name_order.h"
#include "core/base/quote.h"
#include "core/format/safetensors_shards.h"
#include "core/format/tensor_check.h"
#include "core/weights/budget.h"
#include "core/weights/find.h"
#include "core/weights/openers.h"

namespace ckpt::weights {
namespace {

/// Tensors by name, with little memory.
class Places {
 public:
  explicit Places(const std::vector<Tensor>& tensors)
      : tensors_(tensors),
        order_(order_by_name(tensors.size(), [&](size_t i) -> std::string_view { return tensors[i].name; })) {}

  const Tensor* find(std::string_view name) const {
    const auto found = std::lower_bound(order_.begin(), order_.end(), name,
                                        [&](uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
    return found == order_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
  }

 private:
  const std::vector<Tensor>& tensors_;
  std::vector<uint32_t> order_;
};

/// The names that safetensors' save_model dropped: `__metadata__` says which tensor each one was.
void restore_ties(Contents& contents, Budget& budget) {
  std::vector<Tensor>& tensors = contents.tensors;
  if (contents.metadata.empty()) return;
  const Places places(tensors);
  std::vector<std::pair<std::string, size_t>> dropped;  // name, place of the tensor
  for (const auto& [name, kept] : contents.metadata) {
    const Tensor* tensor = places.find(kept);
    if (tensor == nullptr || places.find(name) != nullptr) continue;
    const uint64_t numbers = 16 * (tensor->stored.shape.size() + 2);
    budget.charge(3 * sizeof dropped[0] + 2 * name.size() + sizeof(Tensor) + numbers);
    dropped.emplace_back(name, static_cast<size_t>(tensor - tensors.data()));
  }
  if (dropped.empty()) return;
  budget.charge(tensors.size() * sizeof(Tensor));  // while the list is moved to where it has room
  tensors.reserve(tensors.size() + dropped.size());
  for (auto& [name, place] : dropped) {
    tensors.push_back(tensors[place]);
    contents.metadata.erase(name);
    tensors.back().name = std::move(name);
  }
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
  uint64_t memory = file.stat().bytes + format::kMemoryBeyondFile;
  format::SafetensorsIndex index = format::read_safetensors(file, memory);
  contents.files = {std::make_shared<const io::File>(std::move(file))};
  contents.metadata = std::move(index.metadata);
  contents.tensors = std::move(index.tensors);
  contents.opaque = std::move(index.opaque);
  warn_of_opaque(contents);
  Budget budget(memory, contents.path);
  restore_ties(contents, budget);
  return contents;
}

Contents open_sharded(io::File file) {
  Contents contents{.format = Format::kSafetensorsIndex, .path = file.path(), .tensors = {}, .files = {}};
  format::ShardedIndex sharded = format::read_sharded(file);
  contents.files = std::move(sharded.files);
  contents.tensors = std::move(sharded.tensors);
  contents.opaque = std::move(sharded.opaque);
  contents.metadata = std::move(sharded.metadata);
  Budget budget(sharded.memory_left, contents.path);
  warn_of_opaque(contents);
  restore_ties(contents, budget);
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
