// An example of a training loop with ckpt: a small convolutional network learns the UCI digits, saves as it goes, and
// goes on from where it was when it is started again, whatever stopped it.
//
//   train_digits --run DIR [--epochs N] [--seed S] [--threads N] [--data FILE]
//
// Ends with what averaging is good for: the last weights, their EMA and the mean of the three best checkpoints beside
// each other, and a line `final <hash>`: a hash of weights, EMA, optimizer state and metrics, the same for a run that
// was killed and resumed and for one that was not.
#include <ckpt/averager.h>
#include <ckpt/checkpoint_manager.h>
#include <ckpt/epoch_sampler.h>
#include <ckpt/error.h>
#include <ckpt/model_state.h>
#include <ckpt/training_state.h>
#include <ckpt/update_bn.h>
#include <torch/torch.h>
#include <zlib.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

namespace {

struct Options {
  std::string run;
  int64_t epochs = 20;
  uint64_t seed = 1;
  int threads = 1;  // the fastest for so small a network
  std::string data = CKPT_DIGITS_CSV;
};

/// 64 pixels and the digit per line; every fifth image is kept for validation.
struct Digits : torch::data::datasets::Dataset<Digits> {
  torch::Tensor images, labels;  // [N, 1, 8, 8] in [0, 1]; [N]

  Digits(const std::string& path, bool validation) {
    gzFile file = gzopen(path.c_str(), "rb");
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    std::vector<float> pixels;
    std::vector<int64_t> digits;
    char line[1024];
    for (int64_t row = 0; gzgets(file, line, sizeof line); ++row) {
      if ((row % 5 == 4) != validation) continue;
      const char* next = line;
      for (int i = 0; i < 64; ++i, ++next) pixels.push_back(std::strtof(next, const_cast<char**>(&next)) / 16);
      digits.push_back(std::strtol(next, nullptr, 10));
    }
    gzclose(file);
    images = torch::tensor(pixels).reshape({-1, 1, 8, 8});
    labels = torch::tensor(digits);
  }

  torch::data::Example<> get(size_t index) override {
    const auto i = static_cast<int64_t>(index);
    return {images[i], labels[i]};
  }
  c10::optional<size_t> size() const override { return static_cast<size_t>(labels.size(0)); }
};

struct NetImpl : torch::nn::Module {
  torch::nn::Conv2d conv1{torch::nn::Conv2dOptions(1, 16, 3).padding(1)};
  torch::nn::BatchNorm2d norm1{16};
  torch::nn::Conv2d conv2{torch::nn::Conv2dOptions(16, 32, 3).padding(1)};
  torch::nn::BatchNorm2d norm2{32};
  torch::nn::Dropout dropout{0.3};
  torch::nn::Linear hidden{32 * 4 * 4, 64};
  torch::nn::Linear output{64, 10};

  NetImpl() {
    register_module("conv1", conv1);
    register_module("norm1", norm1);
    register_module("conv2", conv2);
    register_module("norm2", norm2);
    register_module("dropout", dropout);
    register_module("hidden", hidden);
    register_module("output", output);
  }

