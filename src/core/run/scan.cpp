#include <algorithm>
#include <atomic>
#include <set>
#include <tuple>

#include "ckpt/error.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/run/names.h"
#include "core/run/run.h"

namespace ckpt::run {
namespace {

/// Hashes of 9 TB; a parsed one takes some ten times as much memory.
constexpr uint64_t kMaxManifestBytes = 64 << 20;
constexpr size_t kCheckpointsPerThread = 64;
constexpr int kAttempts = 100;

void not_good(Checkpoint& checkpoint, State state, std::string reason) {
  checkpoint.state = state;
  checkpoint.reason = std::move(reason);
}

std::string reason_of(std::string_view file, const Error& error) {
  std::string reason = std::string(file) + ": " + error.message();
  if (error.offset()) reason += " (byte " + std::to_string(*error.offset()) + ")";
  return reason;
}

/// The step that a name means: its own, or the one it was made from.
std::optional<uint64_t> iteration_meant_by(std::string_view name) {
  std::string step;
  return iteration_of(leftover_of(name, &step) == Leftover::kNone ? name : std::string_view(step));
}

/// The bytes of a manifest. `prefix` is "" or "<name>/", below `base`.
std::pair<std::vector<std::byte>, std::string> manifest_bytes(const io::Directory& base, const std::string& prefix) {
  const io::File file = base.open_file(prefix + std::string(kManifestName));
  const uint64_t bytes = file.stat().bytes;
  if (bytes > kMaxManifestBytes) {
    throw Error(ErrorCode::kCorrupt, file.path(),
                "expected at most " + std::to_string(kMaxManifestBytes) + " bytes, found " + std::to_string(bytes));
  }
  return {file.read_at(0, bytes), file.path()};
}

/// Whether it could be read; otherwise state and reason are set.
bool read_manifest(const io::Directory& base, const std::string& prefix, Checkpoint& checkpoint) {
  try {
    const auto [text, path] = manifest_bytes(base, prefix);
    checkpoint.manifest = parse_manifest(as_text(text), path);
    checkpoint.bytes = text.size();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) {
      not_good(checkpoint, State::kPartial, "has no MANIFEST.json");
    } else {
      not_good(checkpoint, State::kDamaged, reason_of(kManifestName, error));
    }
    return false;
  }
  if (!iteration_meant_by(checkpoint.name)) checkpoint.iteration = checkpoint.manifest->iteration;
  if (checkpoint.iteration != checkpoint.manifest->iteration) {
    not_good(checkpoint, State::kDamaged,
             "its manifest is of iteration " + std::to_string(checkpoint.manifest->iteration));
  }
  return true;
}

/// Compares the sizes on disk with the manifest's.
void read_sizes(const io::Directory& base, const std::string& prefix, Checkpoint& checkpoint) {
  for (const ManifestFile& file : checkpoint.manifest->files) {
    const std::optional<io::Stat> stat = base.stat(prefix + file.path);
    if (stat && stat->type == io::FileType::kFile) checkpoint.bytes += stat->bytes;
    if (checkpoint.state != State::kGood) continue;
    if (!stat) {
      not_good(checkpoint, State::kDamaged, quote(file.path) + " is missing");
    } else if (stat->type != io::FileType::kFile) {
      not_good(checkpoint, State::kDamaged, quote(file.path) + " is no regular file");
    } else if (stat->bytes != file.bytes) {
      not_good(checkpoint, State::kDamaged,
               quote(file.path) + ": expected " + std::to_string(file.bytes) + " bytes, found " +
                   std::to_string(stat->bytes));
    }
  }
}

Checkpoint named(std::string name, std::string path) {
  Checkpoint checkpoint;
  checkpoint.iteration = iteration_meant_by(name).value_or(0);
  checkpoint.name = std::move(name);
  checkpoint.path = std::move(path);
  return checkpoint;
}

/// By names alone, without opening the directory: a good one is good, anything else needs a closer look, as the name
/// may have come to mean another directory between two calls.
std::optional<Checkpoint> read_if_good(const io::Directory& run, const std::string& name) {
  Checkpoint checkpoint = named(name, run.path_of(name));
  if (!read_manifest(run, name + "/", checkpoint)) return std::nullopt;
  read_sizes(run, name + "/", checkpoint);
  if (checkpoint.state != State::kGood) return std::nullopt;
  return checkpoint;
}

/// Lists the run until two lists agree: a list that is read while a rotation adds one name and removes another may
/// show neither.
std::vector<io::Entry> settled_list(const io::Directory& run) {
  const auto same = [](const io::Entry& a, const io::Entry& b) { return a.name == b.name && a.type == b.type; };
  std::vector<io::Entry> entries = run.list();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::vector<io::Entry> again = run.list();
    if (std::equal(entries.begin(), entries.end(), again.begin(), again.end(), same)) break;
    entries = std::move(again);
  }
  return entries;
}

bool comes_first(const Checkpoint& a, const Checkpoint& b) {
  const auto key = [](const Checkpoint& c) {
    return std::tuple(c.manifest.has_value(), c.manifest ? c.manifest->sequence : 0, c.iteration,
                      std::string_view(c.name));
  };
  return key(a) > key(b);
}

}  // namespace

