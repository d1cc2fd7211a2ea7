// The inside of RunWriter, shared by commit.cpp (steps 1 to 6), upkeep.cpp (steps 7
// and 8), prune.cpp and recovery.cpp.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/io/file.h"
#include "core/io/lock.h"
#include "core/run/manifest.h"
#include "core/run/run.h"
#include "core/run/writer.h"

namespace ckpt::run {

/// What the writer remembers of a checkpoint, so that a save need not read all manifests again.
struct Known {
  std::string name;
  bool good = false;
  Candidate candidate;
  std::optional<Monitor> monitor;
};

struct RunWriter::Impl {
  Impl(const std::string& path, std::chrono::milliseconds wait);

  const io::Directory run;
  const io::FileLock lock;
  std::vector<Known> known;
  bool must_rescan = false;  ///< a call failed half way, so `known` may be wrong

  // recovery.cpp

  /// Puts back what a dead writer moved aside for a replacement that never came, and removes its other leftovers.
  void recover();

  // commit.cpp

  Committed commit(const CheckpointHead& head, const std::vector<FileToWrite>& files, const KeepRules& rules,
                   const std::optional<Monitor>& monitor);
  /// Step 5. Returns the name under which the checkpoint that was replaced lies now; empty where there was none.
  std::string publish(const std::string& temporary, const std::string& step);

  // upkeep.cpp

  void remember(const Scan& scan);
  /// Takes in what others removed from the run or added to it since.
  void refresh();
  uint64_t next_sequence() const;
  std::optional<Monitor> newest_monitor() const;
  /// Names of good checkpoints that no rule keeps.
  std::vector<std::string> victims(const KeepRules& rules) const;
  /// Steps 7 and 8. `replaced` as publish() returned it. Never throws an Error.
  void upkeep(const KeepRules& rules, const std::string& replaced, Committed& done);
  /// Step 7: points `latest` and `best` at the newest and the best of those known that are not among `leaving`.
  void renew_links(const std::vector<std::string>& leaving, std::vector<std::string>& warnings) const;
  /// Step 8. Returns the names that are gone by our hand.
  std::vector<std::string> remove(const std::vector<std::string>& names, std::vector<std::string>& warnings);

  // prune.cpp

  Pruned prune(const KeepRules& rules, bool damaged, bool dry_run, unsigned threads);
};

/// Seconds since 1970.
double unix_time();

}  // namespace ckpt::run
