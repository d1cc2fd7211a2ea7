// The structures of a zip file as they lie in it (PKZIP APPNOTE 6.3; the numbers are its sections): taken apart but not
// yet believed, and put together as PyTorch does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/format/window.h"

namespace ckpt::format::zip {

inline constexpr uint32_t kLocalSignature = 0x04034b50;
inline constexpr uint32_t kCentralSignature = 0x02014b50;
inline constexpr uint32_t kDescriptorSignature = 0x08074b50;
inline constexpr uint32_t kEndSignature = 0x06054b50;
inline constexpr uint32_t kEnd64Signature = 0x06064b50;
inline constexpr uint32_t kLocatorSignature = 0x07064b50;
inline constexpr uint16_t kZip64Field = 0x0001;
inline constexpr uint16_t kPaddingField = 0x4246;    // "FB", torch's own
inline constexpr uint16_t kFlagDescriptor = 0x0008;  ///< sizes and CRC follow the data
inline constexpr uint16_t kFlagUtf8 = 0x0800;
inline constexpr uint64_t kMax16 = 0xffff;
inline constexpr uint64_t kMax32 = 0xffffffff;
inline constexpr size_t kLocalHeaderBytes = 30;    // 4.3.7
inline constexpr size_t kCentralHeaderBytes = 46;  // 4.3.12
inline constexpr size_t kEnd64Bytes = 56;          // 4.3.14, without an extensible data sector
inline constexpr size_t kLocatorBytes = 20;        // 4.3.15
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

/// A stored record that is being written.
struct WrittenRecord {
  std::string name;  ///< with the top folder
  uint64_t header_offset = 0;
  uint64_t bytes = 0;
  uint32_t crc = 0;

  /// Its offset or size does not fit 32 bits.
  bool needs_zip64() const { return header_offset >= kMax32 || bytes >= kMax32; }
};

/// The local header, whose extra field "FB" pads it so that the data begin at a multiple of 64. Does not hold the CRC.
std::string local_header_of(const WrittenRecord& record);
/// What follows the data; empty where there are none.
std::string descriptor_of(const WrittenRecord& record);
std::string central_header_of(const WrittenRecord& record);
/// ZIP64 end record, locator and end record, in this order, for a directory that ends where they begin.
std::string end_of(const End& end);

}  // namespace ckpt::format::zip
