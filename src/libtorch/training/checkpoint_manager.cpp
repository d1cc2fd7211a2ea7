#include "ckpt/checkpoint_manager.h"

#include <cmath>
#include <utility>

#include "ckpt/training_state.h"
#include "core/average/best.h"
#include "core/base/log.h"
#include "core/base/parallel.h"
#include "core/format/archive.h"
#include "core/format/verify.h"
#include "core/io/stop_signals.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/run/save_queue.h"
#include "core/run/writer.h"
#include "libtorch/training/files.h"
#include "libtorch/training/snapshot.h"

namespace ckpt {
namespace {

using Clock = std::chrono::steady_clock;

run::KeepRules keep_rules(const ManagerOptions& options, const std::optional<run::Monitor>& monitor) {
  const RetentionPolicy& policy = options.keep;
  run::KeepRules rules;
  rules.last = policy.last;
  rules.best = policy.best;
  rules.monitor = monitor;
  rules.every = policy.every;
  rules.hours = policy.hours;
  if (options.average_best && !rules.best && !rules.keeps_all()) rules.best = options.average_best;
  return rules;
}

void check_options(const std::string& run, const ManagerOptions& options) {
  const auto refuse = [&](const std::string& why) { throw Error(ErrorCode::kInvalid, run, why); };
  const RetentionPolicy& keep = options.keep;
  if (run.empty()) refuse("the run directory has no name");
  if (keep.last == 0) refuse("keep.last is 0, expected at least 1");
  if (keep.best == 0) refuse("keep.best is 0, expected at least 1");
  if (keep.every == 0) refuse("keep.every is 0, expected at least 1");
  if (keep.hours && !(*keep.hours >= 0)) refuse("keep.hours is negative or NaN");
  if (keep.best && keep.metric.empty()) refuse("keep.best needs keep.metric");
  if (options.average_best == 0) refuse("average_best is 0, expected at least 1");
  if (options.average_best && keep.metric.empty()) refuse("average_best needs keep.metric");
  if (options.average_best && keep.best && *keep.best < *options.average_best) {
    refuse("keep.best is " + std::to_string(*keep.best) + ", expected at least average_best, which is " +
           std::to_string(*options.average_best));
  }
  const SaveSchedule& every = options.save_every;
  if (every.iterations == 0) refuse("save_every.iterations is 0, expected at least 1");
  if (every.epochs == 0) refuse("save_every.epochs is 0, expected at least 1");
  if (every.seconds && !(*every.seconds >= 0)) refuse("save_every.seconds is negative or NaN");
  if (options.max_pending == 0) refuse("max_pending is 0, expected at least 1");
}

CheckpointInfo info_of(const run::Committed& committed, const run::CheckpointHead& head) {
  CheckpointInfo info;
  info.path = committed.path;
  info.iteration = head.iteration;
  info.epoch = head.epoch;
  info.metrics = head.metrics;
  info.bytes = committed.bytes;
  info.deleted = committed.deleted;
  info.warnings = committed.warnings;
  return info;
}

CheckpointInfo info_of(const run::Checkpoint& checkpoint) {
  CheckpointInfo info;
  info.path = checkpoint.path;
  info.iteration = checkpoint.iteration;
  if (checkpoint.manifest) {
    info.epoch = checkpoint.manifest->epoch;
    info.metrics = checkpoint.manifest->metrics;
  }
  info.bytes = checkpoint.bytes;
  return info;
}

void throw_first(const std::vector<run::Problem>& problems) {
  if (problems.empty()) return;
  const run::Problem& first = problems.front();
  throw Error(ErrorCode::kCorrupt, first.file.empty() ? first.path : first.path + "/" + first.file, first.damage.reason,
              {.offset = first.damage.offset, .tensor = first.damage.tensor});
}

/// std::nullopt: another process's writer has removed the checkpoint meanwhile.
std::optional<format::ArchiveFile> open_state(const io::Directory& run, const std::string& checkpoint) {
  try {
    return format::ArchiveFile::open(run.open_dir(checkpoint).open_file(run::kStateName));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound || run.stat(checkpoint)) throw;
    return std::nullopt;
  }
}

/// Where a multiple of `n` lies between two counts.
bool passed_multiple(const std::optional<uint64_t>& n, uint64_t before, uint64_t now) {
  return n && now / *n > before / *n;
}

}  // namespace

