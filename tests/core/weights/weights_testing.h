// Files of weights for tests, and what a plain reading of them gives.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/format/safetensors.h"
#include "core/format/tensor_check.h"
#include "core/weights/weights.h"
#include "support/temp_dir.h"

namespace ckpt::test {

/// The bytes of `values`, as they lie in memory.
template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
std::vector<T> values_of(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

/// The whole tensor.
inline std::string read(const weights::Weights& weights, const weights::Tensor& tensor) {
  std::string bytes(tensor.stored.bytes, '?');
  weights.read(tensor, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

inline std::string read(const weights::Weights& weights, const std::string& name) {
  const weights::Tensor* tensor = weights.find(name);
  if (tensor == nullptr) throw std::runtime_error("no tensor " + name);
  return read(weights, *tensor);
}

inline std::vector<std::string> names_of(const weights::Weights& weights) {
  std::vector<std::string> names;
  for (const weights::Tensor& tensor : weights.tensors()) names.push_back(tensor.name);
  return names;
}

/// A tensor with the strides and the place in a storage that are given, all of which fits.
inline format::StoredTensor stored(DType dtype, std::vector<int64_t> shape, std::vector<int64_t> strides,
                                   uint64_t storage_offset, uint64_t storage_bytes, int64_t offset = 0) {
  format::StoredTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.strides = std::move(strides);
  tensor.storage_offset = storage_offset;
  tensor.storage_bytes = storage_bytes;
  const std::string problem = format::place_in_storage(tensor, offset, storage_bytes / width(dtype), UINT64_C(1) << 40);
  EXPECT_EQ(problem, "");
  return tensor;
}

/// A tensor for a writer; `data` must outlive it.
inline format::TensorToWrite to_write(std::string name, DType dtype, std::vector<int64_t> shape,
                                      const std::string& data) {
  format::TensorToWrite tensor;
  tensor.name = std::move(name);
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.data = as_bytes(data);
  return tensor;
}

inline std::string write_safetensors(const std::string& path, std::vector<format::TensorToWrite> tensors,
                                     const std::map<std::string, std::string>& metadata = {}) {
  io::replace_file(path,
                   [&](io::BlockWriter& writer) { format::write_safetensors(writer, std::move(tensors), metadata); });
  return path;
}

/// Weights over a file of any bytes, with tensors of any strides in it.
inline weights::Weights weights_over(const std::string& path, std::vector<weights::Tensor> tensors) {
  weights::Contents contents;
  contents.path = path;
  contents.files = {std::make_shared<const io::File>(io::File::open(path))};
  contents.tensors = std::move(tensors);
  return weights::Weights(std::move(contents), true);
}

/// Runs `what` and gives the error it throws.
template <class What>
Error error_of(What what) {
  try {
    what();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorCode::kInternal, "", "none");
}

}  // namespace ckpt::test
