// Writes a file of unknown length as a stream of blocks: hashed and written by a few threads with direct I/O, while the
// caller goes on producing.
//
// The caller appends; each full block of kBlockBytes is handed to a worker, which gathers it into an aligned buffer,
// hashes it (XXH3-64) and writes it at its place. Where the file system refuses O_DIRECT the same blocks go through
// the cache. At most kMaxBytesInFlight bytes are buffered; append() waits for room.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io/file.h"

namespace ckpt::io {

inline constexpr uint64_t kBlockBytes = 4194304;
inline constexpr uint64_t kMaxBytesInFlight = 48 << 20;

struct WrittenFile {
  uint64_t bytes = 0;
  std::vector<uint64_t> xxh3_64;  ///< one for each block of kBlockBytes; the last may be shorter; none for no bytes
};

class BlockWriter {
 public:
  /// Takes a file just made by Directory::create. `expected_bytes` (0: unknown) is reserved before the first write.
  explicit BlockWriter(File file, uint64_t expected_bytes = 0);
  /// Waits for its threads; without finish() the file is left as it is.
  ~BlockWriter();
  BlockWriter(const BlockWriter&) = delete;
  BlockWriter& operator=(const BlockWriter&) = delete;

  /// Copies the bytes before it returns. After an error of a worker it drops them and returns false; the error is
  /// thrown by finish(). Never throws: it is called from inside LibTorch's serializer, which cannot fail cleanly.
  bool append(ByteView bytes) noexcept;

  /// Like append(), but the bytes stay the caller's, unchanged, until finish() or destruction: they are read later.
  bool append_stable(ByteView bytes) noexcept;

  /// Before the first append: the blocks that cover the first `bytes` bytes are kept in memory until finish(), so that
  /// what is appended there may be changed. They come on top of what is buffered otherwise.
  void hold(uint64_t bytes);
  /// Changes bytes that were appended and are held. kInternal for any others.
  void patch(uint64_t offset, ByteView bytes);

  /// Waits, truncates to the exact length, sets `mode` where given, fsyncs and closes. Throws the first error.
  WrittenFile finish(std::optional<uint32_t> mode = std::nullopt);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes, fsyncs and closes a new file of mode 0600; returns what a manifest says of it. On an error it is removed.
WrittenFile write_file(const Directory& directory, std::string_view name, ByteView bytes);

/// Replaces `path` with what `produce(writer)` appends: a temporary file `<name>.tmp-<32 hex>` beside it, fsync,
/// rename, fsync of the parent. Atomic and durable; the mode is 0666 less the umask; a link of that name is replaced,
/// not followed. On an error the old file is as it was and the temporary is gone, except that when the last fsync fails
/// the new file has the name already, and the error says that this may not last.
WrittenFile replace_file(const std::string& path, const std::function<void(BlockWriter&)>& produce);

struct NewFile {
  std::string name;
  std::function<void(BlockWriter&)> produce;
};

/// The same for several files in `directory`, of which the last leads to the others (an index and its shards): it
/// appears when they are durable, and at no time leads to others than its own. An error while they are written leaves
/// all as it was.
///   1 every file under a temporary name, fsync and checked close
///   2 the old file of the last one's name removed, where there is one; fsync of the directory
///   3 all but the last renamed; fsync of the directory
///   4 the last renamed; fsync of the directory
void replace_files(const std::string& directory, const std::vector<NewFile>& files);

}  // namespace ckpt::io
