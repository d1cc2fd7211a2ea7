#include "libtorch/program.h"

#include <torch/nn/module.h>
#include <torch/optim.h>

#include <cstring>
#include <memory>
#include <utility>

#include "ckpt/training_state.h"
#include "libtorch/training/files.h"
#include "libtorch/training/import.h"
#include "libtorch/training/snapshot.h"

namespace ckpt::program {
namespace {

class TorchLibrary : public Library {
 public:
  run::Committed save(const SaveInput& input, std::vector<std::string>& warnings) const override {
    const auto model = training::import_module(*input.model, "model", warnings);
    std::shared_ptr<torch::nn::Module> ema;
    if (input.ema) ema = training::import_module(*input.ema, "ema", warnings);
    training::ImportedOptimizer imported;
    if (input.optimizer) imported = training::import_optimizer(*input.optimizer, input.optimizer_type, *model);

    TrainingState state;
    state.iteration = input.head.iteration;
    state.epoch = input.head.epoch;
    state.metadata = input.head.metadata;
    for (const auto& [name, value] : input.head.metrics) state.set_metric(name, value);
    state.add_module("model", *model);
    if (ema) state.add_module("ema", *ema);
    if (imported.optimizer) state.add_optimizer("optimizer", *imported.optimizer);

    // These files hold no state of the generators, and this process's own would overwrite that of who loads them.
    training::CaptureOptions options{.generators = false, .unknown_types = {}};
    if (!imported.type_known) options.unknown_types.insert("optimizer");
    const training::Snapshot snapshot = training::capture(state, nullptr, options);
    run::RunWriter writer(input.run, input.wait);
    return writer.commit(snapshot.head(), training::files_of(snapshot, input.weights_copy), input.keep,
                         input.keep.monitor);
  }
};

}  // namespace
}  // namespace ckpt::program

const ckpt::program::Library* ckpt_program_library(const char* version) {
  static const ckpt::program::TorchLibrary kLibrary;
  return std::strcmp(version, CKPT_VERSION) == 0 ? &kLibrary : nullptr;
}
