// ckpt inspect PATH: what is in a run, a checkpoint or a file. Reads indexes only; tensors with --stats alone.
#include "inspect.h"

#include <memory>
#include <utility>

#include "args.h"
#include "checks.h"
#include "command.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/base/pattern.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/weights/training_files.h"
#include "core/weights/values.h"
#include "text.h"
#include "weights_flags.h"

namespace ckpt::tool {
namespace {

struct Flags {
  std::string path;
  std::optional<std::string> match, key;
  bool ema = false, stats = false;
};

bool holds_pickle(Format format) {
  return format == Format::kTorch || format == Format::kTorchLegacy || format == Format::kTorchScript ||
         format == Format::kArchive;
}

/// What a file says beside its tensors.
nlohmann::json metadata_of(const weights::Weights& weights) {
  if (holds_pickle(weights.format())) {
    nlohmann::json values =
        weights::values_of(format::TorchFile::open(io::File::open(weights.files().front()->path())));
    if (!values.is_object()) values = {{"value", values}};
    values.update(weights.metadata());
    return values;
  }
  return weights.metadata();
}

Inspected inspect_file(const std::string& path, OpenOptions options, Output& output) {
  const bool all = options.key.empty() && !options.ema;
  if (content_of(io::File::open(path)) == Content::kManifest) {
    throw Error(ErrorCode::kUnsupported, path, "is the manifest of a checkpoint; inspect its directory");
  }
  // Of a training state everything is shown, and it may have no part that is its weights.
  options.whole = all && weights::holds_training_state(path);
  Inspected inspected{.path = path, .format = {}, .weights = open_weights(path, options, output)};
  if (inspected.weights.format() == Format::kArchive && all && !options.whole) {
    options.whole = true;
    inspected.weights = weights::Weights::open(path, options);
  }
  inspected.format = to_string(inspected.weights.format());
  inspected.metadata = metadata_of(inspected.weights);
  return inspected;
}

Inspected inspect_checkpoint(const run::Checkpoint& checkpoint, OpenOptions options, Output& output) {
  if (!checkpoint.manifest) {
    throw Error(ErrorCode::kCorrupt, checkpoint.path,
                std::string(to_string(checkpoint.state)) + ": " + checkpoint.reason);
  }
  const run::Manifest& manifest = *checkpoint.manifest;
  options.whole = options.key.empty() && !options.ema;
  const std::string state = checkpoint.path + "/" + std::string(run::kStateName);
  Inspected inspected{.path = checkpoint.path, .format = "checkpoint", .weights = open_weights(state, options, output)};
  nlohmann::json metrics = nlohmann::json::object();
  for (const auto& [name, value] : manifest.metrics) metrics[name] = json_number(value);
  nlohmann::json files = nlohmann::json::object();
  for (const run::ManifestFile& file : manifest.files) files[file.path] = file.bytes;
  nlohmann::json monitor;
  if (manifest.monitor) {
    monitor = {{"metric", manifest.monitor->metric}, {"mode", manifest.monitor->mode == Mode::kMax ? "max" : "min"}};
  }
  inspected.metadata = {{"path", checkpoint.path},
                        {"iteration", manifest.iteration},
                        {"epoch", manifest.epoch},
                        {"metrics", metrics},
                        {"monitor", monitor},
                        {"metadata", manifest.metadata},
                        {"save_id", manifest.save_id},
                        {"sequence", manifest.sequence},
                        {"time", manifest.time},
                        {"files", files},
                        {"state", metadata_of(inspected.weights)}};
  return inspected;
}

Inspected inspect_run(const std::string& path, const OpenOptions& options, Output& output) {
  const io::Directory directory = io::Directory::open(path);
  const auto selection = run::select(directory, {.verify = false}, default_threads());
  if (!selection) throw Error(ErrorCode::kNotFound, path, "holds no checkpoint");
  for (const auto& passed : selection->passed_over) {
    output.warn("passed over " + printable(passed.path) + ": " + passed.reason);
  }
  Inspected inspected = inspect_checkpoint(selection->checkpoint, options, output);
  inspected.format = "run";
  inspected.metadata["checkpoints"] = run::scan(directory).checkpoints.size();
  return inspected;
}

Inspected inspect_path(const Flags& flags, Output& output) {
  const std::string path = without_trailing_slash(flags.path);
  const OpenOptions options{.key = flags.key.value_or(""), .ema = flags.ema};
  switch (kind_of(path)) {
    case PathKind::kRun:
      return inspect_run(path, options, output);
    case PathKind::kCheckpoint: {
      const std::string real = resolve_link(path);
      return inspect_checkpoint(run::read_checkpoint(io::Directory::open(io::parent_path(real)), io::file_name(real)),
                                options, output);
    }
    case PathKind::kFile:
      break;
  }
  return inspect_file(path, options, output);
}

void find_ties(Inspected& inspected) {
  const auto& tensors = inspected.weights.tensors();
  std::map<int64_t, std::vector<std::string>> groups;
  for (const weights::Tensor& tensor : tensors) {
    if (tensor.tied_to < 0) continue;
    auto& group = groups[tensor.tied_to];
    if (group.empty()) group.push_back(tensors[static_cast<size_t>(tensor.tied_to)].name);
    group.push_back(tensor.name);
  }
  for (auto& [first, names] : groups) inspected.ties.push_back(std::move(names));
}

void add_stats(Inspected& inspected, Output& output) {
  output.progress("reading the tensors of " + printable(inspected.path));
  std::vector<weights::Stats> all(inspected.shown.size());
  const auto is_read = [&](size_t i) { return inspected.shown[i]->stored.layout == format::TensorLayout::kStrided; };
  parallel_for(all.size(), default_threads(), [&](size_t i) {
    if (is_read(i)) all[i] = weights::stats(inspected.weights, *inspected.shown[i]);
  });
  for (size_t i = 0; i < all.size(); ++i) {
    if (is_read(i)) inspected.stats.emplace(inspected.shown[i]->name, all[i]);
  }
  output.progress("");
}

nlohmann::json to_json(const weights::Stats& stats) {
  nlohmann::json json{{"nan", stats.nan}, {"inf", stats.inf}};
  for (const auto& [key, value] :
       {std::pair{"min", stats.min}, {"max", stats.max}, {"mean", stats.mean}, {"std", stats.std}}) {
    json[key] = stats.finite ? json_number(value) : nlohmann::json();
  }
  return json;
}

nlohmann::json to_json(const Inspected& inspected, bool with_stats) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const weights::Tensor* tensor : inspected.shown) {
    const format::StoredTensor& stored = tensor->stored;
    tensors.push_back({{"name", tensor->name},
                       {"dtype", ckpt::name(stored.dtype)},
                       {"shape", stored.shape},
                       {"bytes", stored.bytes}});
  }
  nlohmann::json foreign = nlohmann::json::array(), globals = nlohmann::json::array();
  for (const auto& global : inspected.weights.globals()) {
    if (!global.understood) foreign.push_back(global.name);
    globals.push_back({{"name", global.name}, {"understood", global.understood}});
  }
  nlohmann::json json{{"format", inspected.format},
                      {"tensors", tensors},
                      {"metadata", inspected.metadata},
                      {"ties", inspected.ties},
                      {"foreign", foreign},
                      {"globals", globals},
                      {"wasted_bytes", inspected.weights.wasted_bytes()}};
  if (with_stats) {
    json["stats"] = nlohmann::json::object();
    for (const auto& [name, stats] : inspected.stats) json["stats"][name] = to_json(stats);
  }
  return json;
}

