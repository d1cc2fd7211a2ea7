// What goes into batch_norm and instance_norm while a model runs. C++ modules have no hooks, but LibTorch tells its
// profiler of each operator with its inputs, and so us.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>

#include <exception>
#include <functional>
#include <memory>
#include <utility>

namespace ckpt::training {

/// Mean and variance by channel, gathered in float64.
class NormStatistics {
 public:
  /// pooled: of all samples of all calls together; else the mean over calls.
  explicit NormStatistics(bool pooled) : pooled_(pooled) {}

  /// [N, C, ...]: one sample of each channel for each of the other places.
  void add_batch(const at::Tensor& input);
  /// [N, C, ...]: N instances, each with a mean and an unbiased variance of its own, of which the mean is taken.
  void add_instances(const at::Tensor& input);

  bool empty() const { return weight_ == 0; }
  /// Mean and unbiased variance, in float64.
  std::pair<at::Tensor, at::Tensor> result() const;

 private:
  void add(const at::Tensor& mean, const at::Tensor& var, double weight);
  const bool pooled_;
  bool is_moments_ = false;  // mean and sum of squared differences; else sums of means and of variances
  double weight_ = 0;
  at::Tensor mean_, var_;
};

/// From its making to its end, on this thread, those calls in training mode go to what `find` gives for the memory of
/// their running mean (nullptr: nothing).
class NormObserver {
 public:
  using Find = std::function<NormStatistics*(const void* running_mean)>;

  explicit NormObserver(Find find);
  ~NormObserver();
  NormObserver(const NormObserver&) = delete;
  NormObserver& operator=(const NormObserver&) = delete;

  /// Throws the first error met while observing: LibTorch would swallow it where it occurs.
  void finish() const;

 private:
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& call);
  static void end(const at::RecordFunction& call, at::ObserverContext*);
  void observe(const at::RecordFunction& call);

  static thread_local NormObserver* active_;
  const Find find_;
  NormObserver* const outer_;
  int depth_ = 0;  // of calls in each other: an operator may be made of others
  std::exception_ptr error_;
  const at::RecordFunctionGuard enabled_{true};
  at::CallbackHandle handle_;
};

}  // namespace ckpt::training
