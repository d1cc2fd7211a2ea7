// A list of tensors in one of the formats.
#include <algorithm>
#include <numeric>

#include "core/base/quote.h"
#include "core/format/archive_writer.h"
#include "core/format/torch_writer.h"
#include "core/weights/convert.h"
#include "core/weights/module_metadata.h"

namespace ckpt::weights {
namespace {

using format::PickleValue;
using format::TensorToWrite;
using Metadata = std::map<std::string, std::string>;

/// A list without ties, and the names that are left of them.
struct Untied {
  std::vector<TensorToWrite> tensors;
  std::vector<std::pair<std::string, std::string>> dropped;  ///< name, and the one that was kept
};

/// Of tensors that are one the first by name is kept, as by safetensors' save_model.
Untied untied(std::vector<TensorToWrite> tensors) {
  const auto first_of = [&](size_t i) { return tensors[i].tied_to < 0 ? i : static_cast<size_t>(tensors[i].tied_to); };
  std::vector<size_t> kept(tensors.size());
  std::iota(kept.begin(), kept.end(), size_t{0});
  for (size_t i = 0; i < tensors.size(); ++i) {
    size_t& best = kept[first_of(i)];
    if (tensors[i].name < tensors[best].name) best = i;
  }
  Untied result;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t first = first_of(i);
    if (i != kept[first]) result.dropped.emplace_back(tensors[i].name, tensors[kept[first]].name);
    if (i == first) continue;
    if (i == kept[first]) std::swap(tensors[i].data, tensors[first].data);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i != kept[first_of(i)]) continue;
    result.tensors.push_back(std::move(tensors[i]));
    result.tensors.back().tied_to = -1;
  }
  return result;
}

void require_dtypes(const std::vector<TensorToWrite>& tensors, const std::string& out) {
  std::vector<std::string> details;
  for (const TensorToWrite& tensor : tensors) {
    if (safetensors_name(tensor.dtype)) continue;
    details.push_back(tensor.name + ": " + std::string(name(tensor.dtype)));
  }
  throw_unsupported(out, Format::kSafetensors, std::move(details));
}

/// Safetensors files of at most `limit` bytes of data, in the order of names; a tensor that is larger has one alone.
std::vector<std::vector<TensorToWrite>> shards_of(std::vector<TensorToWrite> tensors, uint64_t limit) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<std::vector<TensorToWrite>> shards;
  uint64_t bytes = 0;
  for (TensorToWrite& tensor : tensors) {
    if (shards.empty() || bytes > limit || tensor.data.bytes > limit - bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += tensor.data.bytes;
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string padded(size_t number) {
  const std::string digits = std::to_string(number);
  return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
}

std::vector<std::string> write_shards(std::vector<std::vector<TensorToWrite>> shards, const Untied& ties,
                                      const std::string& out, const Metadata& metadata) {
  const std::string name = io::file_name(out), directory = io::parent_path(out);
  constexpr std::string_view kEnding = ".safetensors";
  const std::string stem = name.ends_with(kEnding) ? name.substr(0, name.size() - kEnding.size()) : name;
  nlohmann::json weight_map = nlohmann::json::object();
  uint64_t total = 0;
  std::vector<io::NewFile> files;
  for (size_t i = 0; i < shards.size(); ++i) {
    files.push_back({stem + "-" + padded(i + 1) + "-of-" + padded(shards.size()) + std::string(kEnding), {}});
    for (const TensorToWrite& tensor : shards[i]) {
      weight_map[tensor.name] = files.back().name;
      total += tensor.data.bytes;
    }
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    Metadata own = metadata;
    for (const auto& [dropped, kept] : ties.dropped) {
      if (weight_map[kept] == files[i].name) own.emplace(dropped, kept);
    }
    files[i].produce = [&shards, i, own = std::move(own)](io::BlockWriter& writer) {
      format::write_safetensors(writer, std::move(shards[i]), own);
    };
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
  const std::string text = index.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  files.push_back(
      {stem + std::string(kEnding) + ".index.json", [&](io::BlockWriter& writer) { writer.append(as_bytes(text)); }});
  io::replace_files(directory, files);
  std::vector<std::string> outputs;
  const std::string before = out.substr(0, out.size() - name.size());
  for (const io::NewFile& file : files) outputs.push_back(before + file.name);
  return outputs;
}

std::vector<std::string> write_safetensors(std::vector<TensorToWrite> tensors, const std::string& out, uint64_t limit,
                                           Metadata metadata, const format::LateText* late) {
  require_dtypes(tensors, out);
  metadata.emplace("format", "pt");  // what other readers look for
  Untied ties = untied(std::move(tensors));
  uint64_t bytes = 0;
  for (const TensorToWrite& tensor : ties.tensors) bytes += tensor.data.bytes;
  if (limit != 0 && bytes > limit) {
    auto shards = shards_of(std::move(ties.tensors), limit);
    if (shards.size() > 1) return write_shards(std::move(shards), ties, out, metadata);
    ties.tensors = std::move(shards[0]);
  }
  metadata.insert(ties.dropped.begin(), ties.dropped.end());
  io::replace_file(out, [&](io::BlockWriter& writer) {
    format::write_safetensors(writer, std::move(ties.tensors), metadata, late);
  });
  return {out};
}

PickleValue pickle_value(const nlohmann::ordered_json& value) {
  if (value.is_boolean()) return {value.get<bool>()};
  if (value.is_number_integer()) return {value.get<int64_t>()};
  if (value.is_number_float()) return {value.get<double>()};
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_object()) return {PickleValue::None()};
  PickleValue::Dict dict;
  for (const auto& [key, member] : value.items()) dict.items.emplace_back(PickleValue{key}, pickle_value(member));
  return {std::move(dict)};
}

std::vector<std::string_view> names_of(const std::vector<TensorToWrite>& tensors) {
  std::vector<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) names.push_back(tensor.name);
  return names;
}

/// As PyTorch has it: an ordered dictionary of plain ones.
PickleValue module_metadata_value(const nlohmann::ordered_json& metadata) {
  PickleValue value = pickle_value(metadata);
  if (auto* dict = std::get_if<PickleValue::Dict>(&value.value)) dict->ordered = true;
  return value;
}

}  // namespace