int inspect(const Flags& flags, Output& output) {
  std::optional<Pattern> match;
  if (flags.match) match.emplace(*flags.match, "--match");
  Inspected inspected = inspect_path(flags, output);
  for (const weights::Tensor& tensor : inspected.weights.tensors()) {
    if (!match || match->matches(tensor.name)) inspected.shown.push_back(&tensor);
  }
  find_ties(inspected);
  if (flags.stats) add_stats(inspected, output);
  output.object(to_json(inspected, flags.stats));
  print_text(inspected, output);
  return 0;
}

}  // namespace

Action declare_inspect(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.description(
      "Shows what is in a checkpoint, a run (its newest checkpoint) or a file of weights: format, metadata, and name,\n"
      "dtype, shape and size of every tensor. Reads torch.save (old and new), TorchScript, .pt2, safetensors and its\n"
      "sharded index, archives of torch::serialize, told by content; no code of the file is ever run. Reads no tensor\n"
      "without --stats.");
  app.add_option("PATH", flags->path, "run, checkpoint or file")->required();
  app.add_flag("--stats", flags->stats, "min, max, mean, std, NaN and Inf of each tensor");
  app.add_option("--match", flags->match, "only the tensors whose name RE (RE2) matches")->type_name("RE");
  app.add_option("--key", flags->key, "dotted path to the weights in a training file; a part of a checkpoint")
      ->type_name("K");
  app.add_flag("--ema", flags->ema, "the averaged weights of a training file or checkpoint");
  app.footer(
      "Of a training file the weights are shown (model_state_dict, state_dict, model, ...); its other values are the\n"
      "metadata. Globals that a pickle names and that are not understood are listed and never imported or run.\n"
      "\n"
      "Examples:\n"
      "  ckpt inspect resnet50.pth\n"
      "  ckpt inspect runs/digits/step-000000001500 --stats --match '^model\\.'\n"
      "  ckpt inspect --json model.pt | jq -r '.tensors[].name'\n"
      "\n"
      "Exit codes:\n"
      "  0  shown\n"
      "  1  --match is no regular expression\n"
      "  2  usage\n"
      "  3  it cannot be read\n"
      "  4  it is damaged (verify says where), or asks for what a reader must not do\n"
      "  6  it does not exist, holds no tensors, or the run is empty\n"
      "  7  it is of a kind that cannot be read here");
  return [flags](Output& output) { return inspect(*flags, output); };
}

}  // namespace ckpt::tool
