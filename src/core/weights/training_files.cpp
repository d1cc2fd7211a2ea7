#include "core/weights/training_files.h"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/format/archive_writer.h"
#include "core/format/content.h"
#include "core/format/state_layout.h"
#include "core/format/torch_writer.h"
#include "core/run/names.h"
#include "core/run/writer.h"
#include "core/weights/module_metadata.h"
#include "core/weights/optimizer_state.h"
#include "core/weights/python_checkpoint.h"
#include "core/weights/state_tree.h"
#include "core/weights/weights.h"

namespace ckpt::weights {
namespace {

/// A training state on its way into a file. What `tensors` refer to is kept by `source`.
struct State {
  format::ArchiveToWrite root;
  std::vector<format::TensorToWrite> tensors;
  run::CheckpointHead head;
  std::shared_ptr<const void> source;
};

/// The CRC of every record that holds a tensor.
void check_all(const Weights& weights) {
  std::vector<const Tensor*> all;
  for (const Tensor& tensor : weights.tensors()) all.push_back(&tensor);
  weights.verify(all, default_threads());
}

State state_of(format::ArchiveFile file) {
  const auto kept = std::make_shared<const format::ArchiveFile>(std::move(file));
  State state{.root = {}, .tensors = {}, .head = head_of(*kept), .source = kept};
  state.root = archive_to_write(*kept, state.tensors);
  return state;
}

std::string escaped(const std::string& name) {
  std::string result;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t dot = std::min(name.find('.', begin), name.size());
    if (begin > 0) result += '.';
    result += format::escape_name(std::string_view(name).substr(begin, dot - begin));
    begin = dot + 1;
  }
  return result;
}

/// The part that says what the others are; `parts`: name and kind.
std::shared_ptr<const format::ArchiveToWrite> head_part(const run::CheckpointHead& head,
                                                        const std::map<std::string, const char*>& parts) {
  nlohmann::json kinds = nlohmann::json::object(), metrics = nlohmann::json::object();
  for (const auto& [name, kind] : parts) kinds[name] = {{"kind", kind}};
  for (const auto& [name, value] : head.metrics) metrics[name] = json_number(value);
  const nlohmann::json description{{"parts", std::move(kinds)},       {"epoch", head.epoch},
                                   {"iteration", head.iteration},     {"metrics", std::move(metrics)},
                                   {"best_metric", nlohmann::json()}, {"metadata", head.metadata}};
  return std::make_shared<const format::ArchiveToWrite>(
      format::ArchiveToWrite{{{"version", format::kStateVersion}, {"description", dump_json(description)}}});
}

std::shared_ptr<const format::ArchiveToWrite> shared(format::ArchiveToWrite level) {
  return std::make_shared<const format::ArchiveToWrite>(std::move(level));
}

/// Weights alone, as the part "model".
State state_of_tensors(std::vector<format::TensorToWrite> tensors, const nlohmann::ordered_json& module_metadata,
                       const run::CheckpointHead& head) {
  State state{.root = {}, .tensors = std::move(tensors), .head = head, .source = nullptr};
  std::vector<std::string_view> names;
  for (const format::TensorToWrite& tensor : state.tensors) names.push_back(tensor.name);
  std::vector<std::string> levels = empty_levels(module_metadata, std::move(names));
  for (format::TensorToWrite& tensor : state.tensors) tensor.name = escaped(tensor.name);
  for (std::string& level : levels) level = escaped(level);
  format::ArchiveToWrite model = format::archive_of(state.tensors, levels);
  const run::CheckpointHead counts{.iteration = head.iteration, .epoch = head.epoch};
  state.root.members = {{format::kHeadPart, head_part(counts, {{"model", "module"}})},
                        {"model", shared(std::move(model))}};
  return state;
}

State state_of_weights(const std::string& path, Converted& report) {
  auto weights = std::make_shared<const Weights>(Weights::open(path));
  State state = state_of_tensors(select(*weights, {.to = Format::kArchive}, report), weights->module_metadata(), {});
  state.source = weights;
  return state;
}

/// About how long state.pt will be. A record costs its header, name, padding and entry in the directory; the pickle
/// names each tensor.
uint64_t expected_bytes(const std::vector<format::TensorToWrite>& tensors) {
  uint64_t bytes = 65536 + tensors.size() * 512;
  for (const format::TensorToWrite& tensor : tensors) bytes += tensor.data.bytes;
  return bytes;
}

run::FileToWrite state_file(const format::ArchiveToWrite& root, const std::vector<format::TensorToWrite>& tensors) {
  return {std::string(run::kStateName), expected_bytes(tensors),
          [&](io::BlockWriter& writer) { format::write_archive(writer, root, tensors); }};
}

/// The open file of a training state of ckpt, every byte of it checked.
format::ArchiveFile open_state(const std::string& path) {
  const Weights weights = Weights::open(path, {.whole = true});
  check_all(weights);
  return format::ArchiveFile::open(weights.files().front()->path());
}

/// std::nullopt where it is of another format, or cannot be read: whoever reads its weights says why.
std::optional<format::TorchFile> torch_file(const std::string& path) {
  try {
    io::File file = io::File::open(path);
    const format::Content content = format::content_of(file);
    if (content != format::Content::kZip && content != format::Content::kPickle) return std::nullopt;
    return format::TorchFile::open(std::move(file));
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool is_directory(const std::string& path) {
  const auto stat = io::stat(path);
  return stat && stat->type == io::FileType::kDirectory;
}

State read_state(const std::string& path, Converted& report) {
  if (is_directory(path)) return state_of(open_state(path));
  const std::optional<format::TorchFile> torch = torch_file(path);
  if (torch && torch->is_training_state()) return state_of(open_state(path));
  if (!torch || !is_python_checkpoint(*torch)) return state_of_weights(path, report);
  check_all(Weights::open(path, {.whole = true}));
  return state_of(training_state_of(*torch, {}, report.warnings));
}

void count(const std::vector<format::TensorToWrite>& tensors, Converted& report) {
  report.tensors = tensors.size();
  for (const format::TensorToWrite& tensor : tensors) report.bytes += tensor.data.bytes;
}

run::Committed commit(const std::string& run, const State& state) {
  run::RunWriter writer(run);
  return writer.commit(state.head, {state_file(state.root, state.tensors)}, {}, std::nullopt);
}

}  // namespace

run::Committed save_to_run(const SaveInput& input) {
  std::vector<format::TensorToWrite> tensors;
  std::map<std::string, const char*> parts;
  format::ArchiveToWrite root;
  const auto add = [&](const char* part, const char* kind, format::ArchiveToWrite level) {
    parts.emplace(part, kind);
    root.members.emplace_back(part, shared(std::move(level)));
  };
  const std::set<std::string> parameters = input.optimizer ? parameters_of(*input.optimizer) : std::set<std::string>();
  ModuleToWrite model = input.model->to_write(parameters, tensors);
  add("model", "module", std::move(model.tree));
  const size_t model_end = tensors.size();
  if (input.ema) add("ema", "module", input.ema->to_write(parameters, tensors).tree);
  std::vector<format::TensorToWrite> copy;
  if (input.weights_copy) copy = tensors;
  for (size_t i = 0; input.ema && i < copy.size(); ++i) copy[i].name.insert(0, i < model_end ? "model." : "ema.");
  if (input.optimizer) {
    add("optimizer", "optimizer",
        optimizer_to_write(*input.optimizer, input.optimizer_type, model.parameters, tensors));
  }
  root.members.emplace(root.members.begin(), format::kHeadPart, head_part(input.head, parts));

  std::vector<run::FileToWrite> files{state_file(root, tensors)};
  if (input.weights_copy) {
    files.push_back({std::string(run::kWeightsName), expected_bytes(copy),
                     [&](io::BlockWriter& writer) { write_safetensors(writer, std::move(copy)); }});
  }
  run::RunWriter writer(input.run, input.wait);
  return writer.commit(input.head, files, input.keep, input.keep.monitor);
}

Converted convert_to_run(const std::string& in, const std::string& run) {
  Converted report;
  const State state = read_state(in, report);
  count(state.tensors, report);
  const run::Committed committed = commit(run, state);
  report.warnings.insert(report.warnings.end(), committed.warnings.begin(), committed.warnings.end());
  report.outputs = {committed.path};
  return report;
}

run::Committed commit_weights(const std::string& run, std::vector<format::TensorToWrite> tensors,
                              const nlohmann::ordered_json& module_metadata, const run::CheckpointHead& head) {
  const State state = state_of_tensors(std::move(tensors), module_metadata, head);
  return commit(run, state);
}

Converted convert_to_python(const std::string& in, const std::string& out) {
  Converted report;
  State state = state_of(open_state(in));
  const format::PickleValue value = python_checkpoint_of(state.root, in, state.tensors, report.warnings);
  count(state.tensors, report);
  io::replace_file(out, [&](io::BlockWriter& writer) { format::write_torch(writer, value, state.tensors); });
  report.outputs = {out};
  return report;
}

bool holds_training_state(const std::string& path) {
  if (is_directory(path)) return true;
  const std::optional<format::TorchFile> torch = torch_file(path);
  return torch && torch->is_training_state();
}

}  // namespace ckpt::weights
