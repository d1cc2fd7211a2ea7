// How long it takes to average files of weights, against the floor of the machine (read all, write one) and against the
// usual loop over LibTorch's tensors (load, add in float64, divide, save): all in one run. Prints times, then ratios,
// and the most anonymous memory that an average took; fails nothing.
//
//   ckpt_average_bench [--files=5] [--mib=400] [--tensors=200] [--dir=/tmp] [--repeat=3] [--loop=1] [--cold=1]
#include <ckpt/averager.h>
#include <ckpt/model_state.h>
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "bench.h"

namespace {

using namespace ckpt::bench;

constexpr int kInOneModule = 10;  // tensors: LibTorch's archives are slow with many names in one level

struct Settings {
  int files = 5;
  int mib = 400;
  int tensors = 200;
  int repeat = 3;
  bool loop = true;
  bool cold = true;
  std::string dir = "/tmp";
};

struct Block : torch::nn::Module {
  Block(int64_t elements, torch::Dtype dtype) {
    for (int i = 0; i < kInOneModule; ++i) {
      register_parameter("weight" + std::to_string(i), torch::empty({elements}, dtype), false);
    }
  }
};

struct ModelImpl : torch::nn::Module {
  ModelImpl(const Settings& settings, torch::Dtype dtype) {
    const int64_t bytes = static_cast<int64_t>(settings.mib) << 20;
    const int64_t elements = bytes / settings.tensors / static_cast<int64_t>(torch::elementSize(dtype));
    for (int i = 0; i < settings.tensors / kInOneModule; ++i) {
      register_module("block" + std::to_string(i), std::make_shared<Block>(elements, dtype));
    }
  }
};
TORCH_MODULE(Model);

/// Reads all of `inputs` and writes `bytes` at the same time, with direct writes and fsync: no average can do with
/// less.
void read_all_write_one(const std::vector<std::string>& inputs, const std::string& out, size_t bytes) {
  std::vector<int> files;
  std::vector<std::pair<int, size_t>> pieces;
  for (const std::string& path : inputs) {
    files.push_back(::open(path.c_str(), O_RDONLY));
    check(files.back() >= 0, path);
    for (size_t at = 0; at < std::filesystem::file_size(path); at += kBlock) pieces.emplace_back(files.back(), at);
  }
  std::atomic<size_t> next{0};
  const auto read = [&] {
    const Buffer buffer = make_buffer(kBlock);
    for (size_t i = next++; i < pieces.size(); i = next++) {
      check(::pread(pieces[i].first, buffer.get(), kBlock, static_cast<off_t>(pieces[i].second)) > 0, "pread");
    }
  };
  std::thread writer([&] { write_zeros(out, bytes); });
  std::vector<std::thread> others;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) others.emplace_back(read);
  read();
  for (std::thread& other : others) other.join();
  writer.join();
  for (const int file : files) ::close(file);
}

/// What one writes without this library.
void usual_loop(const std::vector<std::string>& inputs, const std::string& out, Model& model,
                const std::function<void(const std::string&, Model&)>& load,
                const std::function<void(const std::string&, Model&)>& save) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> sums;
  for (const std::string& input : inputs) {
    load(input, model);
    const std::vector<torch::Tensor> parameters = model->parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (sums.size() <= i) {
        sums.push_back(parameters[i].to(torch::kDouble));
      } else {
        sums[i].add_(parameters[i].to(torch::kDouble));
      }
    }
  }
  const std::vector<torch::Tensor> parameters = model->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].copy_(sums[i].div_(static_cast<double>(inputs.size())));
  }
  save(out, model);
}

struct Kind {
  const char* name;
  const char* ending;
  ckpt::Format input;  // of the loop's files, too
};

void measure(const Settings& settings, torch::Dtype dtype, const Kind& kind, Times& times) {
  const std::string what = std::string(dtype == torch::kFloat ? "float32" : "bfloat16") + ", " + kind.name;
  Model model(settings, dtype);
  std::vector<std::string> inputs;
  size_t bytes = 0;
  for (int i = 0; i < settings.files; ++i) {
    torch::NoGradGuard no_grad;
    for (auto& parameter : model->parameters()) parameter.normal_(0, 0.02);
    inputs.push_back(settings.dir + "/" + std::to_string(i) + kind.ending);
    ckpt::ModelState::of(*model).save(inputs.back(), kind.input);
    bytes = std::filesystem::file_size(inputs.back());
  }
  const std::string out = settings.dir + "/out" + kind.ending;
  const auto average = [&] { ckpt::Averager::average(inputs, out, {.format = kind.input}); };
  for (const bool cold : {false, true}) {
    if (cold && !settings.cold) continue;
    const std::string when = what + (cold ? ", cold" : ", warm");
    const auto prepare = [&] {
      ::unlink(out.c_str());
      for (const std::string& path : inputs) cold ? evict(path) : warm(path);
    };
    times.measure("floor: read all, write one: " + when, settings.repeat, prepare,
                  [&] { read_all_write_one(inputs, out, bytes); });
    double anonymous = 0;
    times.measure("average: " + when, settings.repeat, prepare,
                  [&] { anonymous = std::max(anonymous, peak_anonymous_mib(average)); });
    std::printf("    anonymous memory %.0f MiB, aim <= %d\n", anonymous, 64 + settings.files);
    if (cold || !settings.loop) continue;
    const auto load = [&](const std::string& path, Model& into) {
      if (kind.input == ckpt::Format::kArchive) {
        torch::load(into, path);
      } else {
        ckpt::ModelState::open(path).load_into(*into, {.verify = false});
      }
    };
    const auto save = [&](const std::string& path, Model& from) {
      if (kind.input == ckpt::Format::kArchive) {
        torch::save(from, path);
        sync_file(path);
      } else {
        ckpt::ModelState::of(*from).save(path, kind.input);
      }
    };
    times.measure("usual loop: " + when, settings.repeat, prepare, [&] { usual_loop(inputs, out, model, load, save); });
  }
  for (const char* when : {", warm", ", cold"}) {
    times.ratio("average: " + what + when, "floor: read all, write one: " + what + when, "<= 1.3");
    times.ratio("usual loop: " + what + when, "average: " + what + when, ">= 4");
  }
  for (const std::string& path : inputs) ::unlink(path.c_str());
  ::unlink(out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  return run_bench("ckpt_average_bench", [&] {
    Settings settings;
    Arguments(argc, argv)
        .take("files", settings.files)
        .take("mib", settings.mib)
        .take("tensors", settings.tensors)
        .take("repeat", settings.repeat)
        .take("loop", settings.loop)
        .take("cold", settings.cold)
        .take("dir", settings.dir)
        .done();
    const Directory place(settings.dir);
    settings.dir = place.path();
    std::printf("%d files of %d MiB, %d tensors each, LibTorch %s (medians of %d)\n", settings.files, settings.mib,
                settings.tensors, TORCH_VERSION, settings.repeat);
    Times times;
    for (const torch::Dtype dtype : {torch::kFloat, torch::kBFloat16}) {
      for (const Kind& kind :
           {Kind{"safetensors", ".safetensors", ckpt::Format::kSafetensors}, Kind{"torch", ".pt", ckpt::Format::kTorch},
            Kind{"archive", ".archive", ckpt::Format::kArchive}}) {
        measure(settings, dtype, kind, times);
      }
    }
  });
}
