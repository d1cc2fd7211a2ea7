// The average of a model's weights over training: an exponential moving average (EMA, Polyak averaging) or their equal
// mean (SWA: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization").
//
//   ckpt::Averager ema(*model, {.decay = 0.999});
//   for (auto& batch : *loader) { train_step(batch); ema.update(); }
//   {
//     auto averaged = ema.swap_in();     // the model has the averaged weights until the end of this block
//     evaluate(*model);
//   }
//   ema.copy_to(*other);                 // or ckpt::ModelState::of(ema.state_dict()).save(...)
//
// Averages are kept in float32 at least, on the device of the weights: in bfloat16 an EMA with a decay of 0.999 would
// never move. Tied weights have one average. An update reads the weights and writes the averages once. A NaN in the
// weights spreads into the averages, so skip the update where you skip the step.
//
// BatchNorm's statistics belong to the weights that were trained, not to their average: see update_bn.h.
//
// The module is looked at anew in each call: it may be moved to another device or given another dtype, and the averages
// follow. Names or shapes that changed since the Averager was made are Error(kMismatch), with all of them in details();
// make a new one for such a model.
//
// Averages of files of weights need no training: Averager::average({"a.pt", "b.pt"}, "mean.safetensors").
//
// Thread rule: one thread at a time, the training loop's; no training step meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ckpt/average.h"
#include "ckpt/model_state.h"

namespace ckpt {

/// The decay for the next update, from 0 to 1, by the number of updates done: at least 1, as the first one copies.
using DecaySchedule = std::function<double(uint64_t updates)>;

/// min(decay, (1 + updates) / (10 + updates)): early averages forget the first weights soon.
DecaySchedule warmed_up(double decay);

struct AveragerOptions {
  /// An EMA: average = decay * average + (1 - decay) * weights. 0 <= decay < 1. Not set, and no schedule: SWA.
  std::optional<double> decay = std::nullopt;
  /// An EMA whose decay changes, instead of `decay`.
  DecaySchedule schedule = {};
  /// The first `start` calls of update() do nothing, and of those that follow each `every`-th takes the weights in.
  uint64_t start = 0;
  uint64_t every = 1;
  /// Average buffers of floating or complex numbers as the parameters are. false: the newest are copied at each update,
  /// as integers and bools always are.
  bool average_buffers = false;
};

class Averager {
 public:
  /// Starts with the weights as they are; the first update replaces them by what they are then. Refers to the module,
  /// which must outlive it. Throws kInvalid for options that make no sense and for two tensors of one name,
  /// kUnsupported for sparse and quantized tensors.
  explicit Averager(torch::nn::Module& module, AveragerOptions options = {});
  ~Averager();
  Averager(const Averager&) = delete;
  Averager& operator=(const Averager&) = delete;

  /// Averages files of weights, checkpoints or runs into the file `out`, exactly: average.h says how. All problems of one
  /// kind are in details(): kNotFound, kCorrupt, kMismatch (names, shapes, dtypes), kUnsupported (sparse, quantized),
  /// kInvalid (NaN and infinities; weights), kIo. An existing `out` is as it was then. Any thread.
  static AverageReport average(const std::vector<std::string>& inputs, const std::string& out,
                               const AverageOptions& options = {});

  /// Call it after each training step. Returns whether the weights were taken in. Throws kInvalid while the averages
  /// are swapped in and for a schedule's decay that is not from 0 to 1, kMismatch as said above; nothing changed then.
  bool update();

  uint64_t calls() const;    ///< of update()
  uint64_t updates() const;  ///< that took the weights in
  const AveragerOptions& options() const;

  /// The averages, under the names of ckpt::state_dict(module): not copied, tied ones are the same tensor. They are
  /// valid until the module changes its device or dtype.
  StateDict state_dict() const;

  /// Writes the averages into a module with the same names and shapes, rounded to its dtypes. Throws kMismatch with all
  /// differences in details(); nothing was written then.
  void copy_to(torch::nn::Module& module) const;

  /// While it lives, the module has the averages, rounded to its dtypes, in the same tensors: optimizers keep theirs.
  /// Then parameters and buffers are again, bit for bit, what they were. Not between forward() and backward().
  class Swapped {
   public:
    Swapped(Swapped&&) noexcept;
    Swapped& operator=(Swapped&&) = delete;
    /// As restore(); an error is logged.
    ~Swapped();
    /// Gives the module its own values back, now. Once done it does nothing.
    void restore();

   private:
    friend class Averager;
    struct Saved;
    explicit Swapped(std::shared_ptr<Saved> saved);
    std::shared_ptr<Saved> saved_;
  };

  /// Needs memory for another copy of the weights. Throws kInvalid where they are swapped in already, kMismatch as said
  /// above, std::bad_alloc; the module is as it was then.
  [[nodiscard]] Swapped swap_in();

  /// The inside, for the library's own use.
  class Shadows;
  Shadows& shadows() const { return *shadows_; }

 private:
  const std::shared_ptr<Shadows> shadows_;
};

}  // namespace ckpt
