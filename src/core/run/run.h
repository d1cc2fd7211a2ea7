// Reading a run directory: what checkpoints it has, whether they are whole. Needs no lock: a checkpoint appears whole,
// by one rename, and what vanishes while it is read counts as gone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/zip_reader.h"
#include "core/io/file.h"
#include "core/run/manifest.h"

namespace ckpt::run {

enum class State {
  kGood,     ///< a valid manifest, and every file it names has its size
  kDamaged,  ///< the manifest is invalid, or a file is missing or of another size
  kPartial,  ///< a step directory without a manifest
};
std::string_view to_string(State state);

struct Checkpoint {
  std::string name;        ///< "step-000000001200"
  std::string path;        ///< <run>/<name>
  uint64_t iteration = 0;  ///< by name
  State state = State::kGood;
  std::string reason;                ///< why it is not good
  std::optional<Manifest> manifest;  ///< where it could be read
  uint64_t bytes = 0;                ///< of the files in it
};

struct Scan {
  std::vector<Checkpoint> checkpoints;  ///< newest first: highest sequence; those without a manifest last, by iteration
  std::vector<std::string> leftovers;   ///< names of temporaries and trash, sorted

  uint64_t highest_sequence() const;
  /// The one of the newest manifest that has one.
  std::optional<Monitor> monitor() const;
};

/// Reads all manifests, on a few threads (10,000 checkpoints in 0.2 s). A name that is no step is ignored, and one that
/// vanishes meanwhile counts as gone. A checkpoint that a dead writer moved aside for a replacement that never came is
/// still one, under the name it has.
Scan scan(const io::Directory& run);

/// One checkpoint directory, whatever its name. kNotFound where it is not there (any more).
Checkpoint read_checkpoint(const io::Directory& run, std::string_view name);

/// The one that is open. It may have lost its name, and its files, since it was opened: still_named() tells.
Checkpoint read_checkpoint(const io::Directory& checkpoint);

/// The manifest of the checkpoint that is open. kNotFound where it has none; kCorrupt, or kIo.
Manifest read_manifest(const io::Directory& checkpoint);

/// Whether `name` in `run` still leads to the directory that is open as `checkpoint`.
bool still_named(const io::Directory& run, std::string_view name, const io::Directory& checkpoint);

struct Problem {
  std::string path;  ///< the checkpoint, or the file given
  std::string file;  ///< relative to it; empty: the checkpoint itself
  format::Damage damage;
};

/// Reads every byte of a checkpoint: manifest, sizes, hashes, CRCs of state.pt. Empty: whole.
std::vector<Problem> verify(const io::Directory& checkpoint, unsigned threads);

/// A run or not: a directory that is no checkpoint itself (has no MANIFEST.json and is not named step-N).
bool is_checkpoint_directory(const std::string& path);

struct PassedOver {
  std::string path;
  std::string reason;
};

/// Finds what a reader asked for, newest first, passing over what does not verify.
struct Selection {
  Checkpoint checkpoint;
  std::vector<PassedOver> passed_over;
};
enum class Which { kLatest, kBest, kIteration };
struct Wanted {
  Which which = Which::kLatest;
  uint64_t iteration = 0;
  bool verify = true;  ///< read every byte of a candidate; otherwise sizes and manifest only
};
/// std::nullopt: the run has no checkpoint at all (for kBest: and none ever had the metric; for kIteration: none of
/// that iteration). kCorrupt: there are some, and none is good. kBest takes the monitor of the newest manifest that has
/// one; kNotFound where none was ever given. What is not good is passed over where it would have come before the one
/// that is selected, or where nobody can tell (without a manifest its place is unknown).
std::optional<Selection> select(const io::Directory& run, const Wanted& wanted, unsigned threads);

}  // namespace ckpt::run
