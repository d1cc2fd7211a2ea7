// Owns one run directory: saves a TrainingState into it, decides when and what to keep, and finds the checkpoint to go
// on from.
//
// Thread rule: one thread at a time calls a manager, the training loop's as a rule; stop_requested() and SaveHandles
// may be used from any thread. A manager starts one thread of its own with its first asynchronous save, and a few that
// live as long as a save or load. Do not fork() while a save is pending.
//
// On the disk: each checkpoint is a directory `step-<iteration, 12 digits>` that appears whole, by one rename, after
// all in it was flushed; see the README for what survives what. All paths inside a run are relative: it can be moved.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ckpt/load_report.h"
#include "ckpt/retention_policy.h"
#include "ckpt/save_handle.h"

namespace ckpt {

class TrainingState;

/// When save_if_due() saves. Any of them together; where two meet, one save serves both. None set: never.
struct SaveSchedule {
  std::optional<uint64_t> iterations = std::nullopt;  ///< a multiple of N was reached since the last save
  std::optional<uint64_t> epochs = std::nullopt;      ///< a multiple of N was reached since the last save
  std::optional<double> seconds = std::nullopt;       ///< so long ago was the last save (or the manager made)
};

struct ManagerOptions {
  SaveSchedule save_every = {};
  RetentionPolicy keep = {};
  /// Also write `weights.safetensors`: the tensors of all registered modules; names are those of the module where there
  /// is one, else `<part>.<name>`.
  bool weights_copy = false;
  /// Keeps the mean of the K best checkpoints by keep.metric up to date, from the first one on:
  /// `averaged/weights.safetensors` of the models, `averaged/ema.safetensors` of the parts "ema" where the state has
  /// one (average.h says how; an element is rounded once). The best of all there are, as keep.best counts them; where
  /// other rules of `keep` are set, these K are kept, too. Written after the checkpoint is durable and only when they
  /// are others than before; one that cannot be written is a warning of the save and stays as it was.
  std::optional<uint64_t> average_best = std::nullopt;
  /// Loads read every byte first (sizes, hashes of the manifest, CRCs). Off: sizes and the manifest alone.
  bool verify = true;
  /// Asynchronous saves begun and not finished, each with a staging copy of the state; at least 1. Under
  /// WhenFull::kReplace taken as at least 2: a save that is being written is never given up, the newest waits behind.
  size_t max_pending = 1;
  WhenFull when_full = WhenFull::kWait;
  /// SIGTERM and SIGUSR1 set a flag for stop_requested() instead of what they did, until the manager is destroyed.
  bool stop_on_signals = false;
  /// How long the first save waits for another writer to let go of the run.
  std::chrono::milliseconds wait_for_lock{0};
};

/// A checkpoint that a reader did not take, and why.
struct SkippedCheckpoint {
  std::string path;
  std::string reason;
};

struct CheckpointInfo {
  std::string path;  ///< <run>/step-..., or as given to load(path)
  uint64_t iteration = 0;
  uint64_t epoch = 0;
  std::map<std::string, double> metrics;
  uint64_t bytes = 0;                      ///< of its files
  std::vector<SkippedCheckpoint> skipped;  ///< load: newer ones that are damaged, newest first
  std::vector<std::string> deleted;        ///< save: paths that retention removed
  std::vector<std::string> warnings;       ///< save: links, retention or averages that failed after the commit
  LoadReport report;                       ///< load: what was loaded into what
};

class CheckpointManager {
 public:
  /// Touches nothing on the disk: a run that is absent is created by the first save, which also takes the lock and
  /// keeps it until the manager is destroyed. Throws kInvalid for options that make no sense.
  explicit CheckpointManager(std::string run, ManagerOptions options = {});
  /// Waits for pending saves. An error that nobody was told of is logged.
  ~CheckpointManager();
  CheckpointManager(const CheckpointManager&) = delete;
  CheckpointManager& operator=(const CheckpointManager&) = delete;

  const std::string& run() const;

  /// Returns when the checkpoint is durable. Pending saves are written first. A checkpoint of the same iteration is
  /// replaced. With a monitored metric (keep.metric), state.best_metric is raised to the state's where that is better.
  /// Throws kLocked when another writer holds the run, kIo (also: too little free space), kInvalid when the state
  /// cannot be captured; then no checkpoint was added or removed. Also throws the error of an earlier asynchronous save
  /// that nobody was told of, before it does anything.
  CheckpointInfo save(TrainingState& state);

  /// Returns when the tensors are copied: what is saved are the values at the call, whatever training does next.
  /// Errors of writing come through the handle, or by the next call of the manager.
  SaveHandle save_async(TrainingState& state);

  /// save_async() if one of save_every is due; otherwise does nothing.
  std::optional<SaveHandle> save_if_due(TrainingState& state);

  /// Returns when no save is pending. Throws the first error that nobody was told of.
  void wait();

  /// Loads the newest checkpoint that is whole, passing over damaged ones (CheckpointInfo::skipped says which and why).
  /// std::nullopt: the run is empty or absent. Throws kCorrupt when there are checkpoints and none is whole, kMismatch
  /// when it does not fit the state (nothing was touched: see TrainingState). Pending saves are written first.
  std::optional<CheckpointInfo> load_latest(TrainingState& state, const LoadOptions& options = {});

  /// The best by the monitored metric. Also std::nullopt: no checkpoint has that metric. Throws kNotFound where no
  /// metric was ever monitored.
  std::optional<CheckpointInfo> load_best(TrainingState& state, const LoadOptions& options = {});

  /// That iteration's. std::nullopt: there is none. kCorrupt: it is damaged.
  std::optional<CheckpointInfo> load(uint64_t iteration, TrainingState& state, const LoadOptions& options = {});

  /// Any checkpoint directory or state.pt, of another run too, or an archive that plain LibTorch wrote (the model).
  /// Throws kNotFound, kCorrupt.
  CheckpointInfo load(const std::string& path, TrainingState& state, const LoadOptions& options = {});

  /// The checkpoints on the disk that are whole by manifest and sizes, newest first. Reads no data.
  std::vector<CheckpointInfo> checkpoints() const;

  /// Whether SIGTERM or SIGUSR1 came (ManagerOptions::stop_on_signals). The loop polls it, saves and ends.
  static bool stop_requested();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ckpt
