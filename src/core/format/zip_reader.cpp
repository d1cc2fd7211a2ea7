#include "core/format/zip_reader.h"

#include <algorithm>
#include <numeric>

#include "core/base/checked.h"
#include "core/base/checksum.h"
#include "core/base/name_order.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/format/zip_inflate.h"
#include "core/format/zip_wire.h"

namespace ckpt::format {
namespace {

constexpr uint16_t kStored = 0;
constexpr uint16_t kDeflated = 8;
// Two bits about how it was deflated, descriptor, UTF-8 names. Anything else (encryption, patches) is beyond us.
constexpr uint16_t kKnownFlags = 0x0002 | 0x0004 | zip::kFlagDescriptor | zip::kFlagUtf8;
// Below this, no file can hold an entry: its two headers and two copies of a name like "a/b".
constexpr uint64_t kLeastBytesOfEntry = zip::kLocalHeaderBytes + zip::kCentralHeaderBytes + 2;
// What is read at once of local headers: those of small records stand close together; of large ones, each is alone.
constexpr size_t kLocalChunk = 4096;
constexpr size_t kLoneHeaderChunk = 512;
// Records whose local headers one thread reads at a time: most of that time is the system's.
constexpr size_t kRecordsOfRun = 1024;
constexpr size_t kDirectoryChunk = 65536;

[[noreturn]] void fail(const io::File& file, uint64_t offset, const std::string& message) {
  throw Error(ErrorCode::kCorrupt, file.path(), message, {.offset = offset});
}

/// Why a name is refused, or nullptr.
const char* wrong_with_name(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.front() == '/') return "is absolute";
  if (name.find('\0') != std::string_view::npos) return "holds NUL";
  if (!is_utf8(name)) return "is not UTF-8";
  if (name.find('/') == std::string_view::npos) return "is not in a folder";
  while (true) {
    const size_t slash = name.find('/');
    const std::string_view part = name.substr(0, slash);
    if (part == "..") return "holds \"..\"";
    if (part.empty() || part == ".") return "holds an empty part or \".\"";
    if (slash == std::string_view::npos) return nullptr;
    name.remove_prefix(slash + 1);
    if (name.empty()) return nullptr;  // a folder's own entry
  }
}

/// The directory while it is read: the records and what else their local headers must repeat.
struct Directory {
  std::vector<ZipRecord> records;
  std::vector<zip::Repeated> repeated;
  std::string top;
};

ZipRecord record_of(const io::File& file, const zip::CentralHeader& header, uint64_t offset, std::string& top) {
  if (const char* wrong = wrong_with_name(header.name)) {
    fail(file, offset, "zip: the name " + quote(header.name) + " " + wrong);
  }
  const auto where = [&] { return "zip record " + quote(header.name) + ": "; };
  if ((header.repeated.flags & ~kKnownFlags) != 0 || (header.method != kStored && header.method != kDeflated)) {
    throw Error(ErrorCode::kUnsupported, file.path(),
                where() + "flags " + std::to_string(header.repeated.flags) + " and method " +
                    std::to_string(header.method) + ": encrypted, or neither stored nor deflated",
                {.offset = offset});
  }
  const size_t slash = header.name.find('/');
  if (top.empty()) top = header.name.substr(0, slash);
  if (header.name.substr(0, slash) != top) {
    fail(file, offset, where() + "is not in the folder " + quote(top) + " as the others are");
  }
  if (header.method == kStored && header.stored_bytes != header.bytes) {
    fail(file, offset,
         where() + "stored as it is, but " + std::to_string(header.bytes) + " bytes are said to take " +
             std::to_string(header.stored_bytes));
  }
  if (header.name.back() == '/' && header.bytes != 0) fail(file, offset, where() + "a folder that holds bytes itself");
  return {.name = std::string(header.name.substr(slash + 1)),
          .header_offset = header.header_offset,
          .stored_bytes = header.stored_bytes,
          .bytes = header.bytes,
          .crc = header.crc,
          .deflated = header.method == kDeflated};
}

Directory read_directory(const io::File& file, const zip::End& end, uint64_t file_bytes) {
  if (end.entries == 0) fail(file, end.directory_offset, "zip: it holds no records");
  if (end.entries > file_bytes / kLeastBytesOfEntry || end.entries > UINT32_MAX) {
    fail(file, end.directory_offset,
         "zip: " + std::to_string(end.entries) + " records cannot be in a file of " + std::to_string(file_bytes) +
             " bytes");
  }
  Directory directory;
  directory.records.reserve(static_cast<size_t>(end.entries));
  directory.repeated.reserve(static_cast<size_t>(end.entries));
  const uint64_t directory_end = end.directory_offset + end.directory_bytes;
  Window window(file, directory_end, kDirectoryChunk);
  uint64_t offset = end.directory_offset;
  for (uint64_t i = 0; i < end.entries; ++i) {
    const zip::CentralHeader header = zip::central_header(window, offset, file.path());
    directory.records.push_back(record_of(file, header, offset, directory.top));
    directory.repeated.push_back(header.repeated);
    offset += header.length;
  }
  if (offset != directory_end) {
    fail(file, offset,
         "zip: " + std::to_string(directory_end - offset) + " bytes of the directory belong to no record");
  }
  return directory;
}

/// `window` ends where the directory begins.
void check_local_header(const io::File& file, Window& window, ZipRecord& record, const zip::Repeated& repeated,
                        const std::string& top) {
  const zip::LocalHeader local = zip::local_header(window, record.header_offset, file.path());
  const auto differs = [&](const char* what) {
    fail(file, record.header_offset,
         "zip record " + quote(record.name) + ": its header and the directory disagree on its " + what);
  };
  if (local.name.size() != top.size() + 1 + record.name.size() || !local.name.starts_with(top) ||
      local.name[top.size()] != '/' || !local.name.ends_with(record.name)) {
    differs("name");
  }
  if (local.repeated != repeated) differs("version, flags or time");
  if (local.method != (record.deflated ? kDeflated : kStored)) differs("method");
  if (repeated.flags & zip::kFlagDescriptor) {
    const auto may_be = [](uint64_t value, uint64_t expected) {
      return value == 0 || value == expected || value == zip::kMax32;
    };
    if (!may_be(local.crc, record.crc)) differs("CRC");
    if (!may_be(local.stored_bytes, record.stored_bytes) || !may_be(local.bytes, record.bytes)) differs("sizes");
    // miniz writes here what it knows by then: any of size, stored size (0) and offset of the header.
    const ByteView zip64 = as_bytes(local.zip64);
    if (zip64.size() % 8 != 0) differs("ZIP64 field");
    for (size_t at = 0; at < zip64.size(); at += 8) {
      const auto value = load_le<uint64_t>(zip64.data() + at);
      if (value != 0 && value != record.bytes && value != record.stored_bytes && value != record.header_offset) {
        differs("ZIP64 field");
      }
    }
  } else {
    if (local.crc != record.crc) differs("CRC");
    if (local.stored_bytes != record.stored_bytes || local.bytes != record.bytes) differs("sizes");
  }
  record.data_offset = record.header_offset + local.length;
}

/// What lies between a record's data and the next header: nothing, or a data descriptor (4.3.9), which may lack its
/// signature and may have sizes of 32 or 64 bits.
void check_gap(const io::File& file, Window& window, const ZipRecord& record, bool descriptor, uint64_t next) {
  const auto where = [&] { return "zip record " + quote(record.name) + ": "; };
  const std::optional<uint64_t> end = checked_add(record.data_offset, record.stored_bytes);
  if (!end || *end > next) {
    fail(file, record.header_offset,
         where() + "its " + std::to_string(record.stored_bytes) + " bytes reach past " + std::to_string(next) +
             ", where the next record or the directory begins");
  }
  const uint64_t gap = next - *end;
  if (!descriptor) {
    if (gap != 0) fail(file, *end, "zip: " + std::to_string(gap) + " bytes belong to no record");
    return;
  }
  if (gap != 12 && gap != 16 && gap != 20 && gap != 24) {
    fail(file, *end, where() + "expected a data descriptor of 12 to 24 bytes after it, found " + std::to_string(gap));
  }
  const bool is_signed = gap == 16 || gap == 24, wide = gap >= 20;
  Cursor cursor(window.view(*end, static_cast<size_t>(gap)), file.path(), *end);
  if ((is_signed && cursor.le<uint32_t>() != zip::kDescriptorSignature) || cursor.le<uint32_t>() != record.crc ||
      (wide ? cursor.le<uint64_t>() : cursor.le<uint32_t>()) != record.stored_bytes ||
      (wide ? cursor.le<uint64_t>() : cursor.le<uint32_t>()) != record.bytes) {
    fail(file, *end, where() + "its data descriptor and the directory disagree");
  }
}

/// Orders `records` as `order` says, without a second copy of them; `order` is used up.
void permute(std::vector<ZipRecord>& records, std::vector<uint32_t>& order) {
  for (uint32_t i = 0; i < order.size(); ++i) {
    uint32_t to = i;
    while (order[to] != i) {
      const uint32_t from = order[to];
      std::swap(records[to], records[from]);
      order[to] = to;
      to = from;
    }
    order[to] = to;
  }
}

}  // namespace

