#include "libtorch/training/norm_observer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string_view>
#include <tuple>
#include <vector>

namespace ckpt::training {
namespace {

constexpr int64_t kPieceElements = 1 << 20;  // converted to float64 at a time

constexpr std::string_view kInstanceNorm = "aten::instance_norm";
/// The first arguments of each: input, weight, bias, running_mean, running_var, training.
constexpr std::string_view kNorms[] = {
    "aten::batch_norm",       "aten::native_batch_norm", "aten::_native_batch_norm_legit",
    "aten::cudnn_batch_norm", "aten::miopen_batch_norm", kInstanceNorm};

bool is_norm(const at::RecordFunction& call) {
  return std::find(std::begin(kNorms), std::end(kNorms), std::string_view(call.name())) != std::end(kNorms);
}

struct Moments {
  double count = 0;
  at::Tensor mean, squares;  // by channel; squares: of differences from the mean

  /// Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
  void add(double more, const at::Tensor& other_mean, const at::Tensor& other_squares) {
    if (count == 0) {
      std::tie(count, mean, squares) = std::tuple(more, other_mean, other_squares);
      return;
    }
    const at::Tensor apart = other_mean - mean;
    const double all = count + more;
    mean = mean + apart * (more / all);
    squares = squares + other_squares + apart * apart * (count * more / all);
    count = all;
  }
};

/// All dimensions from `first` on, but for that of the channels.
std::vector<int64_t> dims_from(int64_t first, const at::Tensor& input) {
  std::vector<int64_t> dims;
  for (int64_t i = first; i < input.dim(); ++i) {
    if (i != 1) dims.push_back(i);
  }
  return dims;
}

/// Calls visit with pieces of `input`, as float64, each of some samples.
template <class Visit>
void for_each_piece(const at::Tensor& input, Visit visit) {
  const int64_t samples = input.size(0);
  const int64_t step = std::max<int64_t>(1, kPieceElements / std::max<int64_t>(1, input.numel() / samples));
  for (int64_t i = 0; i < samples; i += step) {
    visit(input.narrow(0, i, std::min(step, samples - i)).to(at::kDouble));
  }
}

}  // namespace

void NormStatistics::add_batch(const at::Tensor& input) {
  if (input.numel() == 0) return;
  Moments moments;
  for_each_piece(input, [&](const at::Tensor& piece) {
    const auto [var, mean] = at::var_mean(piece, dims_from(0, piece), /*unbiased=*/false);
    const auto count = static_cast<double>(piece.numel() / piece.size(1));
    moments.add(count, mean, var * count);
  });
  if (!pooled_) return add(moments.mean, moments.squares / (moments.count - 1), 1);
  is_moments_ = true;
  Moments all{weight_, mean_, var_};
  all.add(moments.count, moments.mean, moments.squares);
  std::tie(weight_, mean_, var_) = std::tuple(all.count, all.mean, all.squares);
}

void NormStatistics::add_instances(const at::Tensor& input) {
  if (input.numel() == 0) return;
  at::Tensor means, vars;
  for_each_piece(input, [&](const at::Tensor& piece) {
    const auto [var, mean] = at::var_mean(piece, dims_from(2, piece), /*unbiased=*/true);
    means = means.defined() ? means + mean.sum(0) : mean.sum(0);
    vars = vars.defined() ? vars + var.sum(0) : var.sum(0);
  });
  const auto instances = static_cast<double>(input.size(0));
  add(means / instances, vars / instances, pooled_ ? instances : 1);
}

void NormStatistics::add(const at::Tensor& mean, const at::Tensor& var, double weight) {
  mean_ = empty() ? mean * weight : mean_ + mean * weight;
  var_ = empty() ? var * weight : var_ + var * weight;
  weight_ += weight;
}

std::pair<at::Tensor, at::Tensor> NormStatistics::result() const {
  if (is_moments_) return {mean_, var_ / (weight_ - 1)};
  return {mean_ / weight_, var_ / weight_};
}

thread_local NormObserver* NormObserver::active_ = nullptr;

NormObserver::NormObserver(Find find) : find_(std::move(find)), outer_(active_) {
  handle_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(&begin, &end).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  active_ = this;
}

NormObserver::~NormObserver() {
  active_ = outer_;
  at::removeCallback(handle_);
}

void NormObserver::finish() const {
  if (error_) std::rethrow_exception(error_);
}

std::unique_ptr<at::ObserverContext> NormObserver::begin(const at::RecordFunction& call) {
  if (!active_ || !is_norm(call)) return nullptr;
  if (active_->depth_++ == 0 && !active_->error_) {
    try {
      active_->observe(call);
    } catch (...) {
      active_->error_ = std::current_exception();
    }
  }
  return nullptr;
}

void NormObserver::end(const at::RecordFunction& call, at::ObserverContext*) {
  if (active_ && is_norm(call)) --active_->depth_;
}

void NormObserver::observe(const at::RecordFunction& call) {
  const auto inputs = call.inputs();
  if (inputs.size() < 6 || !inputs[0].isTensor() || !inputs[3].isTensor() || !inputs[5].isBool()) return;
  const at::Tensor& mean = inputs[3].toTensor();
  if (!inputs[5].toBool() || !mean.defined() || mean.numel() == 0) return;
  NormStatistics* const statistics = find_(mean.data_ptr());
  if (!statistics) return;
  const at::DisableRecordFunctionGuard unobserved;
  const at::Tensor input = inputs[0].toTensor().detach();
  if (call.name() == kInstanceNorm) {
    statistics->add_instances(input);
  } else {
    statistics->add_batch(input);
  }
}

}  // namespace ckpt::training
