// How long it takes to open, read, load and convert files of weights, against the floors of the machine, LibTorch's own
// functions and, where given, Python's: all in one run over the same tensors, in the page cache. Prints times, then
// ratios; fails nothing.
//
//   ckpt_weights_bench [--gib=1] [--tensors=10000] [--dir=/tmp] [--repeat=5] [--python=PATH]
//
// PATH: an interpreter that can import torch and safetensors (CKPT_TEST_PYTHON where it is not given).
#include <ckpt/model_state.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <torch/script.h>
#include <torch/torch.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "bench.h"

namespace {

namespace fs = std::filesystem;
using namespace ckpt::bench;

constexpr int kInOneModule = 10;  // tensors: LibTorch's archives are slow with many names in one level

struct Settings {
  double gib = 1;
  int tensors = 10000;
  int repeat = 5;
  std::string dir = "/tmp";
  std::string python;
};

struct Block : torch::nn::Module {
  explicit Block(int64_t elements) {
    for (int i = 0; i < kInOneModule; ++i) {
      register_parameter("weight" + std::to_string(i), torch::empty({elements}).uniform_(-0.5, 0.5), false);
    }
  }
};

struct ModelImpl : torch::nn::Module {
  ModelImpl(int tensors, int64_t elements) {
    for (int i = 0; i < tensors / kInOneModule; ++i) {
      register_module("block" + std::to_string(i), std::make_shared<Block>(elements));
    }
  }
};
TORCH_MODULE(Model);

/// The file's tensors into the memory of live ones by mmap and memcpy, on two threads: what safetensors in Python does.
void mmap_and_copy(const ckpt::ModelState& file, const ckpt::StateDict& live) {
  const int fd = ::open(file.path().c_str(), O_RDONLY);
  check(fd >= 0, file.path());
  const size_t bytes = fs::file_size(file.path());
  void* mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  check(mapped != MAP_FAILED, "mmap");
  const auto copy = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const ckpt::TensorInfo& info = *file.find(live[i].first);
      std::memcpy(live[i].second.data_ptr(), static_cast<const char*>(mapped) + info.file_offset, info.bytes);
    }
  };
  std::thread other([&] { copy(0, live.size() / 2); });
  copy(live.size() / 2, live.size());
  other.join();
  ::munmap(mapped, bytes);
  ::close(fd);
}

/// Reads all of a file and writes as much, with direct writes and fsync: no conversion can do with less.
void read_and_write(const std::string& from, const std::string& to) {
  ::unlink(to.c_str());
  const size_t bytes = fs::file_size(from);
  const int in = ::open(from.c_str(), O_RDONLY);
  int out = ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, 0600);
  if (out < 0) out = ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  check(in >= 0 && out >= 0, to);
  check(::posix_fallocate(out, 0, static_cast<off_t>(bytes)) == 0, "fallocate");
  std::atomic<size_t> next{0};
  const auto work = [&] {
    const Buffer buffer = make_buffer(kBlock);
    for (size_t at = next.fetch_add(kBlock); at + kBlock <= bytes; at = next.fetch_add(kBlock)) {
      check(::pread(in, buffer.get(), kBlock, static_cast<off_t>(at)) == kBlock, "pread");
      check(::pwrite(out, buffer.get(), kBlock, static_cast<off_t>(at)) == kBlock, "pwrite");
    }
  };
  std::thread other(work);
  work();
  other.join();
  check(::fsync(out) == 0 && ::close(out) == 0, "fsync");
  ::close(in);
}

