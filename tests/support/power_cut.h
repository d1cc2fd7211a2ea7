// What a disk may hold when the power fails: a hook that records the calls which change a directory tree, and makes, in
// another directory, the tree that would be found after the power failed behind any one of them.
//
// The model is harsher than any one file system:
// - What was there when the recording began is durable.
// - The bytes of a file are durable as of its last successful fsync. What was done to them since meets one DataFate,
//   the same for all files.
// - Names (create, rename, exchange, symlink, unlink, mkdir, rmdir) are durable once the directory that holds them was
//   fsynced: fsync of a file does not keep its name, fsync of a directory keeps neither its own name in its parent nor
//   the names below its subdirectories. Of the name operations that no fsync has covered, in the order in which they
//   were made, a prefix survives: Fate::names says how long. A rename or exchange is one operation.
// - A file whose name is lost is lost with it, fsynced or not; one whose removal is lost is back.
// - Close and the permission bits are not modelled.
//
// Open files and directories are known by the path under which they were opened; they are still found when that path
// was renamed since and nothing has taken its place.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "core/io/hooks.h"

namespace ckpt::test {

enum class DataFate {
  kLost,   // the bytes as of the last fsync: an empty file where there was none
  kKept,   // all of them
  kTorn,   // all up to the last write, of which the first half
  kZeros,  // the length, but what was written since the last fsync reads as zeros
};

struct Fate {
  DataFate data = DataFate::kLost;
  size_t names = 0;  ///< how many of the unsynced name operations survive
};

/// Also usable while other threads make calls; the tree is read at construction and must be quiet then.
class PowerCutRecorder : public io::Hook {
 public:
  /// `root` is an absolute path, spelled as the library will be given it. Calls outside of it are not recorded.
  explicit PowerCutRecorder(std::string root);

  int before(io::Call&) override { return 0; }
  void after(const io::Call& call, long result, int error) override;

  /// How many calls were recorded so far: those that succeeded and changed or synced something below the root.
  size_t calls() const;
  /// "rename step-1.tmp-x step-1", relative to the root.
  std::string describe(size_t call) const;

  /// Every fate that can tell itself apart after the first `calls` calls.
  std::vector<Fate> fates(size_t calls) const;

  /// Makes in `into` (created; must not exist) what the root would hold if the power had failed after `calls` calls.
  void materialise(size_t calls, Fate fate, const std::string& into) const;

 private:
  struct Record {
    io::Op op;
    std::string path;    // relative to the root; empty: the root
    std::string target;  // kRename, kExchange: relative too; kLink: the text
    uint64_t offset = 0;
    uint64_t size = 0;
    std::string data;
  };
  struct Original {
    std::string path;
    char type;  // 'd', 'f' or 'l'
    std::string content;
  };
  class Disk;

  bool relative(const std::string& path, std::string* out) const;
  Disk replay(size_t calls) const;

  std::string root_;
  std::vector<Original> originals_;  // parents before children
  mutable std::mutex mutex_;
  std::vector<Record> records_;
};

}  // namespace ckpt::test
