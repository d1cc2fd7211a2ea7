// The order of examples and the position in it, so that a run resumes in the middle of an epoch.
//
//   EpochSampler sampler(dataset.size().value(), seed);
//   auto loader = torch::data::make_data_loader(dataset, sampler.from(epoch), batch_size);
//   for (auto& batch : *loader) { train(batch); sampler.consumed(1); }
//
// The order of an epoch is a function of size, seed and epoch alone (core/base/epoch_order.h says which), the same with
// every LibTorch version, with any number of workers, and whatever else draws random numbers. LibTorch's DataLoader
// hides its sampler, resets it at begin() and fetches ahead, so what counts is what the loop says it has consumed.
// With several workers, keep DataLoaderOptions::enforce_ordering (the default): batches then come in this order.
//
// Thread rule: the sampler and its loaders belong to one thread (LibTorch asks samplers on the loop's thread).
#pragma once

#include <torch/data/samplers/base.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace ckpt {

/// Where a run stands in its data.
struct EpochPosition {
  uint64_t epoch = 0;
  uint64_t first = 0;       ///< examples of the epoch consumed before `batches` began to count
  uint64_t batches = 0;     ///< batches consumed since
  uint64_t batch_size = 0;  ///< examples in each; 0: no loader has asked yet
};

/// The sampler that a DataLoader takes: one epoch, from the position on. Copies share the position.
class EpochOrder : public torch::data::samplers::Sampler<> {
 public:
  /// Goes to the position: the batches consumed by now are not given again. Error(kInvalid) for a new size.
  void reset(torch::optional<size_t> new_size = {}) override;
  torch::optional<std::vector<size_t>> next(size_t batch_size) override;
  /// As LibTorch's own samplers do; a TrainingState does not need them.
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 private:
  friend class EpochSampler;
  struct Shared;
  EpochOrder(std::shared_ptr<Shared> shared, uint64_t epoch) : shared_(std::move(shared)), epoch_(epoch) {}

  std::shared_ptr<Shared> shared_;
  uint64_t epoch_;
  std::shared_ptr<const std::vector<size_t>> order_;  // null: the examples in their own order
  size_t next_ = 0;
  bool started_ = false;
};

class EpochSampler {
 public:
  /// `size` examples, 0 to size - 1. shuffle = false: in this order, in every epoch.
  explicit EpochSampler(size_t size, uint64_t seed = 0, bool shuffle = true);
  EpochSampler(const EpochSampler&) = delete;
  EpochSampler& operator=(const EpochSampler&) = delete;

  /// The rest of `epoch`, for one make_data_loader(). Another epoch than that of the position begins at its start and
  /// moves the position there; the same epoch goes on after what was consumed. A loader may change the batch size: the
  /// examples consumed stay consumed.
  EpochOrder from(uint64_t epoch);

  /// The loop has used `batches` batches (the last, shorter one counts as one).
  void consumed(uint64_t batches = 1);

  size_t size() const;
  uint64_t seed() const;
  bool shuffle() const;
  EpochPosition position() const;
  /// Examples of the current epoch that were consumed.
  uint64_t examples_consumed() const;

  /// What restoring a TrainingState calls: takes over seed and position; loaders made before go on in the old order.
  void restore(uint64_t seed, const EpochPosition& position);

 private:
  std::shared_ptr<EpochOrder::Shared> shared_;
};

}  // namespace ckpt
