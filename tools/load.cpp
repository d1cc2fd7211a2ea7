// ckpt load PATH: which checkpoint to resume from. A script takes the path from stdout; the rest is on stderr.
#include <algorithm>
#include <array>
#include <memory>

#include "args.h"
#include "checks.h"
#include "command.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/weights/convert.h"
#include "core/weights/python_checkpoint.h"
#include "parts.h"
#include "text.h"
#include "weights_flags.h"

namespace ckpt::tool {
namespace {

struct Flags {
  std::string run;
  std::optional<std::string> which, part, out;
};

run::Wanted wanted_of(const Flags& flags) {
  run::Wanted wanted;
  const std::string which = flags.which.value_or("latest");
  if (which == "best") {
    wanted.which = run::Which::kBest;
  } else if (which != "latest") {
    if (which.empty() || which.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(ErrorCode::kUsage, "", "--which: expected latest, best or an iteration, found " + quote(which));
    }
    wanted.which = run::Which::kIteration;
    wanted.iteration = parse_count("--which", which, 0);
  }
  return wanted;
}

/// The part asked for; mistakes that show without looking at the run.
std::string part_of(const Flags& flags) {
  static constexpr std::array<std::string_view, 4> kParts{"model", "ema", "optimizer", "all"};
  const std::string part = flags.part.value_or("model");
  if (std::find(kParts.begin(), kParts.end(), part) == kParts.end()) {
    throw Error(ErrorCode::kUsage, "", "--part: expected model, ema, optimizer or all, found " + quote(part));
  }
  if (!flags.out) {
    if (flags.part) throw Error(ErrorCode::kUsage, "", "--part needs --out");
    return part;
  }
  const bool safetensors = flags.out->ends_with(".safetensors");
  if (!safetensors && !flags.out->ends_with(".pt")) {
    throw Error(ErrorCode::kUsage, "",
                "--out: expected a name that ends in .pt or .safetensors, found " + quote(*flags.out));
  }
  if (safetensors && part != "model" && part != "ema") {
    throw Error(ErrorCode::kUsage, "", "--out: a .safetensors file holds the part model or ema, not " + quote(part));
  }
  return part;
}

run::Selection select_in_run(const std::string& path, const run::Wanted& wanted) {
  auto selection = run::select(io::Directory::open(path), wanted, default_threads());
  if (selection) return std::move(*selection);
  switch (wanted.which) {
    case run::Which::kLatest:
      break;
    case run::Which::kBest:
      throw Error(ErrorCode::kNotFound, path, "holds no checkpoint with the monitored metric");
    case run::Which::kIteration:
      throw Error(ErrorCode::kNotFound, path, "holds no checkpoint of iteration " + std::to_string(wanted.iteration));
  }
  throw Error(ErrorCode::kNotFound, path, "holds no checkpoint yet");
}

/// One checkpoint directory: itself, where it is whole.
run::Selection select_checkpoint(const std::string& given) {
  const std::string path = resolve_link(given);
  const io::Directory parent = io::Directory::open(io::parent_path(path));
  const std::string name = io::file_name(path);
  const auto problems = check_step(parent, name);
  if (!problems) throw Error(ErrorCode::kNotFound, path, "does not exist");
  if (!problems->empty()) {
    throw Error(ErrorCode::kCorrupt, path, "damaged: " + describe(problems->front()));
  }
  run::Selection selection;
  selection.checkpoint = run::read_checkpoint(parent, name);
  selection.checkpoint.path = path;
  return selection;
}

std::string summary(const run::Manifest& manifest) {
  std::string text = "iteration " + std::to_string(manifest.iteration) + ", epoch " + std::to_string(manifest.epoch);
  for (const auto& [name, value] : manifest.metrics) text += ", " + printable(name) + " " + human_number(value);
  return text;
}

nlohmann::json to_json(const std::map<std::string, double>& metrics) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [name, value] : metrics) json[name] = json_number(value);
  return json;
}

nlohmann::json to_json(const run::Selection& selection) {
  const run::Manifest& manifest = *selection.checkpoint.manifest;
  nlohmann::json passed_over = nlohmann::json::array();
  for (const auto& passed : selection.passed_over) {
    passed_over.push_back({{"path", passed.path}, {"reason", passed.reason}});
  }
  return {{"path", selection.checkpoint.path},
          {"iteration", manifest.iteration},
          {"epoch", manifest.epoch},
          {"metrics", to_json(manifest.metrics)},
          {"passed_over", passed_over}};
}

/// What a training checkpoint of Python says of itself; std::nullopt for other files.
std::optional<run::CheckpointHead> head_of(const weights::Weights& weights) {
  if (weights.format() != Format::kTorch && weights.format() != Format::kTorchLegacy) return std::nullopt;
  const auto torch = format::TorchFile::open(io::File::open(weights.path()));
  if (!weights::is_python_checkpoint(torch)) return std::nullopt;
  std::vector<std::string> ignored;
  return weights::head_of(weights::training_state_of(torch, {.optimizer = false}, ignored));
}