  torch::Tensor forward(torch::Tensor x) {
    x = torch::relu(norm1(conv1(x)));
    x = torch::max_pool2d(torch::relu(norm2(conv2(x))), 2);
    x = torch::relu(hidden(dropout(x.flatten(1))));
    return output(x);
  }
};
TORCH_MODULE(Net);

double accuracy(Net& net, const Digits& data) {
  torch::NoGradGuard no_grad;
  net->eval();
  const auto right = net->forward(data.images).argmax(1).eq(data.labels).sum().item<int64_t>();
  net->train();
  return static_cast<double>(right) / static_cast<double>(data.labels.size(0));
}

/// FNV-1a over bytes.
class Hash {
 public:
  void add(const void* data, size_t bytes) {
    const auto* byte = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < bytes; ++i) value_ = (value_ ^ byte[i]) * 1099511628211u;
  }
  void add(const torch::Tensor& tensor) {
    const torch::Tensor plain = tensor.detach().cpu().contiguous();
    add(plain.data_ptr(), plain.nbytes());
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 14695981039346656037u;
};

uint64_t hash_of(Net& model, const ckpt::Averager& ema, torch::optim::AdamW& optimizer,
                 const std::map<std::string, double>& metrics) {
  Hash hash;
  for (const ckpt::StateDict& tensors : {ckpt::state_dict(*model), ema.state_dict()}) {
    for (const auto& [name, tensor] : tensors) hash.add(tensor);
  }
  auto& group = optimizer.param_groups()[0];
  const double lr = group.options().get_lr();
  hash.add(&lr, sizeof lr);
  for (const auto& parameter : group.params()) {
#if TORCH_VERSION_MAJOR >= 2
    const auto& state = *optimizer.state().at(parameter.unsafeGetTensorImpl());
#else
    const auto& state = *optimizer.state().at(c10::guts::to_string(parameter.unsafeGetTensorImpl()));
#endif
    const auto& adam = static_cast<const torch::optim::AdamWParamState&>(state);
    const int64_t step = adam.step();
    hash.add(&step, sizeof step);
    hash.add(adam.exp_avg());
    hash.add(adam.exp_avg_sq());
  }
  for (const auto& [name, value] : metrics) {
    hash.add(name.data(), name.size());
    hash.add(&value, sizeof value);
  }
  return hash.value();
}

/// Prints the accuracies of the last weights, their EMA, and the mean of the three best checkpoints of the run, with the
/// statistics of BatchNorm averaged and re-estimated.
void compare_averages(const std::string& run, Net& model, ckpt::Averager& ema, const Digits& training,
                      const Digits& validation) {
  const std::string file = run + "/best3.safetensors";
  const ckpt::AverageReport report =
      ckpt::Averager::average({run}, file, {.select = {.best = 3, .metric = "accuracy", .mode = ckpt::Mode::kMax}});
  Net mean;
  ckpt::ModelState::open(file).load_into(*mean);
  const auto print = [](const char* what, double value) { std::printf("  %-50s %.2f %%\n", what, 100 * value); };
  std::printf("validation accuracy\n");
  print("last weights", accuracy(model, validation));
  {
    const auto swapped = ema.swap_in();
    print("their EMA", accuracy(model, validation));
  }
  print(("mean of the " + std::to_string(report.inputs.size()) + " best checkpoints").c_str(),
        accuracy(mean, validation));
  auto loader = torch::data::make_data_loader<torch::data::samplers::SequentialSampler>(
      Digits(training).map(torch::data::transforms::Stack<>()), /*batch_size=*/32);
  ckpt::update_bn(*mean, *loader, [&](auto& batch) { mean->forward(batch.data); }, {.pooled = true});
  print("the same, BatchNorm's statistics re-estimated", accuracy(mean, validation));
}

int train(const Options& options) {
  torch::set_num_threads(options.threads);
  torch::manual_seed(options.seed);

  const Digits training(options.data, false), validation(options.data, true);
  Net model;
  ckpt::Averager ema(*model, {.decay = 0.99});
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(2e-3).weight_decay(1e-2));
  torch::optim::StepLR schedule(optimizer, /*step_size=*/5, /*gamma=*/0.5);
  ckpt::EpochSampler sampler(training.size().value(), options.seed);

  ckpt::TrainingState state;
  state.add_module("model", *model).add_averager("ema", ema);
  state.add_optimizer("optimizer", optimizer).add_scheduler("schedule", schedule).add_sampler("data", sampler);

  ckpt::CheckpointManager checkpoints(options.run, {
      .save_every = {.iterations = 20},
      .keep = {.last = 2, .best = 3, .metric = "accuracy", .mode = ckpt::Mode::kMax},
      .weights_copy = true,
      .stop_on_signals = true,
  });
  if (auto resumed = checkpoints.load_latest(state)) {
    for (const auto& skipped : resumed->skipped) {
      std::cout << "passed over " << skipped.path << ": " << skipped.reason << "\n";
    }
    std::cout << "resumed at iteration " << state.iteration << " (epoch " << state.epoch + 1 << ")" << std::endl;
  }

  while (static_cast<int64_t>(state.epoch) < options.epochs) {
    auto loader = torch::data::make_data_loader(Digits(training).map(torch::data::transforms::Stack<>()),
                                                sampler.from(state.epoch), /*batch_size=*/32);
    for (auto& batch : *loader) {
      optimizer.zero_grad();
      torch::nn::functional::cross_entropy(model->forward(batch.data), batch.target).backward();
      optimizer.step();
      ema.update();
      sampler.consumed(1);
      ++state.iteration;
      checkpoints.save_if_due(state);  // asynchronous: the loop waits for one copy
      if (ckpt::CheckpointManager::stop_requested()) {
        checkpoints.save(state);
        std::cout << "stopped and saved at iteration " << state.iteration << std::endl;
        return 0;
      }
    }
    schedule.step();
    ++state.epoch;
    state.set_metric("accuracy_raw", accuracy(model, validation));
    {
      const auto swapped = ema.swap_in();
      state.set_metric("accuracy", accuracy(model, validation));
    }
    checkpoints.save_async(state);
    std::printf("epoch %3d/%d  validation accuracy %.2f %% (EMA), %.2f %% (model)\n", static_cast<int>(state.epoch),
                static_cast<int>(options.epochs), 100 * state.metrics().at("accuracy"),
                100 * state.metrics().at("accuracy_raw"));
    std::fflush(stdout);
  }
  checkpoints.wait();
  compare_averages(options.run, model, ema, training, validation);
  std::printf("final %016llx\n",
              static_cast<unsigned long long>(hash_of(model, ema, optimizer, state.metrics())));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains a small network on the UCI digits; started again, it resumes.");
  app.add_option("--run", options.run, "run directory")->required();
  app.add_option("--epochs", options.epochs, "epochs in all")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "seed of weights, dropout and order")->capture_default_str();
  app.add_option("--threads", options.threads, "threads of LibTorch")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--data", options.data, "digits.csv.gz");
  CLI11_PARSE(app, argc, argv);
  try {
    return train(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_digits: %s\n", error.what());
    return 1;
  }
}