std::string_view to_string(State state) {
  switch (state) {
    case State::kGood:
      return "good";
    case State::kDamaged:
      return "damaged";
    case State::kPartial:
      return "partial";
  }
  return "damaged";
}

uint64_t Scan::highest_sequence() const {
  uint64_t highest = 0;
  for (const Checkpoint& one : checkpoints) {
    if (one.manifest) highest = std::max(highest, one.manifest->sequence);
  }
  return highest;
}

std::optional<Monitor> Scan::monitor() const {
  for (const Checkpoint& one : checkpoints) {
    if (one.manifest && one.manifest->monitor) return one.manifest->monitor;
  }
  return std::nullopt;
}

Checkpoint read_checkpoint(const io::Directory& checkpoint) {
  Checkpoint read = named(io::file_name(checkpoint.path()), checkpoint.path());
  if (read_manifest(checkpoint, "", read)) {
    read_sizes(checkpoint, "", read);
    return read;
  }
  for (const io::Entry& entry : checkpoint.list()) {
    const std::optional<io::Stat> stat = checkpoint.stat(entry.name);
    if (stat && stat->type == io::FileType::kFile) read.bytes += stat->bytes;
  }
  return read;
}

Manifest read_manifest(const io::Directory& checkpoint) {
  const auto [text, path] = manifest_bytes(checkpoint, "");
  return parse_manifest(as_text(text), path);
}

bool still_named(const io::Directory& run, std::string_view name, const io::Directory& checkpoint) {
  const std::optional<io::Stat> by_name = run.stat(name);
  const std::optional<io::Stat> open = checkpoint.stat(".");
  return by_name && open && by_name->inode == open->inode && by_name->device == open->device;
}

Checkpoint read_checkpoint(const io::Directory& run, std::string_view name) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::optional<io::Stat> stat = run.stat(name);
    if (!stat) throw Error(ErrorCode::kNotFound, run.path_of(name), "no such checkpoint");
    if (stat->type != io::FileType::kDirectory) {
      Checkpoint checkpoint = named(std::string(name), run.path_of(name));
      not_good(checkpoint, State::kDamaged,
               stat->type == io::FileType::kLink ? "is a link, no directory" : "is no directory");
      return checkpoint;
    }
    try {
      const io::Directory directory = run.open_dir(name);
      Checkpoint checkpoint = read_checkpoint(directory);
      if (checkpoint.state == State::kGood || still_named(run, name, directory)) return checkpoint;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kNotFound) continue;
      Checkpoint checkpoint = named(std::string(name), run.path_of(name));
      not_good(checkpoint, State::kDamaged, error.message());
      return checkpoint;
    }
  }
  throw Error(ErrorCode::kIo, run.path_of(name), "changes faster than it can be read");
}

namespace {

/// `vanished`: one that was listed is gone, so that another may have come in its place.
Scan scan_once(const io::Directory& run, std::atomic<bool>& vanished) {
  Scan result;
  std::vector<io::Entry> found;
  std::set<std::string, std::less<>> steps;
  std::vector<std::pair<io::Entry, std::string>> replaced;  // with its step
  for (io::Entry& entry : settled_list(run)) {
    std::string step;
    const Leftover kind = leftover_of(entry.name, &step);
    if (kind == Leftover::kReplaced) {
      replaced.emplace_back(std::move(entry), std::move(step));
    } else if (kind != Leftover::kNone) {
      result.leftovers.push_back(std::move(entry.name));
    } else if (iteration_of(entry.name)) {
      steps.insert(entry.name);
      found.push_back(std::move(entry));
    }
  }
  for (auto& [entry, step] : replaced) {
    // The first of a step stands for it, as recovery puts it back.
    if (steps.insert(std::move(step)).second) {
      found.push_back(std::move(entry));
    } else {
      result.leftovers.push_back(std::move(entry.name));
    }
  }
  std::sort(result.leftovers.begin(), result.leftovers.end());

  std::vector<std::optional<Checkpoint>> read(found.size());
  const size_t threads = std::min<size_t>(default_threads(), found.size() / kCheckpointsPerThread + 1);
  parallel_for(found.size(), static_cast<unsigned>(threads), [&](size_t i) {
    // Not by way of a link.
    if (found[i].type == io::FileType::kDirectory) read[i] = read_if_good(run, found[i].name);
    if (read[i]) return;
    try {
      read[i] = read_checkpoint(run, found[i].name);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNotFound) throw;
      vanished = true;
    }
  });
  for (std::optional<Checkpoint>& one : read) {
    if (one) result.checkpoints.push_back(std::move(*one));
  }
  std::sort(result.checkpoints.begin(), result.checkpoints.end(), comes_first);
  return result;
}

}  // namespace

Scan scan(const io::Directory& run) {
  Scan result;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::atomic<bool> vanished = false;
    result = scan_once(run, vanished);
    if (!vanished) break;
  }
  return result;
}

bool is_checkpoint_directory(const std::string& path) {
  const std::optional<io::Stat> stat = io::stat(path);
  if (!stat || stat->type != io::FileType::kDirectory) return false;
  if (iteration_of(io::file_name(path))) return true;
  return io::Directory::open(path).stat(kManifestName).has_value();
}

}  // namespace ckpt::run
