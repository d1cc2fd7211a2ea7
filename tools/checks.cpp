#include "checks.h"

#include <algorithm>
#include <array>

#include "ckpt/error.h"
#include "core/base/bytes.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/format/archive.h"
#include "core/format/safetensors.h"
#include "core/format/verify.h"
#include "core/run/manifest.h"
#include "core/run/names.h"
#include "text.h"

namespace ckpt::tool {
namespace {

constexpr uint64_t kManifestLimit = 1 << 30;
constexpr std::array<std::string_view, 5> kKnownEndings{".pt", ".pth", ".ckpt", ".bin", ".safetensors"};

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

void check_zip(const io::File& file, const format::BlockHashes* hashes, FileCheck& check) {
  check.what = "archive";
  const std::string& path = file.path();
  const unsigned threads = default_threads();
  std::optional<Error> unreadable;
  try {
    const format::ArchiveFile archive = format::ArchiveFile::open(path);
    if (archive.zip()->crcs_absent()) check.warnings.push_back(printable(path) + ": has no CRCs, unverified");
    add_damages(path,
                format::check_file(archive.file(), hashes, archive.zip(), format::tensors_of(archive.root()), threads),
                check);
    return;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kIo || error.code() == ErrorCode::kNotFound) throw;
    unreadable = error;
  }
  // The records can be checked even where what they hold cannot be read.
  try {
    const format::ZipReader zip(file);
    check.what = "zip file";
    add_damages(path, format::check_file(file, hashes, &zip, {}, threads), check);
    if (!check.problems.empty()) return;
    if (unreadable->code() == ErrorCode::kUnsupported || unreadable->code() == ErrorCode::kUnsafe) {
      check.warnings.push_back(printable(path) + ": only its CRCs were checked: " + unreadable->message());
      return;
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) throw;
    if (hashes) add_damages(path, format::check_file(file, hashes, nullptr, {}, threads), check);
    if (!check.problems.empty()) return;
  }
  check.problems.push_back(problem_of(path, *unreadable));
}

void check_safetensors(const io::File& file, const format::BlockHashes* hashes, FileCheck& check) {
  check.what = "safetensors file";
  const std::string& path = file.path();
  std::vector<format::NamedTensor> tensors;
  std::optional<Error> unreadable;
  try {
    tensors = format::read_safetensors(file).tensors;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) throw;
    unreadable = error;
  }
  if (hashes) {
    add_damages(path, format::check_file(file, hashes, nullptr, std::move(tensors), default_threads()), check);
  } else if (!unreadable) {
    check.warnings.push_back(printable(path) +
                             ": safetensors has no checksums; only its header and its size were checked");
  }
  if (unreadable && check.problems.empty()) check.problems.push_back(problem_of(path, *unreadable));
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
  const std::string name = io::file_name(path);
  return name == run::kManifestName || std::any_of(kKnownEndings.begin(), kKnownEndings.end(),
                                                   [&](std::string_view end) { return name.ends_with(end); });
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
      check_safetensors(file, hashes, check);
      return check;
    case Content::kManifest:
      check_manifest(file, check);
      return check;
    case Content::kEmpty:
      check.what = "file";
      check.problems.push_back({path, "", {"", "", 0, "is empty"}});
      return check;
    case Content::kPickle:
      if (!hashes) throw Error(ErrorCode::kUnsupported, path, "is a bare pickle, which has no checksums");
      break;
    case Content::kSafetensorsIndex:
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
