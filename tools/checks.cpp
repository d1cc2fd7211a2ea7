#include "checks.h"

#include <algorithm>
#include <functional>

#include "ckpt/error.h"
#include "core/base/bytes.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/format/pt2.h"
#include "core/format/safetensors.h"
#include "core/format/safetensors_shards.h"
#include "core/format/torch_file.h"
#include "core/format/verify.h"
#include "core/run/manifest.h"
#include "core/run/names.h"
#include "text.h"

namespace ckpt::tool {
namespace {

constexpr uint64_t kManifestLimit = 1 << 30;

std::string text_at(const io::File& file, uint64_t offset, uint64_t most) {
  const uint64_t size = file.stat().bytes;
  if (offset >= size) return "";
  return std::string(as_text(file.read_at(offset, std::min(most, size - offset))));
}

run::Problem problem_of(const std::string& path, const Error& error) {
  return {path, "", {"", error.tensor(), error.offset().value_or(0), error.message()}};
}

/// What the manifest beside `path` says of it, if there is one that does.
std::optional<format::BlockHashes> hashes_beside(const std::string& path) {
  const std::string manifest_path = io::parent_path(path) + "/" + std::string(run::kManifestName);
  if (!io::stat(manifest_path)) return std::nullopt;
  try {
    const io::File file = io::File::open(manifest_path);
    const run::Manifest manifest = run::parse_manifest(text_at(file, 0, kManifestLimit), manifest_path);
    for (const run::ManifestFile& entry : manifest.files) {
      if (entry.path == io::file_name(path)) return format::BlockHashes{entry.bytes, entry.block_bytes, entry.xxh3_64};
    }
  } catch (const Error&) {
    // The file can still be checked by itself.
  }
  return std::nullopt;
}

void add_damages(const std::string& path, std::vector<format::Damage> damages, FileCheck& check) {
  for (format::Damage& damage : damages) check.problems.push_back({path, "", std::move(damage)});
}

/// What the pickle of a torch file says of its tensors, every place checked; foreign globals go to `check`.
std::vector<format::NamedTensor> tensors_of_pickle(const std::string& path, FileCheck& check) {
  const format::TorchFile torch = format::TorchFile::open(io::File::open(path));
  for (const auto& global : torch.globals()) {
    if (!global.understood) check.foreign.push_back(global.name);
  }
  return format::tensors_below(torch, torch.root()).tensors;
}

void check_zip(const io::File& file, const format::BlockHashes* hashes, FileCheck& check) {
  const std::string& path = file.path();
  const unsigned threads = default_threads();
  std::optional<format::ZipReader> zip;
  std::optional<Error> unreadable;
  std::vector<format::NamedTensor> tensors;
  check.what = "zip file";
  try {
    zip.emplace(file);
    const bool pt2 = format::is_pt2(*zip);
    check.what = pt2 ? ".pt2 file" : zip->find("constants.pkl") ? "archive" : "torch file";
    tensors = pt2 ? format::read_pt2(*zip) : tensors_of_pickle(path, check);
    if (zip->crcs_absent()) check.warnings.push_back(printable(path) + ": has no CRCs, unverified");
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kIo || error.code() == ErrorCode::kNotFound) throw;
    unreadable = error;
  }
  // The records can be checked even where what they hold cannot be read.
  if (zip || hashes) {
    add_damages(path, format::check_file(file, hashes, zip ? &*zip : nullptr, std::move(tensors), threads), check);
  }
  if (!unreadable || !check.problems.empty()) return;
  if (zip && unreadable->code() == ErrorCode::kUnsupported) {
    check.warnings.push_back(printable(path) + ": only its CRCs were checked: " + unreadable->message());
  } else {
    check.problems.push_back(problem_of(path, *unreadable));
  }
}

/// Without a manifest nothing tells whether its bytes are those that were written.
void check_without_checksums(const std::string& path, std::string_view format, FileCheck& check) {
  check.warnings.push_back(printable(path) + ": " + std::string(format) +
                           " has no checksums; only its structure was checked");
}

/// A file whose format holds no checksums: its structure, and its bytes where a manifest knows them. `read` reads it.
void check_listed(const io::File& file, const format::BlockHashes* hashes, std::string_view format, FileCheck& check,
                  const std::function<std::vector<format::NamedTensor>()>& read) {
  const std::string& path = file.path();
  std::vector<format::NamedTensor> tensors;
  std::optional<Error> unreadable;
  try {
    tensors = read();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) throw;
    unreadable = error;
  }
  if (hashes) {
    add_damages(path, format::check_file(file, hashes, nullptr, std::move(tensors), default_threads()), check);
  } else if (!unreadable) {
    check_without_checksums(path, format, check);
  }
  if (unreadable && check.problems.empty()) check.problems.push_back(problem_of(path, *unreadable));
}

