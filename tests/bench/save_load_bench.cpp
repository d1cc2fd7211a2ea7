// How long a save, the stall of an asynchronous one, and a load take, against the floors of the machine and against
// LibTorch's own functions, in one run over the same data. Prints times and then ratios; fails nothing.
//
//   ckpt_bench [--gib=1] [--dir=DIR]... [google-benchmark's flags]
//
// DIR: where to write (give one on a disk and one on tmpfs); /tmp and /dev/shm when none is given.
#include <benchmark/benchmark.h>
#include <ckpt/checkpoint_manager.h>
#include <ckpt/training_state.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kTensors = 64;
constexpr size_t kBlock = 4 << 20;

struct ModelImpl : torch::nn::Module {
  explicit ModelImpl(int64_t elements) {
    for (int i = 0; i < kTensors; ++i) {
      register_parameter("weight" + std::to_string(i), torch::empty({elements / 1024, 1024}).uniform_(-0.5, 0.5), false);
    }
  }
};
TORCH_MODULE(Model);

/// What all benchmarks of one run share: a live model, and as much warm memory.
struct Data {
  explicit Data(double gib)
      : bytes(static_cast<size_t>(gib * (1 << 30)) / kTensors / 4096 * 4096 * kTensors),
        model(static_cast<int64_t>(bytes / kTensors / 4)),
        copy(static_cast<std::byte*>(std::aligned_alloc(4096, bytes))) {
    std::memset(copy, 1, bytes);
  }
  size_t bytes;
  Model model;
  std::byte* copy;
};
Data* data = nullptr;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void check(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

/// body(begin, end) on two threads over halves that begin at whole blocks.
template <class Body>
void in_two(size_t bytes, Body body) {
  const size_t middle = bytes / 2 / kBlock * kBlock;
  std::thread other([&] { body(size_t{0}, middle); });
  body(middle, bytes);
  other.join();
}

/// Repeats `body`, which returns the seconds that count.
template <class Body>
void repeat(benchmark::State& state, Body body) {
  for (auto _ : state) state.SetIterationTime(body());
  state.SetBytesProcessed(static_cast<int64_t>(data->bytes * state.iterations()));
}

void floor_write(benchmark::State& state, const std::string& dir) {
  const std::string path = dir + "/floor";
  repeat(state, [&] {
    ::unlink(path.c_str());
    const auto start = Clock::now();
    int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, 0600);
    if (fd < 0) fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
    check(fd >= 0, "open");
    check(::posix_fallocate(fd, 0, static_cast<off_t>(data->bytes)) == 0, "fallocate");
    in_two(data->bytes, [&](size_t at, size_t end) {
      for (; at < end; at += kBlock) {
        const size_t count = std::min(kBlock, end - at);
        check(::pwrite(fd, data->copy + at, count, static_cast<off_t>(at)) == static_cast<ssize_t>(count), "pwrite");
      }
    });
    check(::fsync(fd) == 0 && ::close(fd) == 0, "fsync");
    const double seconds = seconds_since(start);
    ::unlink(path.c_str());
    return seconds;
  });
}

void torch_save_and_fsync(benchmark::State& state, const std::string& dir) {
  const std::string path = dir + "/torch_save.pt";
  repeat(state, [&] {
    const auto start = Clock::now();
    torch::save(data->model, path);
    const int fd = ::open(path.c_str(), O_RDONLY);
    check(fd >= 0 && ::fsync(fd) == 0 && ::close(fd) == 0, "fsync");
    const double seconds = seconds_since(start);
    ::unlink(path.c_str());
    return seconds;
  });
}

ckpt::TrainingState state_of_model() {
  ckpt::TrainingState state;
  state.add_module("model", *data->model);
  return state;
}

void ckpt_save(benchmark::State& state, const std::string& dir) {
  ckpt::TrainingState training = state_of_model();
  const std::string run = dir + "/run";
  repeat(state, [&] {
    fs::remove_all(run);
    ckpt::CheckpointManager manager(run);
    ++training.iteration;
    const auto start = Clock::now();
    manager.save(training);
    return seconds_since(start);
  });
  fs::remove_all(run);
}

