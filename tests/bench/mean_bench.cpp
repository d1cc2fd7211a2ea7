// How fast means are on one core, from inputs in the cache: bytes of input in a second, by kernel, beside copying the
// same bytes and beside the usual loop (sum in float64, divide, cast). Prints a table; fails nothing.
//
//   ckpt_mean_bench [--inputs=5] [--kib=512]     KiB of all inputs together
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/average/mean.h"

namespace {

using namespace ckpt;
using namespace ckpt::average;

constexpr int kLeastCalls = 5;

using Bytes = std::vector<std::byte>;

/// Seconds of one call, the shortest of many: each is too short for the scheduler to come between all of them.
double best_of(const std::function<void()>& act) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  const auto end = Clock::now() + std::chrono::milliseconds(60);
  for (int calls = 0; calls < kLeastCalls || Clock::now() < end; ++calls) {
    const auto start = Clock::now();
    act();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

std::vector<Bytes> make_inputs(DType dtype, size_t count, size_t elements) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal(0, 0.02);
  std::vector<double> numbers(elements);
  std::vector<Bytes> inputs(count, Bytes(elements * width(dtype)));
  for (Bytes& input : inputs) {
    std::generate(numbers.begin(), numbers.end(), [&] { return normal(random); });
    const std::byte* from = reinterpret_cast<const std::byte*>(numbers.data());
    Mean({1}, DType::kFloat64, dtype)({&from, 1}, elements, input.data());
  }
  return inputs;
}

template <class T>
double number_of(T value) {
  if constexpr (sizeof(T) == 2) {
    return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);  // bfloat16
  } else {
    return value;
  }
}

/// What a program writes that does not look at the rounding; nullptr for float16, which has no type here.
template <class T>
void usual_loop(const std::vector<Bytes>& inputs, size_t elements, Bytes& to) {
  std::vector<const T*> from;
  for (const Bytes& input : inputs) from.push_back(reinterpret_cast<const T*>(input.data()));
  T* out = reinterpret_cast<T*>(to.data());
  for (size_t k = 0; k < elements; ++k) {
    double sum = 0;
    for (const T* input : from) sum += number_of(input[k]);
    const double mean = sum / static_cast<double>(from.size());
    if constexpr (sizeof(T) == 2) {
      out[k] = static_cast<T>(std::bit_cast<uint32_t>(static_cast<float>(mean)) >> 16);
    } else {
      out[k] = static_cast<T>(mean);
    }
  }
}

double usual_seconds(DType dtype, const std::vector<Bytes>& inputs, size_t elements, Bytes& to) {
  if (dtype == DType::kFloat64) return best_of([&] { usual_loop<double>(inputs, elements, to); });
  if (dtype == DType::kFloat32) return best_of([&] { usual_loop<float>(inputs, elements, to); });
  if (dtype == DType::kBFloat16) return best_of([&] { usual_loop<uint16_t>(inputs, elements, to); });
  return 0;
}

std::vector<double> make_weights(const std::string& kind, size_t count) {
  std::vector<double> weights(count, 1);
  for (size_t i = 0; i < count; ++i) {
    if (kind == "integers") weights[i] = static_cast<double>(1 + i % 7);
    if (kind == "decimals") weights[i] = static_cast<double>(1 + i % 7) / 10;
  }
  return weights;
}

void measure(DType dtype, size_t count, size_t bytes) {
  const size_t elements = bytes / count / width(dtype);
  const std::vector<Bytes> inputs = make_inputs(dtype, count, elements);
  std::vector<const std::byte*> pointers;
  for (const Bytes& input : inputs) pointers.push_back(input.data());
  Bytes to(elements * width(DType::kFloat64)), copy(elements * width(dtype));
  const double giga = static_cast<double>(count * elements * width(dtype)) / 1e9;
  const double copied = best_of([&] {
    for (const Bytes& input : inputs) std::memcpy(copy.data(), input.data(), input.size());
  });
  const double usual = usual_seconds(dtype, inputs, elements, to);
  const auto line = [&](const std::string& what, double seconds) {
    std::printf("%-9s %-22s %7.2f GB/s   %5.2f of memcpy", std::string(name(dtype)).c_str(), what.c_str(),
                giga / seconds, copied / seconds);
    if (usual > 0) std::printf("   %6.2f of the usual loop", usual / seconds);
  };
  line("memcpy", copied);
  std::puts("");
  if (usual > 0) {
    line("usual loop", usual);
    std::puts("");
  }
  constexpr const char* kNames[] = {"scalar", "portable", "avx2", "avx512"};
  for (int kernel = 0; kernel <= static_cast<int>(best_kernel()); ++kernel) {
    for (const char* kind : {"equal", "integers", "decimals"}) {
      if (kernel == 0 && kind != std::string("equal")) continue;
      const Mean mean(make_weights(kind, count), dtype, dtype, static_cast<Kernel>(kernel));
      const MeanFlags flags = mean(pointers, elements, to.data());
      line(std::string(kNames[kernel]) + ", " + kind, best_of([&] { mean(pointers, elements, to.data()); }));
      std::printf("   %.2e redone\n", static_cast<double>(flags.redone) / static_cast<double>(elements));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  size_t inputs = 5, kib = 512;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--inputs=", 9) == 0) inputs = std::strtoul(argv[i] + 9, nullptr, 10);
    if (std::strncmp(argv[i], "--kib=", 6) == 0) kib = std::strtoul(argv[i] + 6, nullptr, 10);
  }
  if (inputs == 0 || kib == 0) return 2;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
    measure(dtype, inputs, kib * 1024);
  }
  return 0;
}