/// One interpreter for all: what it prints, "name seconds seconds ..." a line, goes into `times`.
void measure_python(const Settings& settings, const std::string& torch_file, const std::string& safetensors_file,
                    Times& times) {
  const std::string script = settings.dir + "/bench.py";
  std::ofstream(script) << R"python(
import sys, time, warnings
warnings.filterwarnings("ignore")
import torch, safetensors.torch
torch_file, safetensors_file, repeat = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(2)
live = torch.load(torch_file, weights_only=True)
def copy(tensors):
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(tensors[name])
def safe_index():
    with safetensors.safe_open(safetensors_file, "pt") as f:
        return list(f.keys())
def safe_one():
    with safetensors.safe_open(safetensors_file, "pt") as f:
        return f.get_tensor(next(iter(live)))
todo = {
    "Python: torch.load": lambda: torch.load(torch_file, weights_only=True),
    "Python: torch.load(mmap=True)": lambda: torch.load(torch_file, weights_only=True, mmap=True),
    "Python: torch.load + copy into live tensors": lambda: copy(torch.load(torch_file, weights_only=True)),
    "Python: torch.load(mmap=True) + copy": lambda: copy(torch.load(torch_file, weights_only=True, mmap=True)),
    "Python: safetensors, index alone": safe_index,
    "Python: safetensors, one tensor": safe_one,
    "Python: safetensors load_file": lambda: safetensors.torch.load_file(safetensors_file),
    "Python: safetensors load_file + copy": lambda: copy(safetensors.torch.load_file(safetensors_file)),
}
for name, body in todo.items():
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter(); kept = body(); seconds.append(time.perf_counter() - start); del kept
    print(name + "|" + " ".join(map(str, seconds)), flush=True)
)python";
  const std::string command = "'" + settings.python + "' '" + script + "' '" + torch_file + "' '" + safetensors_file +
                              "' " + std::to_string(settings.repeat);
  FILE* pipe = ::popen(command.c_str(), "r");
  check(pipe != nullptr, command);
  char line[4096];
  while (std::fgets(line, sizeof line, pipe)) {
    const std::string text = line;
    std::istringstream numbers(text.substr(text.find('|') + 1));
    std::vector<double> seconds;
    for (double one; numbers >> one;) seconds.push_back(one);
    if (!seconds.empty()) times.add(text.substr(0, text.find('|')), seconds);
  }
  if (::pclose(pipe) != 0) std::printf("  Python failed\n");
}

struct Ratio {
  const char* value;
  const char* against;
  const char* aim;
};
const Ratio kRatios[] = {
    {"load into live, safetensors", "floor: mmap + copy, safetensors", "<= 1.3"},
    {"load into live, torch, unverified", "floor: mmap + copy, torch", "<= 1.3"},
    {"load into live, torch, verified", "floor: mmap + copy, torch", "<= 3"},
    {"load into live, archive, unverified", "floor: mmap + copy, torch", "<= 1.3"},
    {"load into live, archive, verified", "floor: mmap + copy, torch", "<= 3"},
    {"torch::load", "load into live, archive, verified", ">= 8"},
    {"torch::jit::load", "load into live, archive, verified", ""},
    {"Python: torch.load", "read all, torch, verified", ""},
    {"Python: torch.load", "read all, torch, unverified", ""},
    {"Python: torch.load + copy into live tensors", "load into live, torch, verified", ""},
    {"Python: torch.load(mmap=True) + copy", "load into live, torch, unverified", ""},
    {"Python: safetensors load_file", "read all, safetensors", ""},
    {"Python: safetensors load_file + copy", "load into live, safetensors", ""},
    {"Python: safetensors, index alone", "open and index, safetensors", ""},
    {"convert torch to safetensors", "floor: read + write", "<= 1.3"},
};

struct Files {
  std::string safetensors, torch, archive;
};

void measure_reading(const Files& files, int repeat, Times& times) {
  using ckpt::ModelState;
  for (const auto& [kind, path] :
       {std::pair("safetensors", files.safetensors), {"torch", files.torch}, {"archive", files.archive}}) {
    const std::string comma = std::string(", ") + kind;
    times.measure("open and index" + comma, repeat, [&] { ModelState::open(path); });
    times.measure("read one" + comma, repeat, [&] { ModelState::open(path).tensor("block1.weight0"); });
    for (const bool verify : {false, true}) {
      const std::string how = kind == std::string("safetensors") ? "" : verify ? ", verified" : ", unverified";
      if (how.empty() && verify) continue;
      times.measure("read all" + comma + how, repeat, [&] { ModelState::open(path).state_dict({.verify = verify}); });
    }
  }
}

