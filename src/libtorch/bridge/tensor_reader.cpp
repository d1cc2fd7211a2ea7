#include "libtorch/bridge/tensor_reader.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

#include "ckpt/error.h"
#include "core/base/parallel.h"
#include "core/weights/convert.h"
#include "core/weights/gather.h"
#include "libtorch/bridge/tensors.h"

namespace ckpt::bridge {
namespace {

constexpr uint64_t kPieceBytes = 4 << 20;      // one read into live memory
constexpr uint64_t kConvertedBytes = 1 << 20;  // one read that is converted, small enough for the cache
constexpr uint64_t kBufferBytes = 16 << 20;    // the way to anything else, for each thread

enum class Way {
  kDirect,     // the bytes in the file are those in memory
  kConverted,  // row-major on both sides
  kByRows,     // row-major in the file
  kWhole,      // gaps or swapped axes in the file
};

struct Target {
  const format::StoredTensor* stored;
  at::Tensor live;
  Way way;
};

struct Piece {
  const Target* target;
  uint64_t begin = 0;  // elements
  uint64_t elements = 0;
};

Way way_of(const format::StoredTensor& stored, const at::Tensor& live) {
  if (!stored.contiguous()) return Way::kWhole;
  if (!is_plain(live)) return Way::kByRows;
  // A file's bools may be any byte; in memory only 0 and 1 are defined.
  const bool same = stored.dtype == dtype_of(live.scalar_type()) && stored.dtype != DType::kBool &&
                    (!stored.big_endian || width(stored.dtype) == 1);
  return same ? Way::kDirect : Way::kConverted;
}

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

// `elements`: those of `live`, row-major.
void put(std::span<std::byte> elements, DType from, const at::Tensor& live) {
  const auto to = dtype_of(live.scalar_type());
  if (from != to && to && is_floating(from) && is_floating(*to)) {
    if (is_plain(live)) return weights::convert_elements(elements, from, bytes_of(live), *to);
    const at::Tensor converted = at::empty(live.sizes(), at::TensorOptions(live.scalar_type()));
    weights::convert_elements(elements, from, bytes_of(converted), *to);
    live.copy_(converted);
    return;
  }
  const auto type = scalar_type_of(from);
  if (!type) throw Error(ErrorCode::kUnsupported, "", "this LibTorch has no " + std::string(name(from)));
  live.copy_(at::from_blob(elements.data(), live.sizes(), at::TensorOptions(*type)));
}

std::vector<std::byte> read_elements(const io::File& file, const format::StoredTensor& stored, uint64_t offset,
                                     uint64_t bytes) {
  std::vector<std::byte> elements = file.read_at(offset, bytes);
  weights::finish_elements(stored, std::endian::native, elements);
  return elements;
}

std::vector<std::byte> read_all(const io::File& file, const format::StoredTensor& stored) {
  std::vector<std::byte> elements(stored.bytes);
  weights::gather(file, stored, elements);
  weights::finish_elements(stored, std::endian::native, elements);
  return elements;
}

// By as many rows at a time as the buffer holds.
void read_rows(const io::File& file, const format::StoredTensor& stored, uint64_t offset, const at::Tensor& live) {
  const uint64_t bytes = static_cast<uint64_t>(live.numel()) * width(stored.dtype);
  if (bytes > kBufferBytes && live.dim() > 0) {
    const auto rows = static_cast<uint64_t>(live.size(0));
    const uint64_t row_bytes = bytes / rows;
    const uint64_t step = std::max<uint64_t>(1, kBufferBytes / row_bytes);
    for (uint64_t row = 0; row < rows; row += step) {
      const auto first = static_cast<int64_t>(row);
      const auto count = static_cast<int64_t>(std::min(step, rows - row));
      read_rows(file, stored, offset + row * row_bytes,
                count == 1 ? live.select(0, first) : live.narrow(0, first, count));
    }
    return;
  }
  std::vector<std::byte> elements = read_elements(file, stored, offset, bytes);
  put(elements, stored.dtype, live);
}

void read_piece(const io::File& file, const Piece& piece) {
  const at::NoGradGuard no_grad;  // a setting of each thread
  const format::StoredTensor& stored = *piece.target->stored;
  const at::Tensor& live = piece.target->live;
  const uint64_t bytes = width(stored.dtype);
  switch (piece.target->way) {
    case Way::kDirect:
      return file.read_at(stored.file_offset + piece.begin * bytes,
                          bytes_of(live).subspan(piece.begin * bytes, piece.elements * bytes));
    case Way::kConverted: {
      std::vector<std::byte> elements =
          read_elements(file, stored, stored.file_offset + piece.begin * bytes, piece.elements * bytes);
      return put(elements, stored.dtype,
                 live.view({-1}).narrow(0, static_cast<int64_t>(piece.begin), static_cast<int64_t>(piece.elements)));
    }
    case Way::kByRows:
      return read_rows(file, stored, stored.file_offset, live);
    case Way::kWhole: {
      std::vector<std::byte> elements = read_all(file, stored);
      return put(elements, stored.dtype, live);
    }
  }
}

}  // namespace

void read_tensors(const io::File& file, std::span<const TensorRead> reads, unsigned threads) {
  const at::NoGradGuard no_grad;
  std::vector<Target> targets;
  targets.reserve(reads.size());
  for (const TensorRead& read : reads) {
    if (read.live.nbytes() == 0) continue;
    targets.push_back({&read.stored, read.live.detach(), way_of(read.stored, read.live)});
    // detach() shares the version counter: autograd must notice that saved values have changed.
    read.live.unsafeGetTensorImpl()->bump_version();
  }
  std::sort(targets.begin(), targets.end(),
            [](const Target& a, const Target& b) { return a.stored->file_offset < b.stored->file_offset; });
  std::vector<Piece> pieces;
  for (const Target& target : targets) {
    const auto elements = static_cast<uint64_t>(target.live.numel());
    uint64_t step = elements;
    if (target.way == Way::kDirect) step = kPieceBytes / width(target.stored->dtype);
    if (target.way == Way::kConverted) step = kConvertedBytes / width(target.stored->dtype);
    for (uint64_t begin = 0; begin < elements; begin += step) {
      pieces.push_back({&target, begin, std::min(step, elements - begin)});
    }
  }
  parallel_for(pieces.size(), threads, [&](size_t i) { read_piece(file, pieces[i]); });
}

bool same_values(const format::StoredTensor& a, const io::File& file_a, const format::StoredTensor& b,
                 const io::File& file_b) {
  if (a.dtype != b.dtype || a.shape != b.shape) return false;
  if (&file_a == &file_b && a.file_offset == b.file_offset && a.strides == b.strides) return true;
  return read_all(file_a, a) == read_all(file_b, b);
}

}  // namespace ckpt::bridge
