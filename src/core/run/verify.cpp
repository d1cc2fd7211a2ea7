#include "core/format/verify.h"

#include <algorithm>

#include "ckpt/error.h"
#include "core/format/archive.h"
#include "core/format/safetensors.h"
#include "core/run/names.h"
#include "core/run/run.h"

namespace ckpt::run {
namespace {

format::Damage damage_of(const Error& error) {
  return {.record = {}, .tensor = error.tensor(), .offset = error.offset().value_or(0), .reason = error.message()};
}

/// What the bytes of a file mean, as far as its name says and it can be told: it gives names to damage. `problem` is
/// why a zip could not be read as one.
struct Meaning {
  std::optional<format::ArchiveFile> archive;
  std::optional<format::ZipReader> zip;
  std::vector<format::NamedTensor> tensors;
  std::optional<format::Damage> problem;
};

Meaning meaning_of_zip(const io::Directory& checkpoint, const std::string& name, const io::File& file) {
  Meaning meaning;
  try {
    meaning.archive = format::ArchiveFile::open(checkpoint.open_file(name));
    return meaning;
  } catch (const Error&) {
    // Perhaps only its pickle is not what we know; the records can be checked all the same.
  }
  try {
    meaning.zip.emplace(file);
  } catch (const Error& error) {
    meaning.problem = damage_of(error);
  }
  return meaning;
}

Meaning meaning_of(const io::Directory& checkpoint, const std::string& name, const io::File& file) {
  if (name.ends_with(".pt")) return meaning_of_zip(checkpoint, name, file);
  Meaning meaning;
  if (!name.ends_with(".safetensors")) return meaning;
  try {
    meaning.tensors = format::read_safetensors(file).tensors;
  } catch (const Error& error) {
    meaning.problem = damage_of(error);
  }
  return meaning;
}

std::vector<format::Damage> check_bytes(const io::Directory& checkpoint, const ManifestFile& known, unsigned threads) {
  const io::File file = checkpoint.open_file(known.path);
  const uint64_t bytes = file.stat().bytes;
  if (bytes != known.bytes) {
    return {{.record = {},
             .tensor = {},
             .offset = std::min(bytes, known.bytes),
             .reason = "expected " + std::to_string(known.bytes) + " bytes, found " + std::to_string(bytes)}};
  }
  const format::BlockHashes hashes{known.bytes, known.block_bytes, known.xxh3_64};
  Meaning meaning = meaning_of(checkpoint, known.path, file);
  std::vector<format::Damage> damage;
  if (meaning.archive) {
    const format::ArchiveFile& archive = *meaning.archive;
    damage = format::check_file(archive.file(), &hashes, archive.zip(), format::tensors_of(archive.root()), threads);
  } else {
    damage =
        format::check_file(file, &hashes, meaning.zip ? &*meaning.zip : nullptr, std::move(meaning.tensors), threads);
  }
  // Bytes as they were written, and still no file of its kind: nobody could load it.
  if (damage.empty() && meaning.problem) damage.push_back(*meaning.problem);
  return damage;
}

}  // namespace

std::vector<Problem> verify(const io::Directory& checkpoint, unsigned threads) {
  std::vector<Problem> problems;
  const auto add = [&](std::string_view file, format::Damage damage) {
    problems.push_back({checkpoint.path(), std::string(file), std::move(damage)});
  };
  Manifest manifest;
  try {
    manifest = read_manifest(checkpoint);
  } catch (const Error& error) {
    add(kManifestName, damage_of(error));
    return problems;
  }
  const uint64_t named = iteration_of(io::file_name(checkpoint.path())).value_or(manifest.iteration);
  if (named != manifest.iteration) {
    add(kManifestName, {.record = {},
                        .tensor = {},
                        .offset = 0,
                        .reason = "is of iteration " + std::to_string(manifest.iteration) + ", its name says " +
                                  std::to_string(named)});
  }
  for (const ManifestFile& file : manifest.files) {
    try {
      for (format::Damage& damage : check_bytes(checkpoint, file, threads)) add(file.path, std::move(damage));
    } catch (const Error& error) {
      // Also what the disk refuses to give back: that is damage of this file, and an older checkpoint may be whole.
      add(file.path, damage_of(error));
    }
  }
  return problems;
}

}  // namespace ckpt::run
