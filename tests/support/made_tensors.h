// Tensors of made-up content for writers, and how tests/data/read_with_torch.py would tell of them.
#pragma once

#include <cstring>
#include <deque>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "core/format/tensors_to_write.h"

namespace ckpt::test {

/// Every dtype that is not quantized.
inline std::vector<DType> plain_dtypes() {
  std::vector<DType> dtypes;
  for (DType dtype = DType::kBool; !is_quantized(dtype); dtype = static_cast<DType>(static_cast<int>(dtype) + 1)) {
    dtypes.push_back(dtype);
  }
  return dtypes;
}

/// Names that LibTorch's own writer loses, and others that a parser could take for something else.
inline std::vector<std::string> odd_names() {
  std::vector<std::string> names = {"",         " ",       "with blank", "with/slash", "1",      "\xc3\xa9\xe6\xbc\xa2",
                                    "it's",     "\"",      "\"\"\"",     "\\",         "\\\"",   "a\nb",
                                    "tab\t",    "\x7f",    "\x01",       "per%25cent", "#",      "]",
                                    "class",    "None",    "NoneType",   "True",       "Tensor", "int",
                                    "List",     "Module",  "__torch__",  "inf",        "self",   "forward",
                                    "training", "_c",      "state_dict", "\\101",      "\\n",    "__annotations__",
                                    "lambda",   "__init__"};
  for (const char* name :
       {"__parameters__", "__buffers__", "__forward_hooks__", "__forward_pre_hooks__", "__getstate__"}) {
    names.emplace_back(name);
  }
  names.push_back(std::string("nul\0byte", 8));
  return names;
}

/// A list to write, and the bytes that it refers to.
class MadeTensors {
 public:
  explicit MadeTensors(unsigned seed = 1) : random_(seed) {}
  MadeTensors(MadeTensors&&) = default;  // a copy's list would refer to the first one's bytes

  /// Random elements; bools are 0 or 1. Every second one gives its bytes in pieces.
  format::TensorToWrite& add(const std::string& name, DType dtype, std::vector<int64_t> shape) {
    size_t bytes = static_cast<size_t>(width(dtype));
    for (const int64_t size : shape) bytes *= static_cast<size_t>(size);
    std::string& content = contents_.emplace_back(bytes, '\0');
    for (char& byte : content) byte = static_cast<char>(random_() & (dtype == DType::kBool ? 1 : 0xff));
    format::TensorToWrite tensor{.name = name, .dtype = dtype, .shape = std::move(shape)};
    tensor.data = contents_.size() % 2 ? format::BytesToWrite(as_bytes(content)) : in_pieces(content);
    list_.push_back(std::move(tensor));
    places_.push_back(contents_.size() - 1);
    return list_.back();
  }
  format::TensorToWrite& tie(const std::string& name, size_t first) {
    const format::TensorToWrite& other = list_[first];
    list_.push_back({.name = name,
                     .dtype = other.dtype,
                     .shape = other.shape,
                     .is_parameter = other.is_parameter,
                     .tied_to = static_cast<int64_t>(first)});
    places_.push_back(places_[first]);
    return list_.back();
  }

  /// Up to 12 tensors with random names, dtypes (out of `dtypes`) and shapes, some of them tied.
  void add_random(const std::vector<DType>& dtypes, bool ties = true) {
    for (unsigned count = random_() % 13, i = 0; i < count; ++i) {
      std::string name = std::to_string(i);  // unique in any case
      for (unsigned more = random_() % 4; more > 0; --more) {
        static const std::vector<std::string> kParts = odd_names();
        name += (random_() % 2 ? "." : "") + kParts[random_() % kParts.size()];
      }
      if (ties && !list_.empty() && random_() % 4 == 0) {
        size_t first = random_() % list_.size();
        if (list_[first].tied_to >= 0) first = static_cast<size_t>(list_[first].tied_to);
        tie(name, first);
        continue;
      }
      std::vector<int64_t> shape(random_() % 5);
      for (int64_t& size : shape) size = static_cast<int64_t>(random_() % 6);
      add(name, dtypes[random_() % dtypes.size()], shape).is_parameter = random_() % 2 != 0;
    }
  }

  const std::vector<format::TensorToWrite>& list() const { return list_; }
  std::vector<format::TensorToWrite>& list() { return list_; }
  const std::string& content(size_t index) const { return contents_[places_[index]]; }
  std::mt19937& random() { return random_; }

  /// `storage`: the place of its storage among those that are met before.
  nlohmann::ordered_json told(size_t index, size_t storage, bool gradient = false) const {
    std::string hex;
    for (const char byte : content(index)) {
      hex += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
      hex += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15];
    }
    return {{"dtype", name(list_[index].dtype)},
            {"shape", list_[index].shape},
            {"hex", hex},
            {"grad", gradient},
            {"storage", storage}};
  }

 private:
  static format::BytesToWrite in_pieces(const std::string& content) {
    return {content.size(), [&content](const format::ByteSink& sink) {
              std::string piece;  // gone after each call
              for (size_t at = 0; at < content.size(); at += 7) {
                piece = content.substr(at, 7);
                sink(as_bytes(piece));
                piece.assign(piece.size(), '!');
              }
            }};
  }

  std::mt19937 random_;
  std::deque<std::string> contents_;
  std::vector<format::TensorToWrite> list_;
  std::vector<size_t> places_;
};

}  // namespace ckpt::test
