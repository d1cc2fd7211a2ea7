// The one exception type that leaves ckpt.
//
// Thread rule: an Error is a value; copy it between threads as you like.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace ckpt {

/// What kind of thing went wrong. The program `ckpt` maps each to an exit code.
enum class ErrorCode {
  kInvalid,      ///< a value that cannot be used where it was given (exit 1)
  kInternal,     ///< a defect of ckpt or of a library below it (exit 1)
  kUsage,        ///< an option or argument that makes no sense (exit 2)
  kIo,           ///< the operating system refused (exit 3)
  kLocked,       ///< another writer holds the run (exit 3)
  kCorrupt,      ///< bytes that are damaged, cut off or not of the format (exit 4)
  kUnsafe,       ///< a file that asks for what a reader must not do (exit 4)
  kMismatch,     ///< names, shapes, dtypes or counts that do not fit (exit 5)
  kNotFound,     ///< a run, checkpoint, part or path that is not there (exit 6)
  kUnsupported,  ///< something that cannot be expressed here (exit 7)
};

/// "corrupt", "not_found", ...: the spelling in the program's JSON.
std::string_view to_string(ErrorCode code);

/// Optional parts of an Error.
struct ErrorContext {
  std::optional<uint64_t> offset = std::nullopt;  ///< byte in the file where it was seen
  std::string tensor = {};                        ///< name of the tensor, unquoted; empty: none
  std::vector<std::string> details = {};          ///< one line each, where several problems are told at once
};

/// `what()` is one line: `<path>: <message> (byte <offset>)`; without a path `<message>`.
/// Details follow the message on the same line only through `details()`, never in `what()`.
class Error : public std::runtime_error {
 public:
  using Context = ErrorContext;

  Error(ErrorCode code, std::string path, std::string message, Context context = {});

  ErrorCode code() const noexcept { return code_; }
  const std::string& path() const noexcept { return path_; }
  const std::string& message() const noexcept { return message_; }
  std::optional<uint64_t> offset() const noexcept { return context_.offset; }
  const std::string& tensor() const noexcept { return context_.tensor; }
  const std::vector<std::string>& details() const noexcept { return context_.details; }

 private:
  ErrorCode code_;
  std::string path_;
  std::string message_;
  Context context_;
};

}  // namespace ckpt
