#include "core/weights/diff.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "core/base/parallel.h"
#include "core/weights/compare.h"
#include "core/weights/tiles.h"

namespace ckpt::weights {
namespace {

constexpr uint64_t kTileBytes = 2 << 20;

/// Two tensors of one dtype and shape. Large ones are compared by tiles, on several threads.
struct Pair {
  const Tensor* a;
  const Tensor* b;
  std::vector<format::StoredTensor> tiles_a = {}, tiles_b = {};  // empty: all at once
};

/// A tile of a pair, and what was seen in it.
struct Job {
  size_t pair;
  size_t tile;
  Comparison seen = {};
};

std::string described(const Tensor& tensor) { return describe(tensor.stored.dtype, tensor.stored.shape); }

std::vector<format::StoredTensor> tiles_of(const Tensor& tensor) {
  std::vector<format::StoredTensor> tiles;
  if (tensor.stored.bytes <= kTileBytes || tensor.stored.layout != format::TensorLayout::kStrided) return tiles;
  for_each_tile(tensor.stored, kTileBytes, [&](const format::StoredTensor& tile) { tiles.push_back(tile); });
  return tiles;
}

class Differ {
 public:
  Differ(const Weights& a, const Weights& b, const DiffOptions& options) : a_(a), b_(b), options_(options) {}

  Diff run() {
    Diff result;
    result.removed = only_in(a_, b_);
    result.added = only_in(b_, a_);
    for (const Tensor& tensor : a_.tensors()) {
      if (const Tensor* other = b_.find(tensor.name)) add_pair(tensor, *other, result);
    }
    refuse_unreadable();
    compare_pairs(result);
    const auto place = [&](const Difference& difference) { return a_.find(difference.name); };
    std::sort(result.changed.begin(), result.changed.end(),
              [&](const Difference& x, const Difference& y) { return place(x) < place(y); });
    return result;
  }

 private:
  /// Names that `other` has not, unless it has another name of the same tensor.
  static std::vector<std::string> only_in(const Weights& one, const Weights& other) {
    const auto& tensors = one.tensors();
    const auto first_of = [&](size_t i) {
      return tensors[i].tied_to < 0 ? i : static_cast<size_t>(tensors[i].tied_to);
    };
    std::vector<bool> shared(tensors.size(), false);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (other.find(tensors[i].name) != nullptr) shared[first_of(i)] = true;
    }
    std::vector<std::string> names;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!shared[first_of(i)]) names.push_back(tensors[i].name);
    }
    return names;
  }

  void add_pair(const Tensor& a, const Tensor& b, Diff& result) {
    using Kind = Difference::Kind;
    if (a.stored.dtype == b.stored.dtype && a.stored.shape == b.stored.shape) {
      pairs_.push_back({&a, &b, tiles_of(a), tiles_of(b)});
      return;
    }
    const Kind kind = a.stored.dtype != b.stored.dtype ? Kind::kDType : Kind::kShape;
    result.changed.push_back({.name = a.name, .kind = kind, .a = described(a), .b = described(b)});
  }

  void refuse_unreadable() const {
    constexpr auto kStrided = format::TensorLayout::kStrided;
    std::vector<std::string> details;
    for (const Pair& pair : pairs_) {
      if (pair.a->stored.layout != kStrided || pair.b->stored.layout != kStrided) details.push_back(pair.a->name);
    }
    if (details.empty()) return;
    throw Error(ErrorCode::kUnsupported, a_.path(),
                "sparse and quantized tensors cannot be compared: " + std::to_string(details.size()) + " are there",
                {.offset = std::nullopt, .tensor = {}, .details = std::move(details)});
  }

  /// First whether any byte differs, which is quick; then by how much, where one does.
  void compare_pairs(Diff& result) {
    std::vector<std::atomic<bool>> differs(pairs_.size());
    const std::vector<Job> all = jobs([](size_t) { return true; });
    parallel_for(all.size(), options_.threads, [&](size_t i) {
      const Job& job = all[i];
      if (!differs[job.pair].load() && !same_bytes(job)) differs[job.pair].store(true);
    });
    std::vector<Job> some = jobs([&](size_t pair) { return differs[pair].load(); });
    parallel_for(some.size(), options_.threads, [&](size_t i) { some[i].seen = seen_in(some[i]); });
    for (size_t i = 0; i < some.size();) {
      const size_t pair = some[i].pair;
      Comparison whole;
      for (; i < some.size() && some[i].pair == pair; ++i) whole.add(some[i].seen);
      if (whole.differs) result.changed.push_back(difference(pairs_[pair], whole));
    }
  }

  template <class Wanted>
  std::vector<Job> jobs(Wanted wanted) const {
    std::vector<Job> made;
    for (size_t pair = 0; pair < pairs_.size(); ++pair) {
      if (!wanted(pair) || pairs_[pair].a->stored.elements == 0) continue;
      const size_t tiles = std::max<size_t>(pairs_[pair].tiles_a.size(), 1);
      for (size_t tile = 0; tile < tiles; ++tile) made.push_back({pair, tile});
    }
    return made;
  }

  /// The bytes of both sides of a tile.
  struct Bytes {
    std::unique_ptr<std::byte[]> memory;
    ByteView a, b;
  };
  Bytes read(const Job& job) const {
    const Pair& pair = pairs_[job.pair];
    const bool whole = pair.tiles_a.empty();
    const format::StoredTensor& part_a = whole ? pair.a->stored : pair.tiles_a[job.tile];
    const format::StoredTensor& part_b = whole ? pair.b->stored : pair.tiles_b[job.tile];
    const auto size = static_cast<size_t>(part_a.bytes);
    Bytes bytes{std::unique_ptr<std::byte[]>(new std::byte[2 * size]), {}, {}};
    const std::span to_a(bytes.memory.get(), size), to_b(bytes.memory.get() + size, size);
    a_.read(*pair.a, part_a, to_a);
    b_.read(*pair.b, part_b, to_b);
    bytes.a = to_a;
    bytes.b = to_b;
    return bytes;
  }
  bool same_bytes(const Job& job) const {
    const Bytes bytes = read(job);
    return std::memcmp(bytes.a.data(), bytes.b.data(), bytes.a.size()) == 0;
  }
  Comparison seen_in(const Job& job) const {
    const Bytes bytes = read(job);
    return compare(bytes.a, bytes.b, pairs_[job.pair].a->stored.dtype, options_);
  }

  static Difference difference(const Pair& pair, const Comparison& seen) {
    Difference made{.name = pair.a->name, .a = described(*pair.a), .b = described(*pair.b)};
    made.max_abs = seen.max_abs;
    made.max_rel = seen.max_rel;
    made.cosine = seen.cosine();
    if (seen.has_ulp) made.max_ulp = seen.max_ulp;
    return made;
  }

  const Weights& a_;
  const Weights& b_;
  const DiffOptions& options_;
  std::vector<Pair> pairs_;
};

}  // namespace

Diff diff(const Weights& a, const Weights& b, const DiffOptions& options) { return Differ(a, b, options).run(); }

}  // namespace ckpt::weights
