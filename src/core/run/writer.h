// Writing into a run directory: the lock, the commit protocol, links, retention, and what a dead writer left.
//
// Commit protocol:
//   1 create `step-N.tmp-<random>`, mode 0700
//   2 write each file, checked, with fsync and checked close
//   3 write MANIFEST.json the same way
//   4 fsync the directory
//   5 rename it into place (an iteration that is there: by exchange, else the old one to trash and then the rename)
//   6 fsync the run directory: only now the save has succeeded (where the run directory is new, its parent was synced)
//   7 links `latest` and `best` by rename
//   8 retention: rename victims to trash, then delete
// Nothing is deleted before 6. A failure before 6 removes what was written and leaves the run as it was; a failure in 7
// or 8 is a warning: the checkpoint is durable.
//
// Thread rule: one thread at a time.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io/block_writer.h"
#include "core/io/file.h"
#include "core/io/lock.h"
#include "core/run/manifest.h"
#include "core/run/retention.h"
#include "core/run/run.h"

namespace ckpt::run {

/// What a checkpoint says of itself; the writer adds save_id, sequence, time and files.
struct CheckpointHead {
  uint64_t iteration = 0;
  uint64_t epoch = 0;
  std::map<std::string, double> metrics = {};
  nlohmann::json metadata = nlohmann::json::object();
  /// Where set: called when the files are written, for entries of `metadata` that are known only then.
  std::function<void(nlohmann::json& metadata)> complete = {};
};

/// One file of a checkpoint: `produce` appends its bytes. Throwing aborts the save.
struct FileToWrite {
  std::string name;
  uint64_t expected_bytes = 0;  ///< an estimate, for reserving and for the check of free space
  std::function<void(io::BlockWriter&)> produce;
};

struct Committed {
  std::string path;
  uint64_t iteration = 0;
  uint64_t sequence = 0;
  uint64_t bytes = 0;
  std::vector<std::string> deleted;   ///< paths of checkpoints that retention removed
  std::vector<std::string> warnings;  ///< links or retention that failed after the commit
};

class RunWriter {
 public:
  /// Creates the directory where absent (one level, parent fsynced), takes the lock (Error(kLocked) names the holder),
  /// removes the temporaries and trash of a dead writer (an old checkpoint whose replacement never came is put back),
  /// and scans.
  explicit RunWriter(const std::string& path, std::chrono::milliseconds wait = {});

  ~RunWriter();
  RunWriter(RunWriter&&) noexcept;

  const std::string& path() const;
  const io::Directory& directory() const;

  /// Steps 1 to 8. kIo: not enough free space (checked first), or a call failed; nothing of it is left then.
  /// When the fsync of step 6 fails, the state is unknown: the error says so and nothing is deleted. `monitor` goes
  /// into the manifest; the one of the newest manifest is carried on when it is not given.
  Committed commit(const CheckpointHead& head, const std::vector<FileToWrite>& files, const KeepRules& rules,
                   const std::optional<Monitor>& monitor);

  struct Pruned {
    std::vector<std::string> kept;
    std::vector<std::string> deleted;
    std::vector<std::string> warnings;
  };
  /// Retention by itself. Verifies (reads every byte) from the newest down until one is good and keeps that; damaged
  /// ones met on the way, and those not good by the scan, count for no rule and stay unless `damaged`. Links are
  /// renewed.
  Pruned prune(const KeepRules& rules, bool damaged, bool dry_run, unsigned threads);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ckpt::run
