// Files that appear whole, by a rename.
#include <utility>

#include "core/io/block_writer.h"

namespace ckpt::io {
namespace {

/// Files under temporary names; those that were not renamed are removed in the end.
class Temporaries {
 public:
  explicit Temporaries(const Directory& directory) : directory_(directory) {}
  Temporaries(const Temporaries&) = delete;
  Temporaries& operator=(const Temporaries&) = delete;
  ~Temporaries() {
    for (const auto& [temporary, name] : waiting_) {
      try {
        directory_.remove_file(temporary);
      } catch (const Error&) {  // there is an error to tell already
      }
    }
  }

  WrittenFile write(const std::string& name, const std::function<void(BlockWriter&)>& produce) {
    // Of a name near the limit of 255 bytes, only a part fits before the suffix.
    const std::string temporary = name.substr(0, 200) + ".tmp-" + random_name();
    File file = directory_.create(temporary);
    waiting_.emplace_back(temporary, name);
    BlockWriter writer(std::move(file));
    produce(writer);
    return writer.finish(mode_of_umask(0666));
  }

  /// In the order in which they were written, until `left` are left.
  void rename(size_t left) {
    while (waiting_.size() > left) {
      directory_.rename(waiting_.front().first, waiting_.front().second);
      waiting_.erase(waiting_.begin());
    }
  }

 private:
  const Directory& directory_;
  std::vector<std::pair<std::string, std::string>> waiting_;  // temporary name, name
};

void sync_replaced(const Directory& directory, const std::string& path) {
  try {
    directory.sync();
  } catch (const Error& error) {
    throw Error(ErrorCode::kIo, path, "replaced, but it may not outlast a power cut: " + std::string(error.what()));
  }
}

}  // namespace

WrittenFile replace_file(const std::string& path, const std::function<void(BlockWriter&)>& produce) {
  const std::string name = file_name(path);
  if (name.empty() || name == "." || name == "..") throw Error(ErrorCode::kIo, path, "is a directory, expected a file");
  const Directory directory = Directory::open(parent_path(path));
  Temporaries temporaries(directory);
  WrittenFile written = temporaries.write(name, produce);
  temporaries.rename(0);
  sync_replaced(directory, path);
  return written;
}

void replace_files(const std::string& path, const std::vector<NewFile>& files) {
  if (files.empty()) return;
  const Directory directory = Directory::open(path);
  Temporaries temporaries(directory);
  for (const NewFile& file : files) temporaries.write(file.name, file.produce);  // 1
  if (directory.remove_file(files.back().name)) directory.sync();                // 2
  temporaries.rename(1);                                                         // 3
  directory.sync();
  temporaries.rename(0);  // 4
  sync_replaced(directory, directory.path_of(files.back().name));
}

}  // namespace ckpt::io
