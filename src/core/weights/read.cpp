// Bytes of tensors.
#include <algorithm>
#include <bit>
#include <memory>

#include "core/base/checksum.h"
#include "core/base/quote.h"
#include "core/format/range_crcs.h"
#include "core/weights/gather.h"
#include "core/weights/tiles.h"
#include "core/weights/weights.h"

namespace ckpt::weights {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;       // of stream()
constexpr uint64_t kTileBytes = 4 << 20;        // the same, where the elements have to be gathered
constexpr uint64_t kReadAheadBytes = 16 << 20;  // what the kernel is told of before it is needed

void require_elements(const Tensor& tensor, const io::File& file) {
  if (tensor.stored.layout == format::TensorLayout::kStrided) return;
  const char* what = tensor.stored.layout == format::TensorLayout::kSparse ? "sparse" : "quantized";
  throw Error(ErrorCode::kUnsupported, file.path(),
              "tensor " + quote(tensor.name) + ": is " + what + ", which has no plain elements",
              {.tensor = tensor.name});
}

/// The errors of a read with the tensor that they are about.
template <class Read>
void naming(const Tensor& tensor, Read read) {
  try {
    read();
  } catch (const Error& error) {
    if (!error.tensor().empty() || error.code() != ErrorCode::kCorrupt) throw;
    throw Error(ErrorCode::kCorrupt, error.path(), "tensor " + quote(tensor.name) + ": " + error.message(),
                {.offset = error.offset(), .tensor = tensor.name});
  }
}

std::span<std::byte> as_span(const std::unique_ptr<std::byte[]>& buffer, uint64_t bytes) {
  return {buffer.get(), static_cast<size_t>(bytes)};
}

}  // namespace

void Weights::read(const Tensor& tensor, const format::StoredTensor& stored, std::span<std::byte> into) const {
  const io::File& file = *contents_.files[tensor.file];
  require_elements(tensor, file);
  if (into.size() != stored.bytes) {
    throw Error(ErrorCode::kInvalid, file.path(),
                "tensor " + quote(tensor.name) + ": expected room for " + std::to_string(stored.bytes) +
                    " bytes, got " + std::to_string(into.size()),
                {.tensor = tensor.name});
  }
  naming(tensor, [&] { gather(file, stored, into); });
  finish_elements(stored, std::endian::native, into);
}

void Weights::stream(const Tensor& tensor, const format::ByteSink& sink) const {
  const format::StoredTensor& stored = tensor.stored;
  const io::File& file = *contents_.files[tensor.file];
  require_elements(tensor, file);
  if (!stored.contiguous()) {
    std::unique_ptr<std::byte[]> buffer(new std::byte[static_cast<size_t>(std::min(stored.bytes, kTileBytes))]);
    for_each_tile(stored, kTileBytes, [&](const format::StoredTensor& tile) {
      const std::span<std::byte> bytes = as_span(buffer, tile.bytes);
      naming(tensor, [&] { gather(file, tile, bytes); });
      finish_elements(tile, std::endian::little, bytes);
      sink(bytes);
    });
    return;
  }
  const format::ChecksummedRange* record = whole_record(tensor);
  std::unique_ptr<std::byte[]> buffer(new std::byte[static_cast<size_t>(std::min(stored.bytes, kPieceBytes))]);
  uint32_t crc = 0;
  for (uint64_t done = 0; done < stored.bytes;) {
    if (done % kReadAheadBytes == 0)
      file.will_need(stored.file_offset + done, std::min(kReadAheadBytes * 2, stored.bytes - done));
    const std::span<std::byte> piece = as_span(buffer, std::min(kPieceBytes, stored.bytes - done));
    naming(tensor, [&] { file.read_at(stored.file_offset + done, piece); });
    done += piece.size();
    if (record != nullptr) crc = crc32(piece, crc);
    if (done == stored.bytes) check_whole_record(tensor, crc);
    finish_elements(stored, std::endian::little, piece);
    sink(piece);
  }
}

void Weights::verify(std::span<const Tensor* const> tensors, unsigned threads) const {
  std::vector<std::pair<const format::ChecksummedRange*, const Tensor*>> wanted;
  for (const Tensor* tensor : tensors) {
    if (const format::ChecksummedRange* record = record_of(*tensor)) wanted.emplace_back(record, tensor);
  }
  const auto by_place = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::stable_sort(wanted.begin(), wanted.end(), by_place);
  wanted.erase(std::unique(wanted.begin(), wanted.end(), [](auto& a, auto& b) { return a.first == b.first; }),
               wanted.end());
  if (wanted.empty()) return;
  std::vector<format::ChecksummedRange> ranges;
  for (const auto& [record, tensor] : wanted) ranges.push_back(*record);
  const std::vector<uint8_t> wrong = format::find_wrong_ranges(*contents_.files[0], std::move(ranges), threads);
  const auto first = std::find(wrong.begin(), wrong.end(), 1);
  if (first != wrong.end()) throw wrong_checksum(*wanted[static_cast<size_t>(first - wrong.begin())].second);
}

bool Weights::checks_while_streaming(const Tensor& tensor) const {
  return record_of(tensor) == nullptr || whole_record(tensor) != nullptr;
}

const format::ChecksummedRange* Weights::whole_record(const Tensor& tensor) const {
  const format::ChecksummedRange* record = record_of(tensor);
  const format::StoredTensor& stored = tensor.stored;
  const bool whole =
      record != nullptr && stored.contiguous() && stored.file_offset == record->offset && stored.bytes == record->bytes;
  return whole ? record : nullptr;
}

void Weights::check_whole_record(const Tensor& tensor, uint32_t crc) const {
  const format::ChecksummedRange* record = whole_record(tensor);
  if (record != nullptr && crc != record->crc) throw wrong_checksum(tensor);
}

const format::ChecksummedRange* Weights::record_of(const Tensor& tensor) const {
  const auto& ranges = contents_.checksums;
  if (tensor.file != 0 || tensor.stored.layout == format::TensorLayout::kSparse) return nullptr;
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), tensor.stored.storage_offset,
      [](uint64_t offset, const format::ChecksummedRange& range) { return offset < range.offset + range.bytes; });
  return after == ranges.end() || after->offset > tensor.stored.storage_offset ? nullptr : &*after;
}

Error Weights::wrong_checksum(const Tensor& tensor) const {
  return Error(ErrorCode::kCorrupt, contents_.files[tensor.file]->path(),
               "record " + quote(tensor.stored.record) + ", tensor " + quote(tensor.name) + ": wrong CRC-32",
               {.offset = tensor.stored.storage_offset, .tensor = tensor.name});
}

}  // namespace ckpt::weights