struct CheckpointManager::Impl {
  Impl(std::string run, ManagerOptions given) : path(std::move(run)), options(std::move(given)) {
    check_options(path, options);
    if (!options.keep.metric.empty()) monitor = run::Monitor{options.keep.metric, options.keep.mode};
    if (options.stop_on_signals) signals.emplace();
  }

  void throw_untold() {
    if (!queue) return;
    if (auto error = queue->take_error()) std::rethrow_exception(error);
  }

  void drain() {
    if (queue) queue->drain();
  }

  /// The first save takes the lock. Only while no save is pending.
  void open_writer() {
    if (!writer) writer.emplace(path, options.wait_for_lock);
  }

  void raise_best(TrainingState& state) const {
    if (!monitor) return;
    const auto metrics = state.metrics();
    const auto found = metrics.find(monitor->metric);
    if (found == metrics.end() || std::isnan(found->second)) return;
    const double value = found->second;
    const bool better = !state.best_metric || std::isnan(*state.best_metric) ||
                        (monitor->mode == Mode::kMax ? value > *state.best_metric : value < *state.best_metric);
    if (better) state.best_metric = value;
  }

  run::Committed write(const training::Snapshot& snapshot) {
    auto committed = writer->commit(snapshot.head(), training::files_of(snapshot, options.weights_copy),
                                    keep_rules(options, monitor), monitor);
    if (options.average_best) {
      const auto failed = average::update_average_of_best(
          writer->directory(), {*options.average_best, *monitor, snapshot.holds_weights("ema")});
      committed.warnings.insert(committed.warnings.end(), failed.begin(), failed.end());
    }
    for (const auto& warning : committed.warnings) log(LogLevel::kWarning, warning);
    return committed;
  }

  void saved(const TrainingState& state) { at(state.iteration, state.epoch); }

  /// The schedule counts from here.
  void at(uint64_t iteration, uint64_t epoch) {
    last_iteration = iteration;
    last_epoch = epoch;
    last_time = Clock::now();
  }

  bool due(const TrainingState& state) const {
    const SaveSchedule& every = options.save_every;
    return passed_multiple(every.iterations, last_iteration, state.iteration) ||
           passed_multiple(every.epochs, last_epoch, state.epoch) ||
           (every.seconds && std::chrono::duration<double>(Clock::now() - last_time).count() >= *every.seconds);
  }

  SaveHandle save_async(TrainingState& state);
  std::optional<CheckpointInfo> load_selected(const run::Wanted& wanted, TrainingState& state,
                                              const LoadOptions& load_options);
  CheckpointInfo load_path(const std::string& from, TrainingState& state, const LoadOptions& load_options);

  const std::string path;
  const ManagerOptions options;
  std::optional<run::Monitor> monitor;
  std::optional<io::StopSignals> signals;
  std::optional<run::RunWriter> writer;
  uint64_t last_iteration = 0, last_epoch = 0;
  Clock::time_point last_time = Clock::now();
  std::unique_ptr<run::SaveQueue> queue;  // last: its thread uses what is above
};

CheckpointManager::CheckpointManager(std::string run, ManagerOptions options)
    : impl_(std::make_unique<Impl>(std::move(run), std::move(options))) {}

CheckpointManager::~CheckpointManager() {
  if (!impl_->queue) return;
  impl_->drain();
  while (auto error = impl_->queue->take_error()) {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& failure) {
      log(LogLevel::kError, std::string("an asynchronous save failed: ") + failure.what());
    } catch (...) {
      log(LogLevel::kError, "an asynchronous save failed");
    }
  }
}

const std::string& CheckpointManager::run() const { return impl_->path; }

CheckpointInfo CheckpointManager::save(TrainingState& state) {
  impl_->throw_untold();
  impl_->drain();
  impl_->throw_untold();
  impl_->open_writer();
  impl_->raise_best(state);
  const training::Snapshot snapshot = training::capture(state, nullptr);
  const run::Committed committed = impl_->write(snapshot);
  impl_->saved(state);
  return info_of(committed, snapshot.head());
}

SaveHandle CheckpointManager::Impl::save_async(TrainingState& state) {
  throw_untold();
  if (!writer) open_writer();  // nothing is pending before the first save
  if (!queue) queue = std::make_unique<run::SaveQueue>(options.max_pending, options.when_full);
  StagingBuffer* buffer = queue->begin(state.iteration);
  if (!buffer) return SaveHandle(run::skipped_ticket(state.iteration));
  std::shared_ptr<training::Snapshot> snapshot;
  try {
    raise_best(state);
    snapshot = std::make_shared<training::Snapshot>(training::capture(state, buffer));
  } catch (...) {
    queue->abandon(buffer);
    throw;
  }
  saved(state);
  return SaveHandle(queue->submit(buffer, state.iteration, [this, snapshot] { return write(*snapshot); }));
}

