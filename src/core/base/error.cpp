#include "ckpt/error.h"

#include <utility>

namespace ckpt {
namespace {

std::string one_line(const std::string& path, const std::string& message, const ErrorContext& context) {
  std::string text = path.empty() ? message : path + ": " + message;
  if (context.offset) text += " (byte " + std::to_string(*context.offset) + ")";
  return text;
}

}  // namespace

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid: return "invalid";
    case ErrorCode::kInternal: return "internal";
    case ErrorCode::kUsage: return "usage";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kLocked: return "locked";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kUnsafe: return "unsafe";
    case ErrorCode::kMismatch: return "mismatch";
    case ErrorCode::kNotFound: return "not_found";
    case ErrorCode::kUnsupported: return "unsupported";
  }
  return "internal";
}

Error::Error(ErrorCode code, std::string path, std::string message, Context context)
    : std::runtime_error(one_line(path, message, context)),
      code_(code),
      path_(std::move(path)),
      message_(std::move(message)),
      context_(std::move(context)) {}

}  // namespace ckpt