void warm_copy(benchmark::State& state, const std::string&) {
  const auto parameters = data->model->parameters();
  const size_t each = data->bytes / kTensors;
  repeat(state, [&] {
    const auto start = Clock::now();
    std::thread other([&] {
      for (size_t i = 0; i < kTensors; i += 2) std::memcpy(data->copy + i * each, parameters[i].data_ptr(), each);
    });
    for (size_t i = 1; i < kTensors; i += 2) std::memcpy(data->copy + i * each, parameters[i].data_ptr(), each);
    other.join();
    return seconds_since(start);
  });
}

void async_stall(benchmark::State& state, const std::string& dir) {
  ckpt::TrainingState training = state_of_model();
  const std::string run = dir + "/run";
  fs::remove_all(run);
  {
    ckpt::CheckpointManager manager(run, {.keep = {.last = 1}});
    manager.save_async(training).wait();  // the first fills fresh buffers
    repeat(state, [&] {
      ++training.iteration;
      const auto start = Clock::now();
      auto handle = manager.save_async(training);
      const double seconds = seconds_since(start);
      handle.wait();
      return seconds;
    });
  }
  fs::remove_all(run);
}

/// A checkpoint and what LibTorch writes, to be read by the load benchmarks; in the page cache. Made once for each
/// place, removed with it.
struct Files {
  explicit Files(const std::string& dir) : run(dir + "/loaded"), torch(dir + "/loaded.pt") {
    ckpt::TrainingState training = state_of_model();
    checkpoint = ckpt::CheckpointManager(run).save(training).path;
    torch::save(data->model, torch);
    for (const std::string& path : {checkpoint + "/state.pt", torch}) {  // direct writes leave the cache cold
      std::vector<char> buffer(kBlock);
      const int fd = ::open(path.c_str(), O_RDONLY);
      while (::read(fd, buffer.data(), buffer.size()) > 0) continue;
      ::close(fd);
    }
  }
  std::string run, torch, checkpoint;
};

const Files& files_in(const std::string& dir) {
  static std::map<std::string, Files> made;
  return made.try_emplace(dir, dir).first->second;
}

void pread_two_threads(benchmark::State& state, const std::string& dir) {
  const Files& files = files_in(dir);
  const int fd = ::open((files.checkpoint + "/state.pt").c_str(), O_RDONLY);
  repeat(state, [&] {
    const auto start = Clock::now();
    in_two(data->bytes, [&](size_t at, size_t end) {
      for (; at < end; at += kBlock) {
        check(::pread(fd, data->copy + at, std::min(kBlock, end - at), static_cast<off_t>(at)) > 0, "pread");
      }
    });
    return seconds_since(start);
  });
  ::close(fd);
}

void mmap_and_copy(benchmark::State& state, const std::string& dir) {
  const Files& files = files_in(dir);
  const int fd = ::open((files.checkpoint + "/state.pt").c_str(), O_RDONLY);
  repeat(state, [&] {
    const auto start = Clock::now();
    void* mapped = ::mmap(nullptr, data->bytes, PROT_READ, MAP_SHARED, fd, 0);
    check(mapped != MAP_FAILED, "mmap");
    in_two(data->bytes, [&](size_t at, size_t end) {
      std::memcpy(data->copy + at, static_cast<std::byte*>(mapped) + at, end - at);
    });
    ::munmap(mapped, data->bytes);
    return seconds_since(start);
  });
  ::close(fd);
}

void torch_load(benchmark::State& state, const std::string& dir) {
  const Files& files = files_in(dir);
  repeat(state, [&] {
    const auto start = Clock::now();
    torch::load(data->model, files.torch);
    return seconds_since(start);
  });
}

