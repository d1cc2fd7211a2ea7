#include "core/format/zip_wire.h"

#include <optional>

#include "core/base/checked.h"
#include "core/base/quote.h"

namespace ckpt::format::zip {
namespace {

[[noreturn]] void fail(const std::string& path, uint64_t offset, const std::string& message) {
  throw Error(ErrorCode::kCorrupt, path, message, {.offset = offset});
}

uint16_t u16(ByteView bytes, size_t at) { return load_le<uint16_t>(bytes.subspan(at, 2).data()); }
uint32_t u32(ByteView bytes, size_t at) { return load_le<uint32_t>(bytes.subspan(at, 4).data()); }
uint64_t u64(ByteView bytes, size_t at) { return load_le<uint64_t>(bytes.subspan(at, 8).data()); }

/// The content of the ZIP64 field, empty where there is none. Every field must fit, and torch's padding must be whole:
/// nothing else would notice damage to it.
std::string_view zip64_field(std::string_view extra, const std::string& path, uint64_t offset) {
  std::string_view found;
  while (!extra.empty()) {
    if (extra.size() < 4) fail(path, offset, "zip: an extra field is cut off");
    const ByteView head = as_bytes(extra.substr(0, 4));
    const uint16_t id = u16(head, 0);
    const size_t bytes = u16(head, 2);
    extra.remove_prefix(4);
    if (bytes > extra.size()) {
      fail(path, offset,
           "zip: an extra field of " + std::to_string(bytes) + " bytes where " + std::to_string(extra.size()) +
               " are left");
    }
    const std::string_view content = extra.substr(0, bytes);
    if (id == kZip64Field) {
      if (!found.empty() || content.empty()) fail(path, offset, "zip: the ZIP64 field is empty or there twice");
      found = content;
    } else if (id == kPaddingField && content.find_first_not_of('Z') != std::string_view::npos) {
      fail(path, offset, "zip: the padding before a record is damaged");
    }
    extra.remove_prefix(bytes);
  }
  return found;
}

/// Replaces those of `values` that say "see ZIP64" by the field's, in order; the field must hold just these.
void resolve_zip64(std::string_view field, std::initializer_list<uint64_t*> values, const std::string& path,
                   uint64_t offset) {
  const ByteView bytes = as_bytes(field);
  size_t used = 0;
  for (uint64_t* value : values) {
    if (*value != kMax32) continue;
    if (bytes.size() - used < 8) fail(path, offset, "zip: the ZIP64 field lacks a size or offset");
    *value = u64(bytes, used);
    used += 8;
  }
  if (used != bytes.size()) {
    fail(path, offset,
         "zip: expected a ZIP64 field of " + std::to_string(used) + " bytes, found " + std::to_string(bytes.size()));
  }
}

struct EndPosition {
  uint64_t offset = 0;
  std::vector<std::byte> bytes;
};

EndPosition locate_end(const io::File& file, uint64_t file_bytes) {
  const uint64_t span = std::min<uint64_t>(file_bytes, kEndBytes + kMax16);
  const std::vector<std::byte> tail = file.read_at(file_bytes - span, span);
  for (size_t left = kEndBytes; left <= tail.size(); ++left) {
    const ByteView candidate = ByteView(tail).last(left);
    if (u32(candidate, 0) == kEndSignature && u16(candidate, 20) == left - kEndBytes) {
      return {file_bytes - left, {candidate.begin(), candidate.begin() + kEndBytes}};
    }
  }
  fail(file.path(), file_bytes - span, "no zip file, or cut off: it does not end with a zip end record");
}

/// One number that the end record and the ZIP64 end record both hold: the first may say "see ZIP64".
void check_same(uint64_t narrow, uint64_t wide, uint64_t see_wide, const std::string& path, uint64_t offset) {
  if (narrow != wide && narrow != see_wide) {
    fail(path, offset,
         "zip: the end record says " + std::to_string(narrow) + ", the ZIP64 end record " + std::to_string(wide));
  }
}

}  // namespace

End find_end(const io::File& file, uint64_t file_bytes) {
  const std::string& path = file.path();
  const EndPosition position = locate_end(file, file_bytes);
  const ByteView end = position.bytes;
  if (u16(end, 4) != 0 || u16(end, 6) != 0 || u16(end, 8) != u16(end, 10)) {
    throw Error(ErrorCode::kUnsupported, path, "zip: an archive of several disks", {.offset = position.offset});
  }
  End result{u16(end, 10), u32(end, 16), u32(end, 12)};
  uint64_t directory_end = position.offset;

  if (position.offset >= kLocatorBytes + kEnd64Bytes) {
    const uint64_t locator_offset = position.offset - kLocatorBytes;
    const std::vector<std::byte> locator = file.read_at(locator_offset, kLocatorBytes);
    if (u32(locator, 0) == kLocatorSignature) {
      const uint64_t offset = locator_offset - kEnd64Bytes;
      if (u32(locator, 4) != 0 || u32(locator, 16) != 1 || u64(locator, 8) != offset) {
        fail(path, locator_offset,
             "zip: expected the ZIP64 end record at " + std::to_string(offset) + ", found " +
                 std::to_string(u64(locator, 8)));
      }
      const std::vector<std::byte> wide = file.read_at(offset, kEnd64Bytes);
      if (u32(wide, 0) != kEnd64Signature || u64(wide, 4) != kEnd64Bytes - 12 || u32(wide, 16) != 0 ||
          u32(wide, 20) != 0 || u64(wide, 24) != u64(wide, 32)) {
        fail(path, offset, "zip: the ZIP64 end record is damaged");
      }
      check_same(result.entries, u64(wide, 32), kMax16, path, offset);
      check_same(result.directory_bytes, u64(wide, 40), kMax32, path, offset);
      check_same(result.directory_offset, u64(wide, 48), kMax32, path, offset);
      result = {u64(wide, 32), u64(wide, 48), u64(wide, 40)};
      directory_end = offset;
    }
  }
  if (checked_add(result.directory_offset, result.directory_bytes) != directory_end) {
    fail(path, position.offset,
         "zip: the directory is said to be " + std::to_string(result.directory_bytes) + " bytes at " +
             std::to_string(result.directory_offset) + ", but should end at " + std::to_string(directory_end));
  }
  return result;
}

CentralHeader central_header(Window& window, uint64_t offset, const std::string& path) {
  const ByteView fixed = window.view(offset, kCentralHeaderBytes);
  if (u32(fixed, 0) != kCentralSignature) fail(path, offset, "zip: no directory entry where one should be");
  const size_t name_bytes = u16(fixed, 28), extra_bytes = u16(fixed, 30), comment_bytes = u16(fixed, 32);
  CentralHeader header;
  header.length = kCentralHeaderBytes + name_bytes + extra_bytes + comment_bytes;
  const ByteView bytes = window.view(offset, static_cast<size_t>(header.length));
  header.repeated = {u16(bytes, 6), u16(bytes, 8), u16(bytes, 12), u16(bytes, 14)};
  header.method = u16(bytes, 10);
  header.crc = u32(bytes, 16);
  header.stored_bytes = u32(bytes, 20);
  header.bytes = u32(bytes, 24);
  header.header_offset = u32(bytes, 42);
  if (u16(bytes, 34) != 0) {
    throw Error(ErrorCode::kUnsupported, path, "zip: an archive of several disks", {.offset = offset});
  }
  header.name = as_text(bytes.subspan(kCentralHeaderBytes, name_bytes));
  const std::string_view extra = as_text(bytes.subspan(kCentralHeaderBytes + name_bytes, extra_bytes));
  resolve_zip64(zip64_field(extra, path, offset), {&header.bytes, &header.stored_bytes, &header.header_offset}, path,
                offset);
  return header;
}

LocalHeader local_header(Window& window, uint64_t offset, const std::string& path) {
  const ByteView fixed = window.view(offset, kLocalHeaderBytes);
  if (u32(fixed, 0) != kLocalSignature) fail(path, offset, "zip: no record where the directory says one is");
  const size_t name_bytes = u16(fixed, 26), extra_bytes = u16(fixed, 28);
  LocalHeader header;
  header.length = kLocalHeaderBytes + name_bytes + extra_bytes;
  const ByteView bytes = window.view(offset, static_cast<size_t>(header.length));
  header.repeated = {u16(bytes, 4), u16(bytes, 6), u16(bytes, 10), u16(bytes, 12)};
  header.method = u16(bytes, 8);
  header.crc = u32(bytes, 14);
  header.stored_bytes = u32(bytes, 18);
  header.bytes = u32(bytes, 22);
  header.name = as_text(bytes.subspan(kLocalHeaderBytes, name_bytes));
  header.zip64 = zip64_field(as_text(bytes.subspan(kLocalHeaderBytes + name_bytes, extra_bytes)), path, offset);
  if ((header.repeated.flags & kFlagDescriptor) == 0) {
    resolve_zip64(header.zip64, {&header.bytes, &header.stored_bytes}, path, offset);
  }
  return header;
}

}  // namespace ckpt::format::zip
