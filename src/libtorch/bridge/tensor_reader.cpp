#include "libtorch/bridge/tensor_reader.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

#include "core/base/parallel.h"
#include "libtorch/bridge/tensors.h"

namespace ckpt::bridge {
namespace {

constexpr uint64_t kPieceBytes = 4 << 20;    // one read into live memory
constexpr uint64_t kBufferBytes = 16 << 20;  // the way to anything else, for each thread

struct Piece {
  const TensorRead* read;
  uint64_t begin = 0;  // bytes of the live tensor; the whole tensor where it is not read directly
  uint64_t bytes = 0;
};

// A file's bools may be any byte; in memory only 0 and 1 are defined.
bool is_direct(const TensorRead& read) {
  return is_plain(read.live) && read.stored.contiguous() && read.stored.dtype != DType::kBool;
}

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

void make_bools(const at::Tensor& tensor) {
  for (std::byte& byte : bytes_of(tensor)) byte = std::byte{byte != std::byte{0}};
}

// `live` gets the row-major bytes at `offset`, by as many rows at a time as the buffer holds.
void read_rows(const io::File& file, uint64_t offset, at::Tensor live) {
  const uint64_t bytes = live.nbytes();
  if (bytes > kBufferBytes && live.dim() > 0) {
    const auto rows = static_cast<uint64_t>(live.size(0));
    const uint64_t row_bytes = bytes / rows;
    const uint64_t step = std::max<uint64_t>(1, kBufferBytes / row_bytes);
    for (uint64_t row = 0; row < rows; row += step) {
      const auto first = static_cast<int64_t>(row);
      const auto count = static_cast<int64_t>(std::min(step, rows - row));
      read_rows(file, offset + row * row_bytes, count == 1 ? live.select(0, first) : live.narrow(0, first, count));
    }
    return;
  }
  const at::Tensor buffer =
      at::empty(live.sizes(), live.options().device(at::kCPU).memory_format(at::MemoryFormat::Contiguous));
  file.read_at(offset, bytes_of(buffer));
  if (live.scalar_type() == at::kBool) make_bools(buffer);
  live.copy_(buffer);
}

// A stored view with gaps or swapped axes: everything from its first to its last element, and LibTorch picks.
void read_strided(const io::File& file, const format::StoredTensor& stored, const at::Tensor& live) {
  uint64_t last = 0;
  for (size_t i = 0; i < stored.shape.size(); ++i) {
    last += static_cast<uint64_t>(stored.shape[i] - 1) * static_cast<uint64_t>(stored.strides[i]);
  }
  const auto extent = static_cast<int64_t>(last + 1);
  const at::Tensor buffer = at::empty({extent}, live.options().device(at::kCPU));
  file.read_at(stored.file_offset, bytes_of(buffer));
  if (live.scalar_type() == at::kBool) make_bools(buffer);
  live.copy_(buffer.as_strided(stored.shape, stored.strides));
}

void read_piece(const io::File& file, const Piece& piece) {
  const at::NoGradGuard no_grad;  // a setting of each thread
  const format::StoredTensor& stored = piece.read->stored;
  if (is_direct(*piece.read)) {
    file.read_at(stored.file_offset + piece.begin, bytes_of(piece.read->live).subspan(piece.begin, piece.bytes));
  } else if (stored.contiguous()) {
    read_rows(file, stored.file_offset, piece.read->live);
  } else {
    read_strided(file, stored, piece.read->live);
  }
}

}  // namespace

void read_tensors(const io::File& file, std::span<const TensorRead> reads, unsigned threads) {
  const at::NoGradGuard no_grad;
  std::vector<TensorRead> targets;
  targets.reserve(reads.size());
  for (const TensorRead& read : reads) {
    if (read.live.nbytes() == 0) continue;
    targets.push_back({read.stored, read.live.detach()});
    // detach() shares the version counter: autograd must notice that saved values have changed.
    read.live.unsafeGetTensorImpl()->bump_version();
  }
  std::sort(targets.begin(), targets.end(),
            [](const TensorRead& a, const TensorRead& b) { return a.stored.file_offset < b.stored.file_offset; });
  std::vector<Piece> pieces;
  for (const TensorRead& read : targets) {
    const uint64_t bytes = read.live.nbytes();
    const uint64_t step = is_direct(read) ? kPieceBytes : bytes;
    for (uint64_t begin = 0; begin < bytes; begin += step) {
      pieces.push_back({&read, begin, std::min(step, bytes - begin)});
    }
  }
  parallel_for(pieces.size(), threads, [&](size_t i) { read_piece(file, pieces[i]); });
}

}  // namespace ckpt::bridge