/// A file of weights, checked as verify does; with --out its weights in the format of that name.
int load_file(const Flags& flags, const std::string& path, const std::string& part, Output& output) {
  if (flags.which) throw Error(ErrorCode::kUsage, "", "--which needs a run, and " + quote(path) + " is a file");
  if (part == "optimizer" || part == "all") {
    throw Error(ErrorCode::kUsage, "", "--part " + part + " needs a run or checkpoint; convert takes whole files");
  }
  output.progress("verifying " + printable(path));
  const FileCheck check = check_file(path);
  for (const std::string& warning : check.warnings) output.warn(warning);
  if (!check.problems.empty()) {
    throw Error(ErrorCode::kCorrupt, path, "damaged: " + describe(check.problems.front()));
  }
  const weights::Weights weights = open_weights(path, {.ema = part == "ema"}, output);
  uint64_t bytes = 0;
  for (const weights::Tensor& tensor : weights.tensors()) bytes += tensor.tied_to < 0 ? tensor.stored.bytes : 0;
  if (flags.out) {
    const bool safetensors = flags.out->ends_with(".safetensors");
    weights::convert(weights, *flags.out, {.to = safetensors ? Format::kSafetensors : Format::kArchive});
  }
  output.progress("");
  const std::optional<run::CheckpointHead> head = head_of(weights);
  output.object({{"path", path},
                 {"iteration", head ? nlohmann::json(head->iteration) : nlohmann::json()},
                 {"epoch", head ? nlohmann::json(head->epoch) : nlohmann::json()},
                 {"metrics", head ? to_json(head->metrics) : nlohmann::json::object()},
                 {"passed_over", nlohmann::json::array()}});
  output.line(path);
  output.note(std::string(to_string(weights.format())) + ", " + counted(weights.tensors().size(), "tensor") + ", " +
              human_bytes(bytes) + (flags.out ? "; wrote " + part + " to " + printable(*flags.out) : ""));
  return 0;
}

int load(const Flags& flags, Output& output) {
  const run::Wanted wanted = wanted_of(flags);
  const std::string part = part_of(flags);
  const std::string path = without_trailing_slash(flags.run);
  run::Selection selection;
  switch (kind_of(path)) {
    case PathKind::kRun:
      output.progress("verifying " + printable(path));
      selection = select_in_run(path, wanted);
      break;
    case PathKind::kCheckpoint:
      if (flags.which)
        throw Error(ErrorCode::kUsage, "", "--which needs a run, and " + quote(path) + " is a checkpoint");
      output.progress("verifying " + printable(path));
      selection = select_checkpoint(path);
      break;
    case PathKind::kFile:
      return load_file(flags, path, part, output);
  }
  output.progress("");
  for (const auto& passed : selection.passed_over) {
    output.warn("passed over " + printable(passed.path) + ": " + passed.reason);
  }
  if (flags.out) {
    const std::string state = selection.checkpoint.path + "/" + std::string(run::kStateName);
    write_part(format::ArchiveFile::open(state), part, *flags.out);
  }
  output.object(to_json(selection));
  output.line(selection.checkpoint.path);
  output.note(summary(*selection.checkpoint.manifest) +
              (flags.out ? "; wrote " + part + " to " + printable(*flags.out) : ""));
  return 0;
}

}  // namespace

Action declare_load(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.description(
      "Finds the checkpoint to resume from: the newest one of a run that verifies (every byte is read), or the one\n"
      "asked for. Prints its path alone on stdout; iteration, metrics and what was passed over go to stderr.\n"
      "A file of weights (any format that inspect shows) is verified, and --out takes the weights out of it.");
  app.add_option("RUN", flags->run, "run directory, one checkpoint, or a file of weights")->required();
  app.add_option("--which", flags->which, "which checkpoint (default: latest)")->type_name("latest|best|ITERATION");
  app.add_option("--part", flags->part, "what --out gets (default: model)")->type_name("model|ema|optimizer|all");
  app.add_option("--out", flags->out, "write it to FILE: .pt (archive) or .safetensors (model, ema)")
      ->type_name("FILE");
  app.footer(
      "A .pt file is what torch::save(module, FILE) writes, and torch::load(module, FILE) reads it.\n"
      "An existing FILE is replaced when the new one is whole.\n"
      "\n"
      "Examples:\n"
      "  DIR=$(ckpt load runs/digits) || [ $? = 6 ]      # 6: nothing yet, start afresh\n"
      "  ckpt load runs/digits --which best --out best.safetensors\n"
      "  ckpt load runs/digits --which 1500 --part ema --out ema.pt\n"
      "\n"
      "Exit codes:\n"
      "  0  found (and written)\n"
      "  2  usage\n"
      "  3  something cannot be read or written\n"
      "  4  there are checkpoints, and all are damaged\n"
      "  6  no such run, checkpoint or part, or the run is empty\n"
      "  7  a dtype that safetensors has not");
  return [flags](Output& output) { return load(*flags, output); };
}

}  // namespace ckpt::tool