void check_shards(const io::File& file, FileCheck& check) {
  check.what = "sharded safetensors";
  try {
    format::read_sharded(file);
    check_without_checksums(file.path(), "safetensors", check);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt && error.code() != ErrorCode::kUnsafe) throw;
    check.problems.push_back(problem_of(file.path(), error));
  }
}

void check_manifest(const io::File& file, FileCheck& check) {
  check.what = "manifest";
  try {
    run::parse_manifest(text_at(file, 0, kManifestLimit), file.path());
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) throw;
    check.problems.push_back(problem_of(file.path(), error));
  }
}

/// A name that promises a format whose content is not there.
bool claims_format(const std::string& path) {
  return io::file_name(path) == run::kManifestName || format::claims_weights(path);
}

}  // namespace

FileCheck check_file(const std::string& path) {
  const io::File file = io::File::open(path);
  FileCheck check;
  const auto known = hashes_beside(path);
  const format::BlockHashes* hashes = known ? &*known : nullptr;
  switch (content_of(file)) {
    case Content::kZip:
      check_zip(file, hashes, check);
      return check;
    case Content::kSafetensors:
      check.what = "safetensors file";
      check_listed(file, hashes, "safetensors", check, [&] { return format::read_safetensors(file).tensors; });
      return check;
    case Content::kManifest:
      check_manifest(file, check);
      return check;
    case Content::kEmpty:
      check.what = "file";
      check.problems.push_back({path, "", {"", "", 0, "is empty"}});
      return check;
    case Content::kPickle:
      check.what = "torch file (before 1.6)";
      check_listed(file, hashes, "the format before 1.6", check, [&] { return tensors_of_pickle(path, check); });
      return check;
    case Content::kSafetensorsIndex:
      check_shards(file, check);
      return check;
    case Content::kUnknown:
      break;
  }
  check.what = "file";
  if (hashes) {
    add_damages(path, format::check_file(file, hashes, nullptr, {}, default_threads()), check);
    return check;
  }
  if (!claims_format(path)) {
    throw Error(ErrorCode::kUnsupported, path, "is no torch file, archive, safetensors file or manifest");
  }
  check.problems.push_back({path, "", {"", "", 0, "does not begin like any format that its name may stand for"}});
  return check;
}

std::optional<std::vector<run::Problem>> check_step(const io::Directory& run, std::string_view name) {
  // Retention may remove it and a save may exchange it under our feet; then what was seen means nothing.
  for (;;) {
    try {
      const io::Directory checkpoint = run.open_dir(name);
      std::vector<run::Problem> problems = run::verify(checkpoint, default_threads());
      if (problems.empty() || run::still_named(run, name, checkpoint)) return problems;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNotFound || run.stat(name)) throw;
      return std::nullopt;
    }
  }
}

std::string describe(const run::Problem& problem) {
  std::string where;
  const auto add = [&](const std::string& text) { where += (where.empty() ? "" : ", ") + text; };
  if (!problem.file.empty()) add(printable(problem.file));
  if (!problem.damage.record.empty()) add("record " + printable(problem.damage.record));
  if (!problem.damage.tensor.empty()) add("tensor " + quote(problem.damage.tensor));
  if (!where.empty() || problem.damage.offset) add("byte " + std::to_string(problem.damage.offset));
  return where.empty() ? problem.damage.reason : where + ": " + problem.damage.reason;
}

}  // namespace ckpt::tool
