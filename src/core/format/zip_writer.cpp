#include "core/format/zip_writer.h"

#include "core/base/checksum.h"
#include "core/base/quote.h"

namespace ckpt::format {

ZipWriter::ZipWriter(io::BlockWriter& writer, std::string top_folder) : writer_(writer), top_(std::move(top_folder)) {}

void ZipWriter::append(std::string_view bytes) {
  writer_.append(as_bytes(bytes));
  position_ += bytes.size();
}

void ZipWriter::begin(std::string_view name, uint64_t bytes) {
  zip::WrittenRecord record{.name = top_ + "/" + std::string(name), .header_offset = position_, .bytes = bytes};
  if (record.name.size() > zip::kMax16) {
    throw Error(ErrorCode::kInvalid, "",
                "zip record " + quote(name) + ": a name of " + std::to_string(record.name.size()) +
                    " bytes, at most 65535 are allowed");
  }
  append(zip::local_header_of(record));
  records_.push_back(std::move(record));
}

void ZipWriter::end(uint32_t crc) {
  position_ += records_.back().bytes;
  records_.back().crc = crc;
  append(zip::descriptor_of(records_.back()));
}

void ZipWriter::add(std::string_view name, const BytesToWrite& data) {
  begin(name, data.bytes);
  uint32_t crc = 0;
  format::append(writer_, data, [&](ByteView piece) { crc = crc32(piece, crc); });
  end(crc);
}

void ZipWriter::add_text(std::string_view name, std::string_view text) {
  begin(name, text.size());
  writer_.append(as_bytes(text));
  end(crc32(as_bytes(text)));
}

std::string ZipWriter::content_id() const {
  std::string names, sums;
  for (const zip::WrittenRecord& record : records_) {
    names += record.name;
    names += '\0';
    append_le(sums, record.bytes, 8);
    append_le(sums, record.crc, 4);
  }
  std::string id;
  for (const uint64_t half : {xxh3_64(as_bytes(names)), xxh3_64(as_bytes(sums))}) {
    const std::string digits = std::to_string(half);  // 20 at most
    id += std::string(20 - digits.size(), '0') + digits;
  }
  return id;
}

void ZipWriter::finish() {
  const uint64_t offset = position_;
  for (const zip::WrittenRecord& record : records_) append(zip::central_header_of(record));
  append(zip::end_of({.entries = records_.size(), .directory_offset = offset, .directory_bytes = position_ - offset}));
}

}  // namespace ckpt::format
