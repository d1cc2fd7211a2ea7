// Means of a few numbers, for tests.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "core/average/mean.h"
#include "core/weights/numbers.h"

namespace ckpt::average::test {

/// The elements of some inputs, in their bytes.
using Inputs = std::vector<std::string>;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// Those that this machine has.
inline std::vector<Kernel> kernels() {
  std::vector<Kernel> all;
  for (int i = 0; i <= static_cast<int>(best_kernel()); ++i) all.push_back(static_cast<Kernel>(i));
  return all;
}

struct Result {
  std::string bytes;
  MeanFlags flags;
};

inline Result mean_of(const Inputs& inputs, const std::vector<double>& weights, DType from, DType to, Kernel kernel) {
  std::vector<const std::byte*> pointers;
  for (const std::string& input : inputs) pointers.push_back(reinterpret_cast<const std::byte*>(input.data()));
  const size_t elements = inputs.at(0).size() / width(from);
  Result result{std::string(elements * width(to), '?'), {}};
  result.flags = Mean(weights, from, to, kernel)(pointers, elements, reinterpret_cast<std::byte*>(result.bytes.data()));
  return result;
}

/// The only element of a result.
inline uint64_t bits_of(const Result& result) {
  uint64_t bits = 0;
  std::memcpy(&bits, result.bytes.data(), result.bytes.size());
  return bits;
}

}  // namespace ckpt::average::test
