// ckpt save RUN: commits files that a trainer wrote, in C++ or Python, as a checkpoint.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>

#include "args.h"
#include "checks.h"
#include "command.h"
#include "core/base/quote.h"
#include "core/weights/module_state.h"
#include "core/weights/python_checkpoint.h"
#include "core/weights/training_files.h"
#include "text.h"

namespace ckpt::tool {
namespace {

constexpr double kLongestWait = 1e9;  // seconds

struct Flags {
  std::string run, model, iteration;
  std::optional<std::string> ema, optimizer, optimizer_type, epoch, wait;
  std::vector<std::string> metrics, metadata;
  KeepFlags keep;
  bool weights_copy = false;
};

weights::SaveInput parse(const Flags& flags) {
  static constexpr std::array<std::string_view, 6> kTypes{"sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"};
  weights::SaveInput input;
  input.run = without_trailing_slash(flags.run);
  input.head.iteration = parse_count("--iteration", flags.iteration, 0);
  if (flags.epoch) input.head.epoch = parse_count("--epoch", *flags.epoch, 0);
  input.head.metrics = parse_metrics(flags.metrics);
  input.head.metadata = parse_metadata(flags.metadata);
  input.keep = flags.keep.rules();
  input.weights_copy = flags.weights_copy;
  if (flags.wait) {
    const double seconds = std::min(parse_number("--wait", *flags.wait, 0), kLongestWait);
    input.wait = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  }
  if (flags.optimizer_type) {
    if (!flags.optimizer) throw Error(ErrorCode::kUsage, "", "--optimizer-type needs --optimizer");
    if (std::find(kTypes.begin(), kTypes.end(), *flags.optimizer_type) == kTypes.end()) {
      throw Error(ErrorCode::kUsage, "",
                  "--optimizer-type: expected sgd, adam, adamw, rmsprop, adagrad or lbfgs, found " +
                      quote(*flags.optimizer_type));
    }
    input.optimizer_type = *flags.optimizer_type;
  }
  return input;
}

/// Every byte of an input is checked before anything is made of it.
void require_whole(const std::string& path, Output& output) {
  if (!io::stat(path)) throw Error(ErrorCode::kIo, path, "does not exist");
  output.progress("checking " + printable(path));
  const FileCheck check = check_file(path);
  if (!check.problems.empty()) {
    const run::Problem& problem = check.problems.front();
    throw Error(ErrorCode::kCorrupt, path, "damaged: " + describe(problem), {.tensor = problem.damage.tensor});
  }
  for (const std::string& warning : check.warnings) output.warn(warning);
  output.progress("");
}

weights::ModuleState open_module(const std::string& path, const std::string& part, Output& output) {
  require_whole(path, output);
  weights::ModuleState module = weights::ModuleState::open(path, part);
  for (const std::string& warning : module.warnings()) output.warn(printable(path) + ": " + warning);
  return module;
}

/// An archive of torch::save(optimizer) or a state.pt as it is; a state_dict of Python by the names of the model.
format::ArchiveFile open_optimizer(const std::string& path, const weights::ModuleState& model, Output& output) {
  require_whole(path, output);
  const Content content = content_of(io::File::open(path));
  if (content != Content::kZip && content != Content::kPickle) {
    throw Error(ErrorCode::kUnsupported, path, "expected an optimizer that LibTorch or Python saved");
  }
  const auto torch = format::TorchFile::open(io::File::open(path));
  if (torch.is_script()) return format::ArchiveFile::open(torch.shared_file());
  std::vector<std::string> warnings;
  format::ArchiveFile state = weights::optimizer_state_of(torch, model.weights().tensors(), warnings);
  for (const std::string& warning : warnings) output.warn(printable(path) + ": " + warning);
  return state;
}

/// What RUN may be, before anything is read: absent beside what is there, or a run.
void check_run(const std::string& path) {
  if (!io::stat(path)) {
    if (io::stat(io::parent_path(path))) return;
    throw Error(ErrorCode::kIo, path, "the directory it is to be made in does not exist");
  }
  switch (kind_of(path)) {
    case PathKind::kRun:
      return;
    case PathKind::kCheckpoint:
      throw Error(ErrorCode::kInvalid, path, "expected a run, found one of its checkpoints");
    case PathKind::kFile:
      throw Error(ErrorCode::kIo, path, "expected a run (a directory), found a file");
  }
}

std::string summary(const run::Committed& committed, double seconds) {
  std::string text = "saved iteration " + std::to_string(committed.iteration) + ", " + human_bytes(committed.bytes) +
                     " in " + human_number(std::max(0.01, std::round(seconds * 100) / 100)) + " s";
  if (!committed.deleted.empty()) text += "; deleted " + counted(committed.deleted.size(), "checkpoint");
  return text;
}

int save(const Flags& flags, Output& output) {
  using std::chrono::steady_clock;
  const steady_clock::time_point begin = steady_clock::now();
  weights::SaveInput input = parse(flags);
  check_run(input.run);
  const weights::ModuleState model = open_module(flags.model, "model", output);
  input.model = &model;
  std::optional<weights::ModuleState> ema;
  if (flags.ema) input.ema = &ema.emplace(open_module(*flags.ema, "ema", output));
  std::optional<format::ArchiveFile> optimizer;
  if (flags.optimizer) input.optimizer = &optimizer.emplace(open_optimizer(*flags.optimizer, model, output));

  output.progress("saving to " + printable(input.run));
  const run::Committed committed = weights::save_to_run(input);
  output.progress("");
  const double seconds = std::chrono::duration<double>(steady_clock::now() - begin).count();
  for (const std::string& warning : committed.warnings) output.warn(warning);
  output.object({{"path", committed.path},
                 {"iteration", committed.iteration},
                 {"bytes", committed.bytes},
                 {"seconds", seconds},
                 {"deleted", committed.deleted}});
  output.line(committed.path);
  output.note(summary(committed, seconds));
  return 0;
}

}  // namespace

Action declare_save(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.description(
      "Commits files that a trainer wrote (torch::save() of C++, or weights of any format) as one checkpoint of a "
      "run,\n"
      "durably, and applies retention. Prints its path. TrainingState and load_latest() of the library take it up, "
      "and\n"
      "so does ckpt load.");
  app.add_option("RUN", flags->run, "run directory; made where absent (its parent must be there)")->required();
  app.add_option("--model", flags->model,
                 "weights: an archive of torch::save(module), a state.pt, or a file of any format")
      ->type_name("FILE")
      ->required();
  app.add_option("--ema", flags->ema, "averaged weights, in the same form")->type_name("FILE");
  app.add_option("--optimizer", flags->optimizer,
                 "an archive of torch::save(optimizer), a state.pt, or Python's state_dict")
      ->type_name("FILE");
  app.add_option("--optimizer-type", flags->optimizer_type, "what it is; without it told from its fields")
      ->type_name("sgd|adam|adamw|rmsprop|adagrad|lbfgs");
  app.add_option("--iteration", flags->iteration, "number of the checkpoint; one that is there is replaced")
      ->type_name("I")
      ->required();
  app.add_option("--epoch", flags->epoch, "epochs that were finished (default: 0)")->type_name("E");
  app.add_option("--metric", flags->metrics, "a metric of this iteration; as often as needed")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  app.add_option("--meta", flags->metadata, "a text to keep with it; as often as needed")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  flags->keep.declare(app);
  app.add_flag("--weights-copy", flags->weights_copy, "write weights.safetensors beside state.pt");
  app.add_option("--wait", flags->wait, "seconds to wait for another writer (default: 0)")->type_name("S");
  app.footer(
      "The parameters of the optimizer are taken by position, in the order of the model's named_parameters(). Its "
      "type\n"
      "is not in LibTorch's archive: where the fields leave a doubt (Adam and AdamW) give --optimizer-type.\n"
      "\n"
      "Examples:\n"
      "  ckpt save runs/digits --model model.pt --iteration 1500 --epoch 3 --metric accuracy=0.98\n"
      "  ckpt save runs/digits --model model.pt --optimizer adam.pt --optimizer-type adamw --iteration 1500 \\\n"
      "    --keep-last 2 --keep-best 3 --monitor accuracy --mode max\n"
      "\n"
      "Exit codes:\n"
      "  0  durable (a link or deletion that failed afterwards is a warning)\n"
      "  2  usage\n"
      "  3  a writer holds the run, an input does not exist, or a file cannot be read or written; nothing was saved\n"
      "  4  an input is damaged\n"
      "  5  the optimizer does not fit the model\n"
      "  6  a state.pt given has no such part\n"
      "  7  an input is of a format, or holds a dtype or optimizer, that a checkpoint cannot take");
  return [flags](Output& output) { return save(*flags, output); };
}

}  // namespace ckpt::tool
