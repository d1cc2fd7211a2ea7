#include <set>
#include <utility>

#include "ckpt/error.h"
#include "core/base/checked.h"
#include "core/base/quote.h"
#include "core/run/names.h"
#include "core/run/writer_impl.h"

namespace ckpt::run {
namespace {

constexpr uint64_t kSpaceSlack = 1 << 20;  // manifest, directory entries, links
constexpr uint32_t kPrivate = 0700;

/// The directory of a checkpoint being written: removes itself unless it was published.
class Temporary {
 public:
  Temporary(const io::Directory& run, std::string name) : run_(run), name_(std::move(name)) {
    try {
      directory_ = run.create_dir(name_, kPrivate);
      inode_ = directory_->stat(".").value().inode;
    } catch (...) {
      // It may have been made and then not opened.
      remove();
      throw;
    }
  }

  ~Temporary() {
    if (!published_) remove();
  }

  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  const std::string& name() const { return name_; }
  const io::Directory& directory() const { return *directory_; }
  void published() { published_ = true; }

 private:
  /// Best effort: otherwise the next writer does it.
  void remove() noexcept {
    try {
      // Where an exchange was done and reported as failed, the name means the old checkpoint.
      const std::optional<io::Stat> there = run_.stat(name_);
      if (there && (!inode_ || there->inode == *inode_)) run_.remove_tree(name_);
    } catch (const std::exception&) {
    }
  }

  const io::Directory& run_;
  const std::string name_;
  std::optional<io::Directory> directory_;
  std::optional<uint64_t> inode_;
  bool published_ = false;
};

void check_files(const std::vector<FileToWrite>& files) {
  std::set<std::string_view> names;
  for (const FileToWrite& file : files) {
    if (!is_plain_name(file.name))
      throw Error(ErrorCode::kInvalid, "", "file name " + quote(file.name) + " is not plain");
    if (!names.insert(file.name).second)
      throw Error(ErrorCode::kInvalid, "", "file " + quote(file.name) + " is given twice");
  }
}

void check_space(const io::Directory& run, const std::vector<FileToWrite>& files) {
  std::optional<uint64_t> needed = kSpaceSlack;
  for (const FileToWrite& file : files) {
    if (needed) needed = checked_add(*needed, file.expected_bytes);
  }
  const uint64_t available = run.free_bytes();
  if (needed && *needed <= available) return;
  throw Error(ErrorCode::kIo, run.path(),
              "not enough free space: " + std::to_string(needed.value_or(UINT64_MAX)) + " bytes needed, " +
                  std::to_string(available) + " available");
}

/// All but the files. Refuses, before anything is written, what could not be read back.
Manifest manifest_of(const CheckpointHead& head, uint64_t sequence, const std::optional<Monitor>& monitor) {
  Manifest manifest;
  manifest.save_id = io::random_name();
  manifest.sequence = sequence;
  manifest.time = unix_time();
  manifest.iteration = head.iteration;
  manifest.epoch = head.epoch;
  manifest.metrics = head.metrics;
  manifest.monitor = monitor;
  manifest.metadata = head.metadata;
  parse_manifest(to_text(manifest), std::string(kManifestName));
  return manifest;
}

/// Step 2. Nobody else gets at the files through the private directory, whatever their mode, before it is published.
ManifestFile write(const io::Directory& directory, const FileToWrite& file) {
  io::BlockWriter writer(directory.create(file.name), file.expected_bytes);
  file.produce(writer);
  io::WrittenFile written = writer.finish(io::mode_of_umask(0666));
  return {
      .path = file.name, .bytes = written.bytes, .block_bytes = io::kBlockBytes, .xxh3_64 = std::move(written.xxh3_64)};
}

/// Step 3.
void write_manifest(const io::Directory& directory, const std::string& text) {
  io::File file = directory.create(kManifestName);
  file.set_mode(io::mode_of_umask(0666));
  file.write_at(0, as_bytes(text));
  file.sync();
  file.close();
}

}  // namespace

std::string RunWriter::Impl::publish(const std::string& temporary, const std::string& step) {
  if (!run.stat(step)) {
    run.rename(temporary, step);
    return {};
  }
  if (run.exchange(temporary, step)) return temporary;

  const std::string aside = replaced_name(step);
  run.rename(step, aside);
  try {
    // Both renames lost or done by halves must leave one of the two names.
    run.sync();
    run.rename(temporary, step);
  } catch (...) {
    must_rescan = true;
    try {
      run.rename(aside, step);
    } catch (const Error&) {
      // Readers find it where it is, and the next writer puts it back.
    }
    throw;
  }
  return aside;
}

Committed RunWriter::Impl::commit(const CheckpointHead& head, const std::vector<FileToWrite>& files,
                                  const KeepRules& rules, const std::optional<Monitor>& monitor) {
  rules.check();
  check_files(files);
  refresh();
  Manifest manifest = manifest_of(head, next_sequence(), monitor ? monitor : newest_monitor());
  check_space(run, files);

  Temporary temporary(run, temporary_name(head.iteration));                                            // 1
  for (const FileToWrite& file : files) manifest.files.push_back(write(temporary.directory(), file));  // 2
  if (head.complete) head.complete(manifest.metadata);
  const std::string text = to_text(manifest);
  write_manifest(temporary.directory(), text);  // 3
  temporary.directory().set_mode(io::mode_of_umask(0777));
  temporary.directory().sync();  // 4
  const std::string step = step_name(head.iteration);
  const std::string replaced = publish(temporary.name(), step);  // 5
  temporary.published();
  try {
    run.sync();  // 6
  } catch (const Error& error) {
    must_rescan = true;
    throw Error(
        ErrorCode::kIo, run.path_of(step),
        "written and in its place, but whether it would survive a power cut is unknown, and nothing was deleted: " +
            std::string(error.what()));
  }

  Committed done{.path = run.path_of(step),
                 .iteration = head.iteration,
                 .sequence = manifest.sequence,
                 .bytes = manifest.total_bytes() + text.size(),
                 .deleted = {},
                 .warnings = {}};
  std::erase_if(known, [&](const Known& one) { return one.candidate.iteration == head.iteration; });
  known.push_back({step, true, manifest.candidate(), manifest.monitor});
  upkeep(rules, replaced, done);  // 7, 8
  return done;
}

RunWriter::Impl::Impl(const std::string& path, std::chrono::milliseconds wait)
    : run(io::Directory::open_or_create(path)), lock(run, kLockName, wait) {
  recover();
  remember(scan(run));
}

RunWriter::RunWriter(const std::string& path, std::chrono::milliseconds wait)
    : impl_(std::make_unique<Impl>(path, wait)) {}
RunWriter::~RunWriter() = default;
RunWriter::RunWriter(RunWriter&&) noexcept = default;

const std::string& RunWriter::path() const { return impl_->run.path(); }
const io::Directory& RunWriter::directory() const { return impl_->run; }

Committed RunWriter::commit(const CheckpointHead& head, const std::vector<FileToWrite>& files, const KeepRules& rules,
                            const std::optional<Monitor>& monitor) {
  return impl_->commit(head, files, rules, monitor);
}

}  // namespace ckpt::run
