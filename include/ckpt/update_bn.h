// Re-estimates the running statistics of normalisation layers by a pass over data: those of averaged weights are not
// the average of those that the weights had.
//
//   ema.copy_to(*other);
//   ckpt::update_bn(*other, *loader, [&](auto& batch) { other->forward(batch.data); });
//
// Layers: whatever has buffers `running_mean` and `running_var` and normalises by LibTorch's batch_norm or
// instance_norm in training mode: BatchNorm1d to 3d, InstanceNorm1d to 3d with track_running_stats, their subclasses,
// and modules of your own. What goes into them is observed while the batches run, so it counts for a layer how often it
// is used, and not what its momentum is; means and variances are taken in float64 and rounded once.
//
// Thread rule: as training: nobody else uses the module meanwhile, and its layers run on the calling thread.
#pragma once

#include <cstddef>
#include <functional>

namespace torch::nn {
class Module;
}

namespace ckpt {

struct UpdateBnOptions {
  /// false: as torch.optim.swa_utils.update_bn (momentum = None), the mean over batches of each batch's mean and
  /// unbiased variance, whatever the sizes of the batches.
  /// true: mean and unbiased variance of all samples of all batches together: the variance between the means of batches
  /// counts, and a small last batch no more than its share. InstanceNorm: the mean over samples of each sample's own.
  bool pooled = false;
};

/// Calls pass(), which runs the module over all batches, and returns how many layers were re-estimated; without a layer
/// that tracks statistics it returns 0 and calls nothing. The pass runs in training mode and without gradients (Dropout
/// drops, as in torch); `num_batches_tracked` counts from 0. Layers that no batch reaches keep their statistics.
///
/// Statistics are as they were after an exception: one from the pass itself; kInvalid where no batch reached any of the
/// layers or where statistics would be NaN or infinite (all in details()); kUnsupported for layers whose statistics
/// changed in another way than said above (all in details()). Each module has its training mode back in any case.
size_t update_bn_during(torch::nn::Module& module, const std::function<void()>& pass,
                        const UpdateBnOptions& options = {});

/// As above, where the pass calls forward(batch) for each of `batches`: a DataLoader, a vector.
template <class Batches, class Forward>
size_t update_bn(torch::nn::Module& module, Batches&& batches, Forward&& forward, const UpdateBnOptions& options = {}) {
  const auto pass = [&] {
    for (auto&& batch : batches) forward(batch);
  };
  return update_bn_during(module, pass, options);
}

}  // namespace ckpt
