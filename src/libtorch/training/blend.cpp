#include "libtorch/training/blend.h"

#include <ATen/ATen.h>
#include <torch/version.h>

#include <algorithm>

#include "core/base/parallel.h"

namespace ckpt::training {
namespace {

using Pair = std::pair<at::Tensor, at::Tensor>;  // average, value

constexpr int64_t kBlock = 1024;           // elements; a known count is what GCC vectorises at -O2
constexpr int64_t kPiece = 256 * kBlock;   // of one thread
constexpr size_t kPiecesWorthThreads = 8;  // to start some takes about as long as a piece

template <class Average, class Value>
void blend_block(Average* __restrict average, const Value* __restrict value, Average weight) {
  for (int64_t i = 0; i < kBlock; ++i) average[i] += weight * (static_cast<Average>(value[i]) - average[i]);
}

template <class Average, class Value>
void blend_memory(const Pair& pair, int64_t begin, int64_t end, double weight) {
  auto* const average = pair.first.data_ptr<Average>();
  const auto* const value = pair.second.data_ptr<Value>();
  const auto w = static_cast<Average>(weight);
  for (; begin + kBlock <= end; begin += kBlock) blend_block(average + begin, value + begin, w);
  for (; begin < end; ++begin) average[begin] += w * (static_cast<Average>(value[begin]) - average[begin]);
}

using BlendMemory = void (*)(const Pair& pair, int64_t begin, int64_t end, double weight);

// For the usual dtypes and layouts on the CPU: one pass over memory on all cores, where LibTorch takes two or three for
// half precision, and is slow at lerp_ before 2.0. nullptr: not for this pair.
BlendMemory blend_of(const Pair& pair) {
  const auto& [average, value] = pair;
  if (!average.is_cpu() || !value.is_cpu() || !average.is_non_overlapping_and_dense()) return nullptr;
  if (average.strides() != value.strides() || value.is_neg()) return nullptr;
  const at::ScalarType to = average.scalar_type(), from = value.scalar_type();
  if (to == at::kDouble && from == at::kDouble) return blend_memory<double, double>;
  if (to != at::kFloat) return nullptr;
  if (from == at::kFloat) return blend_memory<float, float>;
  if (from == at::kBFloat16) return blend_memory<float, at::BFloat16>;
  if (from == at::kHalf) return blend_memory<float, at::Half>;
  return nullptr;
}

struct Piece {
  BlendMemory blend;
  const Pair* pair;
  int64_t begin;
  int64_t end;
};

}  // namespace

void blend(const std::vector<Pair>& averages_and_values, double weight) {
  std::vector<Piece> pieces;
  std::vector<at::Tensor> averages, values;  // all others in one call, which is few kernels on a GPU
  for (const Pair& pair : averages_and_values) {
    const auto& [average, value] = pair;
    if (const BlendMemory blend = blend_of(pair)) {
      for (int64_t begin = 0; begin < average.numel(); begin += kPiece) {
        pieces.push_back({blend, &pair, begin, std::min(begin + kPiece, average.numel())});
      }
    } else {
      averages.push_back(average);
      values.push_back(value.to(average.scalar_type()));
    }
  }
  parallel_for(pieces.size(), pieces.size() < kPiecesWorthThreads ? 1 : default_threads(), [&](size_t i) {
    const Piece& piece = pieces[i];
    piece.blend(*piece.pair, piece.begin, piece.end, weight);
  });
  if (averages.empty()) return;
#if TORCH_VERSION_MAJOR >= 2
  at::_foreach_lerp_(averages, values, at::Scalar(weight));
#else
  for (size_t i = 0; i < averages.size(); ++i) averages[i].lerp_(values[i], weight);
#endif
}

}  // namespace ckpt::training
