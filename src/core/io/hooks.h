// The seam at which tests make system calls fail, cut them short, or record them. Always compiled in; one check of an
// atomic pointer for each call where no hook is set.
//
// Thread rule: set_hook() when no other thread is inside the library; the hook itself may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ckpt::io {

/// The calls that are told to a hook. Those below kFirstReading change what is on the disk.
enum class Op : uint8_t {
  kCreate,    // open with O_CREAT|O_EXCL, or the lock file
  kWrite,     // pwrite
  kAllocate,  // fallocate
  kTruncate,  // ftruncate
  kSync,      // fsync of a file or directory
  kClose,     // close of a file that was written
  kMkdir,
  kRename,    // rename, also without replacing
  kExchange,  // renameat2(RENAME_EXCHANGE)
  kLink,      // symlinkat
  kUnlink,    // unlinkat of a file or link
  kRmdir,     // unlinkat of a directory
  kChmod,     // fchmod
  kFirstReading,
  kOpen = kFirstReading,  // open of something that is there
  kRead,                  // pread
  kStat,
  kList,  // reading a directory
  kReadLink,
  kLock,
  kStatFs,
  kMap,  // mmap of a file for reading
};

const char* to_string(Op op);

/// One system call about to be made.
struct Call {
  Op op;
  std::string path;            ///< of the file or directory, as the library knows it (absolute, or as the user gave it)
  std::string target = {};     ///< kRename, kExchange: the second path; kLink: the text of the link
  uint64_t offset = 0;         ///< kWrite, kRead
  const void* data = nullptr;  ///< kWrite: the bytes
  size_t size = 0;             ///< kWrite, kRead: bytes asked for; kTruncate, kAllocate: the size
};

class Hook {
 public:
  virtual ~Hook() = default;

  /// Before the call. 0: go on; an errno: fail with it instead of calling (EINTR is retried by the library as a real
  /// one would be). `call.size` may be lowered for kWrite and kRead: the call is then made with that size.
  virtual int before(Call& call) = 0;

  /// After a call that was made: its result (-1 with `error` an errno, or the count).
  virtual void after(const Call& call, long result, int error) = 0;
};

/// Sets the hook of this process and returns the one before; nullptr: none.
Hook* set_hook(Hook* hook);

}  // namespace ckpt::io
