// Pickle streams written opcode by opcode, and archives around them.
#pragma once

#include <string>
#include <vector>

#include "core/format/zip_builder.h"

namespace ckpt::test::pickled {

inline std::string text(const std::string& value) { return "X" + le(value.size(), 4) + value; }
inline std::string integer(int64_t value) { return "\x8a\x08" + le(static_cast<uint64_t>(value), 8); }
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string stream = "(";
  for (const std::string& item : items) stream += item;
  return stream + "t";
}
inline std::string integers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (int64_t value : values) items.push_back(integer(value));
  return tuple(items);
}

/// The parts of a tensor's pickle, each a stream.
struct Tensor {
  std::string id = text("storage");
  std::string type = global("torch", "FloatStorage");
  std::string key = text("0");
  std::string location = text("cpu");
  std::string numel = integer(6);
  std::string offset = integer(0);
  std::string sizes = integers({2, 3});
  std::string strides = integers({3, 1});
  std::string requires_grad = "\x89";
  std::string hooks = global("collections", "OrderedDict") + ")R";
  std::string rebuild = global("torch._utils", "_rebuild_tensor_v2");
  std::string storage = {};  ///< instead of the persistent id
  std::string more = {};     ///< further arguments

  std::string stream() const {
    const std::string persistent = storage.empty() ? tuple({id, type, key, location, numel}) + "Q" : storage;
    return rebuild + tuple({persistent, offset, sizes, strides, requires_grad, hooks, more}) + "R";
  }
};

/// An archive level with these attributes: key, value, key, value, ...
inline std::string module(const std::string& attributes, const std::string& name = "__torch__") {
  return global(name, "Module") + ")\x81}(" + attributes + "ub";
}

inline std::string whole(const std::string& value) { return "\x80\x02" + value + "."; }

/// A file as OutputArchive would write it: this data.pkl, and a storage "0" of 24 bytes.
inline ZipImage archive(const std::string& data_pkl) {
  return {.entries = {zip_entry("a/data/0", std::string(24, '\x01')), zip_entry("a/data.pkl", data_pkl),
                      zip_entry("a/byteorder", "little")}};
}

}  // namespace ckpt::test::pickled