ZipReader::ZipReader(const io::File& file) : file_(file) {
  const uint64_t file_bytes = file.stat().bytes;
  const zip::End end = zip::find_end(file, file_bytes);
  directory_offset_ = end.directory_offset;
  Directory directory = read_directory(file, end, file_bytes);
  top_ = std::move(directory.top);
  records_ = std::move(directory.records);

  // In the order of the file, records must follow each other from its first byte to the directory: then none overlap.
  std::vector<uint32_t> order(records_.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto before = [&](uint32_t a, uint32_t b) { return records_[a].header_offset < records_[b].header_offset; };
  if (!std::is_sorted(order.begin(), order.end(), before)) std::sort(order.begin(), order.end(), before);
  if (records_[order.front()].header_offset != 0) {
    fail(file, 0,
         "zip: " + std::to_string(records_[order.front()].header_offset) + " bytes lie before the first record");
  }
  const uint64_t distance = directory_offset_ / records_.size();
  const size_t runs = (order.size() + kRecordsOfRun - 1) / kRecordsOfRun;
  parallel_for(runs, default_threads(), [&](size_t run) {
    Window window(file, directory_offset_, distance < kLocalChunk / 2 ? kLocalChunk : kLoneHeaderChunk);
    for (size_t i = run * kRecordsOfRun; i < std::min(order.size(), (run + 1) * kRecordsOfRun); ++i) {
      ZipRecord& record = records_[order[i]];
      const zip::Repeated& repeated = directory.repeated[order[i]];
      check_local_header(file, window, record, repeated, top_);
      const uint64_t next = i + 1 < order.size() ? records_[order[i + 1]].header_offset : directory_offset_;
      check_gap(file, window, record, (repeated.flags & zip::kFlagDescriptor) != 0, next);
    }
  });
  permute(records_, order);
  order = {};  // before the next list is made
  directory = {};
  std::erase_if(records_, [](const ZipRecord& record) { return record.name.empty() || record.name.back() == '/'; });
  index_names();

  const auto has_bytes = [](const ZipRecord& record) { return record.bytes != 0; };
  crcs_absent_ = std::any_of(records_.begin(), records_.end(), has_bytes) &&
                 std::all_of(records_.begin(), records_.end(), [](const ZipRecord& record) { return record.crc == 0; });
}

void ZipReader::index_names() {
  by_name_ = order_by_name(
      records_.size(), [&](size_t i) -> std::string_view { return records_[i].name; }, LetterCase::kFolded);
  for (size_t i = 1; i < by_name_.size(); ++i) {
    const ZipRecord& a = records_[by_name_[i - 1]];
    const ZipRecord& b = records_[by_name_[i]];
    if (!less_folded(a.name, b.name)) {
      fail(file_, std::max(a.header_offset, b.header_offset),
           "zip: two records " + quote(a.name) + " and " + quote(b.name) +
               (a.name == b.name ? "" : ", which differ by case alone"));
    }
  }
}

const ZipRecord* ZipReader::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name, [&](uint32_t i, std::string_view wanted) {
    return less_folded(records_[i].name, wanted);
  });
  return at != by_name_.end() && records_[*at].name == name ? &records_[*at] : nullptr;
}

uint64_t ZipReader::memory() const {
  uint64_t bytes = 0;
  for (const ZipRecord& record : records_) bytes += sizeof record + 16 + record.name.size();
  return bytes;
}

std::vector<std::byte> ZipReader::read(const ZipRecord& record, uint64_t limit) const {
  const std::string where = "zip record " + quote(record.name) + ": ";
  if (record.bytes > limit) {
    fail(file_, record.data_offset,
         where + "expected at most " + std::to_string(limit) + " bytes, found " + std::to_string(record.bytes));
  }
  std::vector<std::byte> bytes;
  if (record.deflated) {
    bytes.reserve(static_cast<size_t>(record.bytes));  // growing, it would be there twice
    inflate_record(file_, record, [&](ByteView piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
  } else {
    bytes = file_.read_at(record.data_offset, record.bytes);
  }
  if (const uint32_t crc = crc32(bytes); !crcs_absent_ && crc != record.crc) {
    fail(file_, record.data_offset,
         where + "expected CRC " + to_hex(record.crc).substr(8) + ", found " + to_hex(crc).substr(8));
  }
  return bytes;
}

}  // namespace ckpt::format
