#include "core/format/zip_inflate.h"

#include <zlib.h>

#include <algorithm>
#include <memory>

#include "core/base/quote.h"

namespace ckpt::format {
namespace {

constexpr size_t kPieceBytes = 65536;

struct EndInflate {
  void operator()(z_stream* stream) const { inflateEnd(stream); }
};

}  // namespace

void inflate_record(const io::File& file, const ZipRecord& record, const std::function<void(ByteView)>& sink) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kCorrupt, file.path(), "zip record " + quote(record.name) + ": " + what,
                {.offset = record.data_offset});
  };
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();  // raw deflate: no zlib header
  const std::unique_ptr<z_stream, EndInflate> ended(&stream);
  std::vector<std::byte> in(static_cast<size_t>(std::min<uint64_t>(record.stored_bytes, kPieceBytes)));
  std::vector<std::byte> out(kPieceBytes);
  uint64_t taken = 0, given = 0;
  int status = Z_OK;
  while (status != Z_STREAM_END) {
    if (stream.avail_in == 0 && taken < record.stored_bytes) {
      const auto bytes = static_cast<size_t>(std::min<uint64_t>(record.stored_bytes - taken, in.size()));
      file.read_at(record.data_offset + taken, std::span(in.data(), bytes));
      stream.next_in = reinterpret_cast<Bytef*>(in.data());
      stream.avail_in = static_cast<uInt>(bytes);
      taken += bytes;
    }
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    status = inflate(&stream, Z_NO_FLUSH);
    const size_t made = out.size() - stream.avail_out;
    if (status != Z_OK && status != Z_STREAM_END) fail("its deflated data is damaged or cut off");
    if (made > record.bytes - given)
      fail("inflates to more than the " + std::to_string(record.bytes) + " bytes stated");
    given += made;
    if (made != 0) sink(ByteView(out).first(made));
  }
  if (given != record.bytes || stream.avail_in != 0 || taken != record.stored_bytes) {
    fail("expected " + std::to_string(record.bytes) + " inflated bytes, found " + std::to_string(given));
  }
}

}  // namespace ckpt::format