void throw_unsupported(const std::string& path, Format to, std::vector<std::string> details) {
  if (details.empty()) return;
  std::string message = std::string(to_string(to)) + " cannot hold " + std::to_string(details.size()) +
                        (details.size() == 1 ? " tensor, " : " tensors, the first ") + quote(details[0]);
  throw Error(ErrorCode::kUnsupported, path, std::move(message),
              {.offset = std::nullopt, .tensor = {}, .details = std::move(details)});
}

void write_safetensors(io::BlockWriter& writer, std::vector<TensorToWrite> tensors) {
  require_dtypes(tensors, "");
  Untied ties = untied(std::move(tensors));
  Metadata metadata{{"format", "pt"}};
  metadata.insert(ties.dropped.begin(), ties.dropped.end());
  format::write_safetensors(writer, std::move(ties.tensors), metadata);
}

std::vector<std::string> write_weights(std::vector<TensorToWrite> tensors, const std::string& out,
                                       const ConvertOptions& options, const Metadata& metadata,
                                       const nlohmann::ordered_json& module_metadata, const format::LateText* late) {
  if (options.max_shard_bytes != 0 && options.to != Format::kSafetensors) {
    throw Error(ErrorCode::kInvalid, out, "only safetensors are written in shards");
  }
  try {
    switch (options.to) {
      case Format::kSafetensors:
        return write_safetensors(std::move(tensors), out, options.max_shard_bytes, metadata, late);
      case Format::kTorch: {
        const PickleValue value = format::state_dict_value(tensors, module_metadata_value(module_metadata));
        io::replace_file(out, [&](io::BlockWriter& writer) { format::write_torch(writer, value, tensors, late); });
        return {out};
      }
      case Format::kArchive: {
        const std::vector<std::string> levels = empty_levels(module_metadata, names_of(tensors));
        const format::ArchiveToWrite root = format::archive_of(tensors, levels);
        io::replace_file(out, [&](io::BlockWriter& writer) { format::write_archive(writer, root, tensors, late); });
        return {out};
      }
      default:
        throw Error(ErrorCode::kInvalid, out, "cannot be written as " + std::string(to_string(options.to)));
    }
  } catch (const Error& error) {
    if (!error.path().empty()) throw;
    throw Error(error.code(), out, error.message(), {error.offset(), error.tensor(), error.details()});
  }
}

}  // namespace ckpt::weights
