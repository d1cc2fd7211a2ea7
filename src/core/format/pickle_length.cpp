#include "core/format/pickle_length.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/base/checked.h"
#include "core/format/window.h"

namespace ckpt::format {
namespace {

constexpr size_t kChunk = 65536;

/// What follows an opcode.
struct Argument {
  enum Kind : uint8_t { kFixed, kCounted, kLines, kUnknown } kind = kUnknown;
  uint8_t size = 0;  ///< bytes; bytes of the count; lines
};

constexpr Argument argument_of(char opcode) {
  const auto is_one_of = [&](std::string_view opcodes) { return opcodes.find(opcode) != std::string_view::npos; };
  if (is_one_of("NtldaseuRobQ(012.)]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98")) {
    return {Argument::kFixed, 0};
  }
  if (is_one_of("Kqh\x80\x82")) return {Argument::kFixed, 1};
  if (is_one_of("M\x83")) return {Argument::kFixed, 2};
  if (is_one_of("Jrj\x84")) return {Argument::kFixed, 4};
  if (is_one_of("G\x95")) return {Argument::kFixed, 8};
  if (is_one_of("UC\x8a\x8c")) return {Argument::kCounted, 1};
  if (is_one_of("TXB\x8b")) return {Argument::kCounted, 4};
  if (is_one_of("\x8d\x8e\x96")) return {Argument::kCounted, 8};
  if (is_one_of("ILFSVpgP")) return {Argument::kLines, 1};
  if (is_one_of("ci")) return {Argument::kLines, 2};
  return {};
}

constexpr std::array<Argument, 256> kArguments = [] {
  std::array<Argument, 256> arguments{};
  for (size_t i = 0; i < arguments.size(); ++i) arguments[i] = argument_of(static_cast<char>(i));
  return arguments;
}();

/// Just behind the end of the line at `offset`.
uint64_t after_line(Window& window, uint64_t offset, uint64_t end) {
  while (true) {
    // One byte at least, so that a line without an end is an error.
    const auto bytes = static_cast<size_t>(std::clamp<uint64_t>(end - std::min(end, offset), 1, 256));
    const std::string_view text = as_text(window.view(offset, bytes));
    if (const size_t at = text.find('\n'); at != std::string_view::npos) return offset + at + 1;
    offset += text.size();
  }
}

}  // namespace

uint64_t pickle_length(const io::File& file, uint64_t offset, uint64_t end) {
  Window window(file, end, kChunk);
  uint64_t at = offset;
  while (true) {
    const auto opcode = std::to_integer<uint8_t>(window.view(at, 1)[0]);
    const Argument argument = kArguments[opcode];
    uint64_t length = 1 + uint64_t{argument.size};
    switch (argument.kind) {
      case Argument::kFixed:
        break;
      case Argument::kCounted: {
        const ByteView count = window.view(at + 1, argument.size);
        uint64_t bytes = 0;
        for (size_t i = count.size(); i-- > 0;) bytes = bytes << 8 | std::to_integer<uint64_t>(count[i]);
        length = checked_add(length, bytes).value_or(UINT64_MAX);
        break;
      }
      case Argument::kLines: {
        uint64_t next = at + 1;
        for (int i = 0; i < argument.size; ++i) next = after_line(window, next, end);
        length = next - at;
        break;
      }
      case Argument::kUnknown:
        throw Error(ErrorCode::kCorrupt, file.path(), "pickle: unknown opcode " + std::to_string(opcode),
                    {.offset = at});
    }
    if (length > end - at) {
      throw Error(ErrorCode::kCorrupt, file.path(), "cut off: a pickle that does not end", {.offset = at});
    }
    at += length;
    if (opcode == '.') return at - offset;
  }
}

}  // namespace ckpt::format