SaveHandle CheckpointManager::save_async(TrainingState& state) { return impl_->save_async(state); }

std::optional<SaveHandle> CheckpointManager::save_if_due(TrainingState& state) {
  impl_->throw_untold();
  if (!impl_->due(state)) return std::nullopt;
  return impl_->save_async(state);
}

void CheckpointManager::wait() {
  impl_->drain();
  impl_->throw_untold();
}

std::optional<CheckpointInfo> CheckpointManager::Impl::load_selected(const run::Wanted& wanted, TrainingState& state,
                                                                     const LoadOptions& load_options) {
  throw_untold();
  drain();
  throw_untold();
  if (!io::stat(path)) return std::nullopt;
  const io::Directory directory = io::Directory::open(path);
  auto selected = run::select(directory, wanted, default_threads());
  std::optional<format::ArchiveFile> archive;
  while (selected && !(archive = open_state(directory, selected->checkpoint.name))) {
    selected = run::select(directory, wanted, default_threads());
  }
  if (!selected) return std::nullopt;
  CheckpointInfo info = info_of(selected->checkpoint);
  info.report = training::restore(state, *archive, load_options);
  for (auto& passed : selected->passed_over) {
    log(LogLevel::kWarning, passed.path + ": passed over: " + passed.reason);
    info.skipped.push_back({std::move(passed.path), std::move(passed.reason)});
  }
  at(state.iteration, state.epoch);
  return info;
}

std::optional<CheckpointInfo> CheckpointManager::load_latest(TrainingState& state, const LoadOptions& options) {
  return impl_->load_selected({run::Which::kLatest, 0, impl_->options.verify}, state, options);
}

std::optional<CheckpointInfo> CheckpointManager::load_best(TrainingState& state, const LoadOptions& options) {
  return impl_->load_selected({run::Which::kBest, 0, impl_->options.verify}, state, options);
}

std::optional<CheckpointInfo> CheckpointManager::load(uint64_t iteration, TrainingState& state,
                                                      const LoadOptions& options) {
  return impl_->load_selected({run::Which::kIteration, iteration, impl_->options.verify}, state, options);
}

CheckpointInfo CheckpointManager::Impl::load_path(const std::string& from, TrainingState& state,
                                                  const LoadOptions& load_options) {
  throw_untold();
  drain();
  throw_untold();
  const auto found = io::stat(from);
  if (!found) throw Error(ErrorCode::kNotFound, from, "no such file or directory");
  CheckpointInfo info;
  std::optional<format::ArchiveFile> archive;
  if (found->type == io::FileType::kDirectory) {
    const io::Directory directory = io::Directory::open(from);
    const run::Checkpoint checkpoint = run::read_checkpoint(directory);
    if (checkpoint.state != run::State::kGood) throw Error(ErrorCode::kCorrupt, from, checkpoint.reason);
    if (options.verify) throw_first(run::verify(directory, default_threads()));
    info = info_of(checkpoint);
    archive = format::ArchiveFile::open(directory.open_file(run::kStateName));
  } else {
    info.bytes = found->bytes;
    archive = format::ArchiveFile::open(from);
    if (options.verify) {
      std::vector<run::Problem> problems;
      for (auto& damage : format::check_file(archive->file(), nullptr, archive->zip(),
                                             format::tensors_of(archive->root()), default_threads())) {
        problems.push_back({from, "", std::move(damage)});
      }
      throw_first(problems);
    }
  }
  info.report = training::restore(state, *archive, load_options);
  info.path = from;
  info.iteration = state.iteration;
  info.epoch = state.epoch;
  info.metrics = state.metrics();
  at(state.iteration, state.epoch);
  return info;
}

CheckpointInfo CheckpointManager::load(const std::string& path, TrainingState& state, const LoadOptions& options) {
  return impl_->load_path(path, state, options);
}

std::vector<CheckpointInfo> CheckpointManager::checkpoints() const {
  std::vector<CheckpointInfo> found;
  if (!io::stat(impl_->path)) return found;
  for (const auto& checkpoint : run::scan(io::Directory::open(impl_->path)).checkpoints) {
    if (checkpoint.state == run::State::kGood) found.push_back(info_of(checkpoint));
  }
  return found;
}

bool CheckpointManager::stop_requested() { return io::StopSignals::requested(); }

}  // namespace ckpt
