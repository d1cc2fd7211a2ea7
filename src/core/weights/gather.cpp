#include "core/weights/gather.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace ckpt::weights {
namespace {

constexpr uint64_t kBufferBytes = 1 << 20;
// Reading what is not needed costs less than many calls, up to a point: a call takes about as long as 8 KiB.
constexpr uint64_t kMostPerUseful = 8;
constexpr uint64_t kAlwaysAtOnce = 16384;

/// One dimension; steps in bytes.
struct Dim {
  uint64_t size;
  uint64_t from;  // in the storage
  uint64_t to;    // in the row-major result
};

/// What is to be copied: at each place of `dims`, `unit` bytes that lie together on both sides.
struct Copy {
  std::vector<Dim> dims;
  uint64_t unit;
};

Copy copy_of(const format::StoredTensor& tensor) {
  Copy copy{{}, width(tensor.dtype)};
  std::vector<Dim>& dims = copy.dims;  // innermost first, until it is sorted
  uint64_t to = copy.unit;
  for (size_t d = tensor.shape.size(); d-- > 0;) {
    const auto size = static_cast<uint64_t>(tensor.shape[d]);
    if (size == 1) continue;
    const uint64_t from = static_cast<uint64_t>(tensor.strides[d]) * width(tensor.dtype);
    if (dims.empty() && from == copy.unit) {
      copy.unit *= size;
    } else if (!dims.empty() && from == dims.back().from * dims.back().size) {
      dims.back().size *= size;  // to always fits: the result has no gaps
    } else {
      dims.push_back({size, from, to});
    }
    to *= size;
  }
  std::stable_sort(dims.begin(), dims.end(), [](const Dim& a, const Dim& b) { return a.from > b.from; });
  return copy;
}

template <size_t kUnit>
void copy_units(const Dim& dim, const std::byte* from, std::byte* to) {
  for (uint64_t i = 0; i < dim.size; ++i) std::memcpy(to + i * dim.to, from + i * dim.from, kUnit);
}

void copy_along(const Dim& dim, uint64_t unit, const std::byte* from, std::byte* to) {
  switch (unit) {
    case 1:
      return copy_units<1>(dim, from, to);
    case 2:
      return copy_units<2>(dim, from, to);
    case 4:
      return copy_units<4>(dim, from, to);
    case 8:
      return copy_units<8>(dim, from, to);
    default:
      for (uint64_t i = 0; i < dim.size; ++i) {
        std::memmove(to + i * dim.to, from + i * dim.from, static_cast<size_t>(unit));  // expand() meets itself
      }
  }
}

void copy_all(std::span<const Dim> dims, uint64_t unit, const std::byte* from, std::byte* to) {
  if (dims.size() == 1) return copy_along(dims[0], unit, from, to);
  for (uint64_t i = 0; i < dims[0].size; ++i) {
    copy_all(dims.subspan(1), unit, from + i * dims[0].from, to + i * dims[0].to);
  }
}

class Gatherer {
 public:
  Gatherer(const io::File& file, uint64_t unit) : file_(file), unit_(unit) {}

  /// `dims`: largest step in the storage first.
  void run(const std::vector<Dim>& dims, uint64_t at, std::byte* to) {
    if (dims.empty()) return file_.read_at(at, std::span(to, static_cast<size_t>(unit_)));
    uint64_t extent = unit_, useful = unit_;
    for (const Dim& dim : dims) {
      extent += (dim.size - 1) * dim.from;
      if (dim.from != 0) useful *= dim.size;  // no more than the tensor's bytes, which fit
    }
    if (extent <= kBufferBytes && extent / kMostPerUseful <= useful + kAlwaysAtOnce / kMostPerUseful) {
      return through_buffer(dims, at, extent, to);
    }
    if (dims[0].from == 0) return expand(dims, at, to);
    split(dims, at, to);
  }

 private:
  void through_buffer(std::vector<Dim> dims, uint64_t at, uint64_t extent, std::byte* to) {
    if (buffer_.size() < extent) buffer_.resize(static_cast<size_t>(extent));
    file_.read_at(at, std::span(buffer_.data(), static_cast<size_t>(extent)));
    // Written in order, read from the cache in any.
    std::sort(dims.begin(), dims.end(), [](const Dim& a, const Dim& b) { return a.to > b.to; });
    copy_all(dims, unit_, buffer_.data(), to);
  }

  /// All places are the same one of the storage, too large for the buffer.
  void expand(const std::vector<Dim>& dims, uint64_t at, std::byte* to) {
    file_.read_at(at, std::span(to, static_cast<size_t>(unit_)));
    copy_all(dims, unit_, to, to);
  }

  void split(const std::vector<Dim>& dims, uint64_t at, std::byte* to) {
    const uint64_t half = dims[0].size / 2;
    std::vector<Dim> part = dims;
    const auto run_part = [&](uint64_t first, uint64_t size) {
      part[0].size = size;
      const std::vector<Dim> rest(part.begin() + (size == 1 ? 1 : 0), part.end());
      run(rest, at + first * dims[0].from, to + first * dims[0].to);
    };
    run_part(0, half);
    run_part(half, dims[0].size - half);
  }

  const io::File& file_;
  uint64_t unit_;
  std::vector<std::byte> buffer_;
};

}  // namespace

void gather(const io::File& file, const format::StoredTensor& tensor, std::span<std::byte> into) {
  if (tensor.elements == 0) return;
  const Copy copy = copy_of(tensor);
  Gatherer(file, copy.unit).run(copy.dims, tensor.file_offset, into.data());
}

void finish_elements(const format::StoredTensor& tensor, std::endian order, std::span<std::byte> elements) {
  if (tensor.dtype == DType::kBool) {
    for (std::byte& one : elements) one = std::byte{one != std::byte{0}};
  }
  if (tensor.big_endian != (order == std::endian::big)) swap_byte_order(elements, tensor.dtype);
}

}  // namespace ckpt::weights
