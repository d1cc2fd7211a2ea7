// The structures of a zip file as they lie in it (PKZIP APPNOTE 6.3; the numbers are its sections), taken apart but not
// yet believed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/format/window.h"

namespace ckpt::format::zip {

inline constexpr uint16_t kFlagDescriptor = 0x0008;  ///< sizes and CRC follow the data
inline constexpr uint64_t kMax16 = 0xffff;
inline constexpr uint64_t kMax32 = 0xffffffff;
inline constexpr size_t kLocalHeaderBytes = 30;    // 4.3.7
inline constexpr size_t kCentralHeaderBytes = 46;  // 4.3.12
inline constexpr size_t kEndBytes = 22;            // 4.3.16

/// What the end records (4.3.14 to 4.3.16) say; ZIP64 already resolved.
struct End {
  uint64_t entries = 0;
  uint64_t directory_offset = 0;
  uint64_t directory_bytes = 0;
};

/// Looks in the last 64 KiB + 22 bytes alone. kCorrupt, kUnsupported (several disks).
End find_end(const io::File& file, uint64_t file_bytes);

/// What a local header must repeat of its entry in the directory.
struct Repeated {
  uint16_t version = 0;
  uint16_t flags = 0;
  uint16_t time = 0;
  uint16_t date = 0;

  bool operator==(const Repeated&) const = default;
};

/// An entry of the central directory (4.3.12); ZIP64 already resolved.
struct CentralHeader {
  Repeated repeated;
  uint16_t method = 0;
  uint32_t crc = 0;
  uint64_t stored_bytes = 0;
  uint64_t bytes = 0;
  uint64_t header_offset = 0;
  uint64_t length = 0;    ///< of this entry in the directory
  std::string_view name;  ///< valid until the next use of the window
};
CentralHeader central_header(Window& window, uint64_t offset, const std::string& path);

/// A local header (4.3.7). Sizes and CRC are 0 where a data descriptor follows.
struct LocalHeader {
  Repeated repeated;
  uint16_t method = 0;
  uint32_t crc = 0;
  uint64_t stored_bytes = 0;
  uint64_t bytes = 0;
  uint64_t length = 0;     ///< of the header with name and extra fields
  std::string_view name;   ///< valid until the next use of the window
  std::string_view zip64;  ///< the ZIP64 extra field's content, if it has one
};
LocalHeader local_header(Window& window, uint64_t offset, const std::string& path);

}  // namespace ckpt::format::zip
