// Bytes in memory: views, little-endian loads and stores, and a cursor that cannot leave its range.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "ckpt/error.h"

namespace ckpt {

using ByteView = std::span<const std::byte>;

inline ByteView as_bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
inline std::string_view as_text(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// The little-endian value at `from`, which need not be aligned.
template <class T>
T load_le(const std::byte* from) {
  static_assert(std::is_integral_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::endian::native == std::endian::big) {
    std::array<std::byte, sizeof value> raw, swapped;
    std::memcpy(raw.data(), &value, sizeof value);
    for (size_t i = 0; i < sizeof value; ++i) swapped[i] = raw[sizeof value - 1 - i];
    std::memcpy(&value, swapped.data(), sizeof value);
  }
  return value;
}

/// Appends the `bytes` lowest bytes of `value`, little-endian.
inline void append_le(std::string& to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to += static_cast<char>(value >> (8 * i));
}

/// Reads forward through `bytes`; every read is checked against what remains and throws kCorrupt with `path` and the
/// offset (`base` + position) when it would pass the end.
class Cursor {
 public:
  Cursor(ByteView bytes, std::string path, uint64_t base = 0) : bytes_(bytes), path_(std::move(path)), base_(base) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  bool at_end() const { return remaining() == 0; }
  /// Offset in the file of the next byte.
  uint64_t offset() const { return base_ + position_; }

  ByteView take(uint64_t count) {
    if (count > remaining()) {
      throw Error(ErrorCode::kCorrupt, path_,
                  "cut off: expected " + std::to_string(count) + " more bytes, found " + std::to_string(remaining()),
                  {.offset = offset()});
    }
    ByteView taken = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += static_cast<size_t>(count);
    return taken;
  }

  template <class T>
  T le() {
    return load_le<T>(take(sizeof(T)).data());
  }

 private:
  ByteView bytes_;
  std::string path_;
  uint64_t base_;
  size_t position_ = 0;
};

}  // namespace ckpt
