#include "ckpt/epoch_sampler.h"

#include <torch/serialize.h>

#include <algorithm>

#include "ckpt/error.h"
#include "core/base/checked.h"
#include "core/base/epoch_order.h"

namespace ckpt {

struct EpochOrder::Shared {
  size_t size;
  uint64_t seed;
  bool shuffle;
  EpochPosition position;

  uint64_t consumed() const {
    const auto counted = checked_mul(position.batches, position.batch_size);
    const auto all = counted ? checked_add(position.first, *counted) : std::nullopt;
    return all ? std::min<uint64_t>(*all, size) : size;
  }
};

void EpochOrder::reset(torch::optional<size_t> new_size) {
  if (new_size && *new_size != shared_->size) {
    throw Error(
        ErrorCode::kInvalid, "",
        "sampler: expected " + std::to_string(shared_->size) + " examples, was reset to " + std::to_string(*new_size));
  }
  if (shared_->shuffle && !order_) {
    order_ = std::make_shared<const std::vector<size_t>>(epoch_order(shared_->size, shared_->seed, epoch_));
  }
  next_ = shared_->position.epoch == epoch_ ? static_cast<size_t>(shared_->consumed()) : shared_->size;
  started_ = true;
}

torch::optional<std::vector<size_t>> EpochOrder::next(size_t batch_size) {
  EpochPosition& position = shared_->position;
  if (position.epoch == epoch_ && position.batch_size != batch_size) {
    // What was consumed in batches of another size stays consumed. Batches that were counted before any loader asked
    // were of this size.
    if (position.batch_size != 0) {
      position.first = shared_->consumed();
      position.batches = 0;
    }
    position.batch_size = batch_size;
    started_ = false;
  }
  if (!started_) reset();
  if (next_ >= shared_->size || batch_size == 0) return torch::optional<std::vector<size_t>>();
  const size_t count = std::min(batch_size, shared_->size - next_);
  std::vector<size_t> batch(count);
  for (size_t i = 0; i < count; ++i) batch[i] = order_ ? (*order_)[next_ + i] : next_ + i;
  next_ += count;
  return batch;
}

void EpochOrder::save(torch::serialize::OutputArchive& archive) const {
  archive.write("index", torch::tensor(static_cast<int64_t>(next_), torch::kInt64), /*is_buffer=*/true);
}

void EpochOrder::load(torch::serialize::InputArchive& archive) {
  torch::Tensor index = torch::empty({1}, torch::kInt64);
  archive.read("index", index, /*is_buffer=*/true);
  reset();
  next_ = static_cast<size_t>(std::clamp<int64_t>(index.item<int64_t>(), 0, static_cast<int64_t>(shared_->size)));
}

EpochSampler::EpochSampler(size_t size, uint64_t seed, bool shuffle)
    : shared_(new EpochOrder::Shared{size, seed, shuffle, {}}) {}

EpochOrder EpochSampler::from(uint64_t epoch) {
  if (epoch != shared_->position.epoch)
    shared_->position = {.epoch = epoch, .batch_size = shared_->position.batch_size};
  return EpochOrder(shared_, epoch);
}

void EpochSampler::consumed(uint64_t batches) { shared_->position.batches += batches; }

size_t EpochSampler::size() const { return shared_->size; }
uint64_t EpochSampler::seed() const { return shared_->seed; }
bool EpochSampler::shuffle() const { return shared_->shuffle; }
EpochPosition EpochSampler::position() const { return shared_->position; }
uint64_t EpochSampler::examples_consumed() const { return shared_->consumed(); }

void EpochSampler::restore(uint64_t seed, const EpochPosition& position) {
  // A new block: loaders that are under way keep theirs.
  shared_ = std::shared_ptr<EpochOrder::Shared>(new EpochOrder::Shared{size(), seed, shuffle(), position});
}

}  // namespace ckpt
