// Built against the installed tree: saves, changes, loads, and exits with 0 when the old values are back.
#include <ckpt/checkpoint_manager.h>
#include <ckpt/epoch_sampler.h>
#include <ckpt/error.h>
#include <ckpt/training_state.h>
#include <torch/torch.h>

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  torch::nn::Linear model(3, 2);
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  ckpt::TrainingState state;
  state.add_module("model", *model).add_optimizer("optimizer", optimizer);
  state.iteration = 7;
  ckpt::CheckpointManager checkpoints(argv[1]);
  checkpoints.save(state);

  const torch::Tensor before = model->weight.detach().clone();
  {
    torch::NoGradGuard no_grad;
    model->weight.zero_();
  }
  const auto loaded = checkpoints.load_latest(state);
  const bool back = loaded && loaded->iteration == 7 && torch::equal(before, model->weight);
  std::printf("%s\n", back ? "installed ckpt works" : "the loaded weights differ");
  return back ? 0 : 1;
}
