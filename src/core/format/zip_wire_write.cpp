// The structures of a zip file put together, byte for byte as PyTorch's writer (miniz) does: torch.load may compute
// where records lie instead of looking.
#include "core/format/zip_wire.h"

namespace ckpt::format::zip {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint16_t kMadeBy = 0x031e;     // Unix, version 3.0
constexpr uint16_t kZip64Needed = 0x2d;  // version 4.5

uint16_t flags_of(const WrittenRecord& record) {
  return static_cast<uint16_t>(kFlagUtf8 | (record.bytes != 0 ? kFlagDescriptor : 0));
}

uint64_t narrow(uint64_t value) { return std::min(value, kMax32); }

/// The ZIP64 extra field (4.5.3): what does not fit its own place.
std::string zip64_field_of(const WrittenRecord& record) {
  std::string content;
  if (record.bytes >= kMax32) {
    append_le(content, record.bytes, 8);
    append_le(content, record.bytes, 8);
  }
  if (record.header_offset >= kMax32) append_le(content, record.header_offset, 8);
  if (content.empty()) return {};
  std::string field;
  append_le(field, kZip64Field, 2);
  append_le(field, content.size(), 2);
  return field + content;
}

}  // namespace

std::string local_header_of(const WrittenRecord& record) {
  std::string extra = zip64_field_of(record);
  const uint64_t unpadded = record.header_offset + kLocalHeaderBytes + record.name.size() + extra.size() + 4;
  const uint64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
  append_le(extra, kPaddingField, 2);
  append_le(extra, padding, 2);
  extra.append(static_cast<size_t>(padding), 'Z');

  std::string header;
  append_le(header, kLocalSignature, 4);
  append_le(header, 0, 2);  // version needed
  append_le(header, flags_of(record), 2);
  append_le(header, 0, 2 + 2 + 2);  // method: stored; time; date
  append_le(header, 0, 4 + 4);      // CRC, stored size: in the descriptor
  append_le(header, 0, 4);          // size
  append_le(header, record.name.size(), 2);
  append_le(header, extra.size(), 2);
  return header + record.name + extra;
}

std::string descriptor_of(const WrittenRecord& record) {
  std::string descriptor;
  if (record.bytes == 0) return descriptor;
  const int width = record.needs_zip64() ? 8 : 4;
  append_le(descriptor, kDescriptorSignature, 4);
  append_le(descriptor, record.crc, 4);
  append_le(descriptor, record.bytes, width);
  append_le(descriptor, record.bytes, width);
  return descriptor;
}

std::string central_header_of(const WrittenRecord& record) {
  const std::string extra = zip64_field_of(record);
  std::string header;
  append_le(header, kCentralSignature, 4);
  append_le(header, 0, 2 + 2);  // versions made by and needed
  append_le(header, flags_of(record), 2);
  append_le(header, 0, 2 + 2 + 2);  // method, time, date
  append_le(header, record.crc, 4);
  append_le(header, narrow(record.bytes), 4);
  append_le(header, narrow(record.bytes), 4);
  append_le(header, record.name.size(), 2);
  append_le(header, extra.size(), 2);
  append_le(header, 0, 2 + 2 + 2);  // comment, disk, internal attributes
  append_le(header, 0, 4);          // external attributes
  append_le(header, narrow(record.header_offset), 4);
  return header + record.name + extra;
}

std::string end_of(const End& end) {
  const uint64_t end64_offset = end.directory_offset + end.directory_bytes;
  std::string bytes;
  append_le(bytes, kEnd64Signature, 4);
  append_le(bytes, kEnd64Bytes - 12, 8);
  append_le(bytes, kMadeBy, 2);
  append_le(bytes, kZip64Needed, 2);
  append_le(bytes, 0, 4 + 4);  // this disk, disk of the directory
  append_le(bytes, end.entries, 8);
  append_le(bytes, end.entries, 8);
  append_le(bytes, end.directory_bytes, 8);
  append_le(bytes, end.directory_offset, 8);

  append_le(bytes, kLocatorSignature, 4);
  append_le(bytes, 0, 4);  // disk of the ZIP64 end record
  append_le(bytes, end64_offset, 8);
  append_le(bytes, 1, 4);  // disks

  append_le(bytes, kEndSignature, 4);
  append_le(bytes, 0, 2 + 2);
  append_le(bytes, std::min(end.entries, kMax16), 2);
  append_le(bytes, std::min(end.entries, kMax16), 2);
  append_le(bytes, narrow(end.directory_bytes), 4);
  append_le(bytes, narrow(end.directory_offset), 4);
  append_le(bytes, 0, 2);  // comment
  return bytes;
}

}  // namespace ckpt::format::zip
