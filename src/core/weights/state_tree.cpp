#include "core/weights/state_tree.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <variant>

#include "core/base/quote.h"
#include "core/weights/gather.h"
#include "core/weights/module_metadata.h"
#include "core/weights/tiles.h"

namespace ckpt::weights {
namespace {

using format::Archive;
using format::ArchiveValue;
using format::StoredTensor;

constexpr size_t kMaxDepth = 1000;
constexpr uint64_t kTileBytes = 4 << 20;

}  // namespace

// Levels under way; one that is inside another comes after it.
struct StateTree::Levels {
  struct Level {
    std::shared_ptr<Archive> archive = std::make_shared<Archive>();
    std::vector<std::pair<size_t, size_t>> children;  // place among the members, level
    std::unordered_map<std::string_view, size_t> by_name;
  };

  Levels(StateTree& owner) : tree(owner) { add(); }

  size_t add() {
    if (tree.levels_left_ == 0) {
      throw Error(ErrorCode::kCorrupt, tree.path_, "names with more levels than a file of this size may have");
    }
    --tree.levels_left_;
    all.emplace_back();
    return all.size() - 1;
  }

  size_t child(size_t parent, std::string_view name) {
    const auto [found, fresh] = all[parent].by_name.emplace(name, 0);
    if (fresh) {
      const size_t made = add();  // moves `all`, not what is in it
      all[parent].by_name[name] = made;
      all[parent].children.emplace_back(all[parent].archive->members.size(), made);
      all[parent].archive->members.emplace_back(format::escape_name(name), ArchiveValue());
    }
    return all[parent].by_name[name];
  }

  std::shared_ptr<Archive> finish() {
    for (size_t i = all.size(); i-- > 0;) {
      for (const auto& [place, level] : all[i].children) {
        all[i].archive->members[place].second = std::shared_ptr<const Archive>(all[level].archive);
      }
      if (const std::string* twice = all[i].archive->index()) {
        throw Error(ErrorCode::kCorrupt, tree.path_, "two tensors or modules " + quote(*twice));
      }
    }
    return all[0].archive;
  }

  StateTree& tree;
  std::vector<Level> all;
};

std::shared_ptr<Archive> StateTree::make(std::vector<std::pair<std::string, ArchiveValue>> values,
                                         const std::vector<std::string>& empty) {
  std::unordered_set<std::string_view> names;
  for (const auto& [name, value] : values) names.insert(name);
  Levels levels(*this);
  // The level that `name` belongs into, and how many of its bytes led there.
  const auto descend = [&](std::string_view name) {
    size_t level = 0, begin = 0, depth = 0;
    for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
      if (++depth > kMaxDepth) {
        throw Error(ErrorCode::kCorrupt, path_, "the name " + quote(name) + " has more than 1,000 levels");
      }
      if (names.contains(name.substr(0, dot))) continue;
      level = levels.child(level, name.substr(begin, dot - begin));
      begin = dot + 1;
    }
    return std::pair(level, begin);
  };
  for (auto& [name, value] : values) {
    const auto [level, begin] = descend(name);
    levels.all[level].archive->members.emplace_back(format::escape_name(name.substr(begin)), std::move(value));
  }
  for (const std::string& name : empty) {
    if (!can_be_level(name) || names.contains(name)) continue;
    const auto [level, begin] = descend(name);
    levels.child(level, std::string_view(name).substr(begin));
  }
  return levels.finish();
}

namespace {

format::ArchiveToWrite places_in(const Archive& level) {
  format::ArchiveToWrite made;
  for (const auto& [name, value] : level.members) {
    if (const auto* nested = std::get_if<std::shared_ptr<const Archive>>(&value)) {
      made.members.emplace_back(name, std::make_shared<const format::ArchiveToWrite>(places_in(**nested)));
    } else {
      made.members.emplace_back(name, format::TensorPlace{static_cast<size_t>(std::get<int64_t>(value))});
    }
  }
  return made;
}

}  // namespace

format::ArchiveToWrite StateTree::make_places(std::vector<std::pair<std::string, size_t>> places,
                                              const std::vector<std::string>& empty) {
  std::vector<std::pair<std::string, ArchiveValue>> values;
  values.reserve(places.size());
  for (auto& [name, place] : places) values.emplace_back(std::move(name), static_cast<int64_t>(place));
  return places_in(*make(std::move(values), empty));
}

namespace {

void stream(const io::File& file, const StoredTensor& tensor, const format::ByteSink& sink) {
  std::vector<std::byte> buffer;
  for_each_tile(tensor, kTileBytes, [&](const StoredTensor& tile) {
    buffer.resize(static_cast<size_t>(tile.bytes));
    gather(file, tile, buffer);
    finish_elements(tile, std::endian::little, buffer);
    sink(buffer);
  });
}

}  // namespace

format::BytesToWrite bytes_of(const io::File& file, const StoredTensor& tensor) {
  return {tensor.bytes, [&file, tensor](const format::ByteSink& sink) { stream(file, tensor, sink); }};
}

namespace {

class Copier {
 public:
  Copier(const io::File& file, std::vector<format::TensorToWrite>& tensors) : file_(file), tensors_(tensors) {}

  format::ArchiveToWrite copy(const Archive& level) {
    format::ArchiveToWrite made;
    const size_t above = name_.size();
    for (const auto& [name, value] : level.members) {
      name_ += format::unescape_name(name);
      made.members.emplace_back(name, std::visit([&](const auto& member) { return copy_value(member); }, value));
      name_.resize(above);
    }
    return made;
  }

 private:
  template <class T>
  format::ArchiveValueToWrite copy_value(const T& value) {
    if constexpr (std::is_same_v<T, StoredTensor>) {
      return add(value);
    } else if constexpr (std::is_same_v<T, std::vector<StoredTensor>>) {
      std::vector<format::TensorPlace> places;
      for (const StoredTensor& tensor : value) places.push_back(add(tensor));
      return places;
    } else if constexpr (std::is_same_v<T, std::shared_ptr<const Archive>>) {
      name_ += '.';
      return std::make_shared<const format::ArchiveToWrite>(copy(*value));
    } else {
      return value;
    }
  }

  format::TensorPlace add(const StoredTensor& tensor) {
    if (tensor.layout != format::TensorLayout::kStrided) {
      throw Error(ErrorCode::kUnsupported, file_.path(), "tensor " + quote(name_) + " is quantized or sparse",
                  {.tensor = name_});
    }
    const size_t index = tensors_.size();
    format::TensorToWrite made{name_, tensor.dtype, tensor.shape, {}, tensor.is_parameter, -1};
    size_t first = index;
    if (tensor.elements != 0) {
      first = places_.emplace(std::tuple(tensor.file_offset, tensor.dtype, tensor.shape, tensor.strides), index)
                  .first->second;
    }
    if (first != index) {
      made.tied_to = static_cast<int64_t>(first);
    } else {
      made.data = bytes_of(file_, tensor);
    }
    tensors_.push_back(std::move(made));
    return {index};
  }

  const io::File& file_;
  std::vector<format::TensorToWrite>& tensors_;
  std::string name_;  // of the member at hand, with the levels above
  std::map<std::tuple<uint64_t, DType, std::vector<int64_t>, std::vector<int64_t>>, size_t> places_;
};

}  // namespace

format::ArchiveToWrite archive_to_write(const format::ArchiveFile& state, std::vector<format::TensorToWrite>& tensors) {
  return Copier(state.file(), tensors).copy(state.root());
}

}  // namespace ckpt::weights
