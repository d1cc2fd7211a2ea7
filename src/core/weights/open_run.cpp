// Weights in a checkpoint: its state.pt, or a copy of the weights where that is all there is.
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/weights/openers.h"

namespace ckpt::weights {
namespace {

// How often a reader begins again where a checkpoint is replaced between its verification and its opening.
constexpr int kAttempts = 100;

[[noreturn]] void damaged(const io::Directory& checkpoint, const std::vector<run::Problem>& problems) {
  const run::Problem& first = problems.front();
  std::string what = first.file.empty() ? "" : quote(first.file) + ": ";
  if (!first.damage.record.empty()) what += "record " + quote(first.damage.record) + ": ";
  if (!first.damage.tensor.empty()) what += "tensor " + quote(first.damage.tensor) + ": ";
  what += first.damage.reason;
  if (problems.size() > 1) what += ", and " + std::to_string(problems.size() - 1) + " more";
  throw Error(ErrorCode::kCorrupt, checkpoint.path(), what,
              {.offset = first.damage.offset, .tensor = first.damage.tensor});
}

/// The weights in an open checkpoint that was found to be good.
Contents open_good(const io::Directory& checkpoint, const OpenOptions& options) {
  const std::string_view name = checkpoint.stat(run::kStateName) ? run::kStateName : run::kWeightsName;
  if (name == run::kWeightsName && (!checkpoint.stat(name) || !options.key.empty() || options.ema)) {
    throw Error(ErrorCode::kNotFound, checkpoint.path(), "has no " + std::string(run::kStateName));
  }
  return open_file(checkpoint.open_file(name), options);
}

Contents open_checkpoint(const std::string& path, const OpenOptions& options) {
  const io::Directory checkpoint = io::Directory::open(path);
  if (options.verify) {
    const std::vector<run::Problem> problems = run::verify(checkpoint, default_threads());
    if (!problems.empty()) damaged(checkpoint, problems);
  } else if (const run::Checkpoint state = run::read_checkpoint(checkpoint); state.state != run::State::kGood) {
    throw Error(ErrorCode::kCorrupt, path, state.reason);
  }
  Contents contents = open_good(checkpoint, options);
  contents.format = Format::kCheckpoint;
  contents.path = path;
  return contents;
}

Contents open_run(const std::string& path, const OpenOptions& options) {
  const io::Directory directory = io::Directory::open(path);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto selection = run::select(
        directory, {.which = run::Which::kLatest, .iteration = 0, .verify = options.verify}, default_threads());
    if (!selection) throw Error(ErrorCode::kNotFound, path, "holds no checkpoint");
    const run::Checkpoint& selected = selection->checkpoint;
    try {
      const io::Directory checkpoint = directory.open_dir(selected.name);
      if (run::read_manifest(checkpoint).save_id != selected.manifest->save_id) continue;
      Contents contents = open_good(checkpoint, options);
      contents.format = Format::kRun;
      contents.path = selected.path;
      for (const run::PassedOver& one : selection->passed_over) {
        contents.warnings.push_back("passed over " + quote(one.path) + ": " + one.reason);
      }
      return contents;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNotFound || directory.stat(selected.name)) throw;
    }
  }
  throw Error(ErrorCode::kIo, path, "its checkpoints are replaced faster than they can be read");
}

}  // namespace

Contents open_directory(const std::string& path, const OpenOptions& options) {
  return run::is_checkpoint_directory(path) ? open_checkpoint(path, options) : open_run(path, options);
}

}  // namespace ckpt::weights