void measure_loading(const Files& files, Model& model, int repeat, Times& times) {
  using ckpt::ModelState;
  const ckpt::StateDict live = ckpt::state_dict(*model);
  for (const auto& [kind, path] : {std::pair("safetensors", files.safetensors), {"torch", files.torch}}) {
    const auto file = ModelState::open(path);
    times.measure(std::string("floor: mmap + copy, ") + kind, repeat, [&] { mmap_and_copy(file, live); });
  }
  times.measure("load into live, safetensors", repeat, [&] { ModelState::open(files.safetensors).load_into(*model); });
  for (const auto& [kind, path] : {std::pair("torch", files.torch), {"archive", files.archive}}) {
    for (const bool verify : {false, true}) {
      times.measure(std::string("load into live, ") + kind + (verify ? ", verified" : ", unverified"), repeat,
                    [&] { ModelState::open(path).load_into(*model, {.verify = verify}); });
    }
  }
  times.measure("torch::load", repeat, [&] { torch::load(model, files.archive); });
  times.measure("torch::jit::load", repeat, [&] { torch::jit::load(files.archive); });
}

void run(const Settings& settings) {
  using ckpt::Format;
  using ckpt::ModelState;
  const auto elements = static_cast<int64_t>(settings.gib * (1 << 30) / 4 / settings.tensors);
  Model model(settings.tensors, elements);
  const Files files = {settings.dir + "/w.safetensors", settings.dir + "/w.pt", settings.dir + "/w.archive"};
  std::printf("%.2f GiB, %d tensors, LibTorch %s, %s (medians of %d)\n", settings.gib, settings.tensors, TORCH_VERSION,
              settings.dir.c_str(), settings.repeat);
  Times times;
  times.measure("save, safetensors", 1, [&] { ModelState::of(*model).save(files.safetensors, Format::kSafetensors); });
  times.measure("save, torch", 1, [&] { ModelState::of(*model).save(files.torch, Format::kTorch); });
  times.measure("save, archive", 1, [&] { ModelState::of(*model).save(files.archive, Format::kArchive); });
  for (const std::string& path : {files.safetensors, files.torch, files.archive}) warm(path);

  measure_reading(files, settings.repeat, times);
  measure_loading(files, model, settings.repeat, times);
  const std::string out = settings.dir + "/out";
  times.measure("floor: read + write", settings.repeat, [&] { read_and_write(files.torch, out); });
  double anonymous = 0;
  times.measure("convert torch to safetensors", settings.repeat, [&] {
    anonymous =
        std::max(anonymous, peak_anonymous_mib([&] { ModelState::open(files.torch).save(out, Format::kSafetensors); }));
  });
  ::unlink(out.c_str());
  if (!settings.python.empty()) measure_python(settings, files.torch, files.safetensors, times);

  std::printf("\nratios\n");
  for (const Ratio& ratio : kRatios) times.ratio(ratio.value, ratio.against, ratio.aim);
  std::printf("  anonymous memory of the conversion: %.0f MiB, aim <= 64\n", anonymous);
  std::printf("  index: aim <= 20 ms\n");
}

}  // namespace

int main(int argc, char** argv) {
  return run_bench("ckpt_weights_bench", [&] {
    Settings settings;
    if (const char* python = std::getenv("CKPT_TEST_PYTHON")) settings.python = python;
    Arguments(argc, argv)
        .take("gib", settings.gib)
        .take("tensors", settings.tensors)
        .take("repeat", settings.repeat)
        .take("dir", settings.dir)
        .take("python", settings.python)
        .done();
    const Directory place(settings.dir);
    settings.dir = place.path();
    run(settings);
  });
}
