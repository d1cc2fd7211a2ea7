// Small files of weights for the program to look at, and what is in those that it wrote.
#pragma once

#include <bit>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/format/safetensors.h"
#include "core/io/block_writer.h"
#include "core/weights/weights.h"

namespace ckpt::test {

struct Floats {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

/// A safetensors file of float32 tensors.
inline void write_floats(const std::string& path, const std::map<std::string, Floats>& tensors,
                         const std::map<std::string, std::string>& metadata = {}) {
  std::vector<format::TensorToWrite> list;
  for (const auto& [name, floats] : tensors) {
    list.push_back({.name = name,
                    .dtype = DType::kFloat32,
                    .shape = floats.shape,
                    .data = ByteView(std::as_bytes(std::span(floats.values)))});
  }
  io::replace_file(path, [&](io::BlockWriter& writer) { format::write_safetensors(writer, list, metadata); });
}

/// Every float32 tensor of a file of any format, by the names that the library gives them.
inline std::map<std::string, std::vector<float>> floats_in(const std::string& path) {
  const auto weights = weights::Weights::open(path);
  std::map<std::string, std::vector<float>> all;
  for (const weights::Tensor& tensor : weights.tensors()) {
    if (tensor.stored.dtype != DType::kFloat32) continue;
    std::vector<float>& values = all[tensor.name];
    values.resize(tensor.stored.elements);
    weights.read(tensor, std::as_writable_bytes(std::span(values)));
  }
  return all;
}

}  // namespace ckpt::test
