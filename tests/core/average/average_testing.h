// Files that tests average, and what came of it.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "core/average/average.h"
#include "core/weights/convert.h"
#include "core/weights/weights_testing.h"
#include "support/temp_dir.h"

namespace ckpt::test {

struct MadeTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::string bytes;
  int64_t tied_to = -1;  ///< place of another one in the list; no bytes then
  bool is_parameter = false;
};

template <class T>
MadeTensor made(std::string name, DType dtype, const std::vector<T>& values) {
  std::string bytes = bytes_of(values);
  const auto elements = static_cast<int64_t>(bytes.size() / width(dtype));
  return {.name = std::move(name), .dtype = dtype, .shape = {elements}, .bytes = std::move(bytes)};
}
inline MadeTensor floats(std::string name, const std::vector<float>& values) {
  return made(std::move(name), DType::kFloat32, values);
}
inline MadeTensor doubles(std::string name, const std::vector<double>& values) {
  return made(std::move(name), DType::kFloat64, values);
}
inline MadeTensor longs(std::string name, const std::vector<int64_t>& values) {
  return made(std::move(name), DType::kInt64, values);
}
inline MadeTensor bools(std::string name, const std::vector<uint8_t>& values) {
  return made(std::move(name), DType::kBool, values);
}
inline MadeTensor tie(const std::vector<MadeTensor>& tensors, std::string name, size_t first) {
  return {.name = std::move(name),
          .dtype = tensors[first].dtype,
          .shape = tensors[first].shape,
          .bytes = {},
          .tied_to = static_cast<int64_t>(first)};
}

inline std::vector<format::TensorToWrite> to_write(const std::vector<MadeTensor>& tensors) {
  std::vector<format::TensorToWrite> list;
  for (const MadeTensor& tensor : tensors) {
    list.push_back({.name = tensor.name,
                    .dtype = tensor.dtype,
                    .shape = tensor.shape,
                    .data = as_bytes(tensor.bytes),
                    .is_parameter = tensor.is_parameter,
                    .tied_to = tensor.tied_to});
  }
  return list;
}

/// By the ending of `path`: .safetensors, .pt (a torch zip), .archive.
inline void write_tensors(const std::string& path, const std::vector<MadeTensor>& tensors,
                          const nlohmann::ordered_json& module_metadata = nullptr) {
  const Format format = path.ends_with(".safetensors") ? Format::kSafetensors
                        : path.ends_with(".pt")        ? Format::kTorch
                                                       : Format::kArchive;
  weights::write_weights(to_write(tensors), path, {.to = format}, {}, module_metadata);
}

class AverageTest : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::vector<MadeTensor>& tensors) {
    write_tensors(dir_ / name, tensors);
    return dir_ / name;
  }

  /// Into out_.
  AverageReport average(const std::vector<std::string>& inputs, const AverageOptions& options = {}) {
    return average::average(inputs, out_, options);
  }
  /// There is an error, and an output that was there is as it was, with nothing beside it.
  Error refused(const std::vector<std::string>& inputs, const AverageOptions& options = {}) {
    write_all(out_, "old");
    const std::vector<std::string> before = names_in_dir();
    const Error error = error_of([&] { average(inputs, options); });
    EXPECT_EQ(read_all(out_), "old") << error.what();
    EXPECT_EQ(names_in_dir(), before) << error.what();
    return error;
  }

  template <class T>
  std::vector<T> values(const std::string& name) const {
    return values_of<T>(read(weights::Weights::open(out_), name));
  }
  std::vector<float> floats_of(const std::string& name) const { return values<float>(name); }
  DType dtype_of(const std::string& name) const { return weights::Weights::open(out_).find(name)->stored.dtype; }

  std::vector<std::string> names_in_dir() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  TempDir dir_;
  std::string out_ = dir_ / "out.safetensors";
};

/// The lines that are about `name`.
inline std::vector<std::string> decisions_on(const AverageReport& report, const std::string& name) {
  std::vector<std::string> lines;
  for (const AverageDecision& decision : report.decisions) {
    if (decision.name == name) lines.push_back(decision.what);
  }
  return lines;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Whether one of `lines` contains all of `parts`.
inline bool any_has(const std::vector<std::string>& lines, std::initializer_list<std::string> parts) {
  return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
    return std::all_of(parts.begin(), parts.end(), [&](const std::string& part) { return contains(line, part); });
  });
}

inline std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

}  // namespace ckpt::test
