#include "core/weights/convert.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "core/base/parallel.h"
#include "core/base/pattern.h"
#include "core/base/quote.h"
#include "core/weights/python_optimizer.h"
#include "core/weights/renamer.h"

namespace ckpt::weights {
namespace {

using format::TensorToWrite;

constexpr uint64_t kConvertBytes = 256 << 10;  // at once: little enough to stay in the cache

DType target_dtype(DType from, const ConvertOptions& options) {
  return options.dtype && is_floating(from) ? *options.dtype : from;
}

/// The bytes of a tensor as `to`, piece by piece; the elements are little-endian on both sides.
void produce(const Weights& weights, const Tensor& tensor, DType to, const format::ByteSink& sink) {
  const DType from = tensor.stored.dtype;
  if (from == to) return weights.stream(tensor, sink);
  const size_t most = static_cast<size_t>(kConvertBytes / width(from) * width(to));
  const std::unique_ptr<std::byte[]> buffer(new std::byte[most]);
  std::vector<std::byte> swapped;
  weights.stream(tensor, [&](ByteView piece) {
    for (size_t done = 0; done < piece.size(); done += kConvertBytes) {
      ByteView elements = piece.subspan(done, std::min<size_t>(kConvertBytes, piece.size() - done));
      const std::span converted(buffer.get(), elements.size() / width(from) * width(to));
      if constexpr (std::endian::native == std::endian::big) {
        swapped.assign(elements.begin(), elements.end());
        swap_byte_order(swapped, from);
        elements = swapped;
      }
      convert_elements(elements, from, converted, to);
      if constexpr (std::endian::native == std::endian::big) swap_byte_order(converted, to);
      sink(converted);
    }
  });
}

/// What is left by the patterns and under which names.
struct Kept {
  std::vector<const Tensor*> tensors;
  std::vector<std::string> names;
};

Kept kept_tensors(const Weights& weights, std::span<const Pattern> exclude, const Renamer& rename, Converted& report) {
  Kept kept;
  for (const Tensor& tensor : weights.tensors()) {
    if (any_matches(exclude, tensor.name)) {
      report.skipped.push_back({tensor.name, "excluded"});
      continue;
    }
    kept.tensors.push_back(&tensor);
    kept.names.push_back(rename(tensor.name));
  }
  for (const std::string& name : weights.foreign()) {
    report.skipped.push_back({name, "made by a global that is not understood"});
  }
  return kept;
}

void refuse_collisions(const Weights& weights, const Kept& kept) {
  std::unordered_map<std::string_view, size_t> first;
  std::vector<std::string> details;
  for (size_t i = 0; i < kept.names.size(); ++i) {
    const auto [entry, is_new] = first.try_emplace(kept.names[i], i);
    if (is_new) continue;
    details.push_back(quote(kept.tensors[entry->second]->name) + " and " + quote(kept.tensors[i]->name) +
                      " both become " + quote(kept.names[i]));
  }
  if (details.empty()) return;
  const std::string message = "rename: " + details[0];
  throw Error(ErrorCode::kMismatch, weights.path(), message,
              {.offset = std::nullopt, .tensor = {}, .details = std::move(details)});
}

/// Why the target cannot hold a tensor, or nothing.
std::string obstacle(const Tensor& tensor, const ConvertOptions& options) {
  if (tensor.stored.layout == format::TensorLayout::kSparse) return "sparse";
  if (tensor.stored.layout == format::TensorLayout::kQuantized) return "quantized";
  const DType dtype = target_dtype(tensor.stored.dtype, options);
  const bool holds = options.to != Format::kSafetensors || safetensors_name(dtype);
  return holds ? "" : std::string(name(dtype));
}

void refuse_unsupported(const Weights& weights, const Kept& kept, std::span<const Pattern> exclude,
                        const ConvertOptions& options) {
  std::vector<std::string> details;
  for (const Tensor* tensor : kept.tensors) {
    const std::string why = obstacle(*tensor, options);
    if (!why.empty()) details.push_back(tensor->name + ": " + why);
  }
  for (const format::OpaqueTensor& tensor : weights.opaque()) {
    if (!any_matches(exclude, tensor.name)) details.push_back(tensor.name + ": " + tensor.dtype);
  }
  throw_unsupported(weights.path(), options.to, std::move(details));
}

void check_options(const ConvertOptions& options) {
  const bool known = !options.dtype || (*options.dtype >= DType::kFloat16 && *options.dtype <= DType::kFloat64);
  if (known) return;
  throw Error(
      ErrorCode::kUnsupported, "",
      "cannot convert to " + std::string(name(*options.dtype)) + "; float16, bfloat16, float32, float64 can be");
}

/// `_metadata` under the paths that modules have now.
nlohmann::ordered_json renamed_metadata(const nlohmann::ordered_json& metadata, const std::vector<RenameRule>& rules) {
  if (rules.empty() || !metadata.is_object()) return metadata;
  const Renamer rename(rules);
  std::unordered_set<std::string> seen;
  nlohmann::ordered_json renamed = nlohmann::ordered_json::object();
  auto& members = renamed.get_ref<nlohmann::ordered_json::object_t&>();
  for (const auto& [path, value] : metadata.items()) {
    std::string now = rename.module_path(path);
    if (seen.insert(now).second) members.emplace_back(std::move(now), value);
  }
  return renamed;
}

/// Checks the records that stream() does not check on the way, since they hold more than one tensor.
void verify_parts(const Weights& weights, const Kept& kept) {
  std::vector<const Tensor*> parts;
  for (const Tensor* tensor : kept.tensors) {
    if (!weights.checks_while_streaming(*tensor)) parts.push_back(tensor);
  }
  weights.verify(parts, default_threads());
}

std::vector<TensorToWrite> selected(const Weights& weights, const Kept& kept, const ConvertOptions& options) {
  // Neither a state_dict of Python nor safetensors tells parameters from buffers.
  const bool told = std::any_of(weights.tensors().begin(), weights.tensors().end(),
                                [](const Tensor& tensor) { return tensor.stored.is_parameter; });
  std::unordered_map<const Tensor*, int64_t> places;  // of the first of tied ones
  std::vector<TensorToWrite> tensors;
  tensors.reserve(kept.tensors.size());
  for (size_t i = 0; i < kept.tensors.size(); ++i) {
    const Tensor& tensor = *kept.tensors[i];
    const DType dtype = target_dtype(tensor.stored.dtype, options);
    TensorToWrite& made = tensors.emplace_back();
    made.name = kept.names[i];
    made.dtype = dtype;
    made.shape = tensor.stored.shape;
    made.is_parameter = told ? tensor.stored.is_parameter : may_be_parameter(tensor);
    const Tensor* root = tensor.tied_to < 0 ? &tensor : &weights.tensors()[static_cast<size_t>(tensor.tied_to)];
    const auto [place, is_first] = places.try_emplace(root, static_cast<int64_t>(i));
    if (!is_first) {
      made.tied_to = place->second;
      continue;
    }
    made.data = {tensor.stored.elements * width(dtype),
                 [&weights, &tensor, dtype](const format::ByteSink& sink) { produce(weights, tensor, dtype, sink); }};
  }
  return tensors;
}

}  // namespace

std::vector<TensorToWrite> select(const Weights& weights, const ConvertOptions& options, Converted& report) {
  check_options(options);
  report.warnings.insert(report.warnings.end(), weights.warnings().begin(), weights.warnings().end());
  const std::vector<Pattern> exclude = compile_patterns(options.exclude, "exclude");
  const Kept kept = kept_tensors(weights, exclude, Renamer(options.rename), report);
  refuse_collisions(weights, kept);
  refuse_unsupported(weights, kept, exclude, options);
  if (kept.tensors.empty()) throw Error(ErrorCode::kNotFound, weights.path(), "all tensors are excluded");
  verify_parts(weights, kept);
  return selected(weights, kept, options);
}

Converted convert(const Weights& weights, const std::string& out, const ConvertOptions& options) {
  Converted report;
  std::vector<TensorToWrite> tensors = select(weights, options, report);
  report.tensors = tensors.size();
  for (const TensorToWrite& tensor : tensors) report.bytes += tensor.data.bytes;
  report.outputs = write_weights(std::move(tensors), out, options, weights.metadata(),
                                 renamed_metadata(weights.module_metadata(), options.rename));
  if (report.outputs.size() > 1 && io::stat(out)) {
    report.warnings.push_back(quote(out) + " is still there, and some readers prefer it to the shards");
  }
  return report;
}

}  // namespace ckpt::weights