template <bool kVerify>
void ckpt_load(benchmark::State& state, const std::string& dir) {
  const Files& files = files_in(dir);
  ckpt::TrainingState training = state_of_model();
  ckpt::CheckpointManager manager(files.run, {.verify = kVerify});
  repeat(state, [&] {
    const auto start = Clock::now();
    manager.load_latest(training);
    return seconds_since(start);
  });
}

using Benchmark = void (*)(benchmark::State&, const std::string&);
const std::vector<std::pair<std::string, Benchmark>> kBenchmarks = {
    {"floor: direct writes + fsync", floor_write},
    {"torch::save + fsync", torch_save_and_fsync},
    {"save", ckpt_save},
    {"copy into warm memory", warm_copy},
    {"save_async: stall", async_stall},
    {"pread, 2 threads", pread_two_threads},
    {"mmap + copy, 2 threads", mmap_and_copy},
    {"torch::load", torch_load},
    {"load, verified", ckpt_load<true>},
    {"load, unverified", ckpt_load<false>},
};

struct Ratio {
  const char* what;
  const char* value;
  const char* against;
  const char* aim;
};
const Ratio kRatios[] = {
    {"save / floor", "save", "floor: direct writes + fsync", "<= 1.25"},
    {"torch::save + fsync / save", "torch::save + fsync", "save", ">= 2"},
    {"async stall / warm copy", "save_async: stall", "copy into warm memory", "<= 1.2"},
    {"torch::load / load, verified", "torch::load", "load, verified", ">= 8"},
    {"load, unverified / mmap + copy", "load, unverified", "mmap + copy, 2 threads", "<= 1.3"},
    {"load, unverified / pread", "load, unverified", "pread, 2 threads", ""},
};

/// Prints as google-benchmark does and keeps the times.
class Reporter : public benchmark::ConsoleReporter {
 public:
  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.error_occurred) continue;
      times_[run.run_name.function_name].push_back(run.real_accumulated_time /
                                                   static_cast<double>(run.iterations));
    }
  }

  double median(const std::string& name) const {
    auto found = times_.find(name);
    if (found == times_.end()) return 0;
    std::vector<double> sorted = found->second;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }

 private:
  std::map<std::string, std::vector<double>> times_;
};

}  // namespace

int main(int argc, char** argv) {
  double gib = 1;
  std::vector<std::string> dirs;
  std::vector<char*> rest{argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg.rfind("--gib=", 0) == 0) gib = std::stod(arg.substr(6));
    else if (arg.rfind("--dir=", 0) == 0) dirs.push_back(arg.substr(6));
    else rest.push_back(argv[i]);
  }
  if (dirs.empty()) dirs = {"/tmp", "/dev/shm"};
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;

  Data shared(gib);
  data = &shared;
  std::vector<std::string> places;
  for (const std::string& dir : dirs) {
    std::string place = dir + "/ckpt-bench-XXXXXX";
    if (!::mkdtemp(place.data())) {
      std::perror(place.c_str());
      return 1;
    }
    places.push_back(place);
    for (const auto& [name, function] : kBenchmarks) {
      benchmark::RegisterBenchmark((dir + ": " + name).c_str(), function, place)
          ->UseManualTime()
          ->Iterations(1)
          ->Repetitions(5)
          ->Unit(benchmark::kMillisecond);
    }
  }
  Reporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  for (const std::string& place : places) fs::remove_all(place);

  for (const std::string& dir : dirs) {
    std::printf("\n%.2f GiB, %d tensors, LibTorch %s, %s (medians)\n", gib, kTensors, TORCH_VERSION, dir.c_str());
    for (const Ratio& ratio : kRatios) {
      const double value = reporter.median(dir + ": " + ratio.value), against = reporter.median(dir + ": " + ratio.against);
      if (value <= 0 || against <= 0) continue;
      std::printf("  %-34s %6.2f   (%.3f s, %.3f s)  %s%s\n", ratio.what, value / against, value, against,
                  *ratio.aim ? "aim " : "", ratio.aim);
    }
  }
  return 0;
}
