// MANIFEST.json: what a checkpoint is and what its files hold. A value.
//
// The file is exactly its canonical dump (two blanks of indentation, sorted keys, a final newline), so any changed byte
// shows; `check` is the XXH3-128 of the compact, key-sorted dump of all other fields.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/run/retention.h"

namespace ckpt::run {

struct ManifestFile {
  std::string path;  ///< a plain file name inside the checkpoint: is_plain_name()
  uint64_t bytes = 0;
  uint64_t block_bytes = 0;  ///< always io::kBlockBytes in this version of the format
  std::vector<uint64_t> xxh3_64;
};

struct Manifest {
  std::string save_id;    ///< 32 hex digits, random
  uint64_t sequence = 0;  ///< 1 + the highest in the run when it was committed: newest is the highest
  double time = 0;        ///< Unix seconds
  uint64_t iteration = 0;
  uint64_t epoch = 0;
  std::map<std::string, double> metrics;
  std::optional<Monitor> monitor;
  nlohmann::json metadata = nlohmann::json::object();
  uint64_t world_size = 1;
  std::vector<ManifestFile> files;

  uint64_t total_bytes() const;  ///< of the files it names
  Candidate candidate() const;   ///< what retention looks at
};

/// The exact bytes of MANIFEST.json. Throws kInvalid for what JSON cannot hold or a reader would refuse: text that is
/// not UTF-8, metadata that is no object or nests too deep, file names that are not plain. NaN and infinities in the
/// metadata are written as in --json, so they come back as text.
std::string to_text(const Manifest& manifest);

/// Not empty, no '/', no control character, no '.' in front, UTF-8, at most 255 bytes, and not MANIFEST.json.
bool is_plain_name(std::string_view name);

/// Strict: the text must be to_text() of the result. Throws kCorrupt with `path` and what was wrong: JSON, a missing,
/// unknown or mistyped field, a name that is not plain, a number of blocks that does not fit, a wrong check.
Manifest parse_manifest(std::string_view text, const std::string& path);

}  // namespace ckpt::run
