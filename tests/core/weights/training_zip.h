// A small zip of torch around a pickle, with storages that training states can have: "0" of six floats 1, 2, ..., 6, "1"
// of one float 3 (a step), "2" of one 64-bit integer 7.
#pragma once

#include <string>
#include <string_view>

#include "core/format/zip_builder.h"

namespace ckpt::test {

inline std::string training_zip(std::string_view pickle) {
  const auto floats = [](std::initializer_list<float> values) {
    return std::string(reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(float));
  };
  return ZipImage{.entries = {zip_entry("a/data/0", floats({1, 2, 3, 4, 5, 6})),
                                    zip_entry("a/data/1", floats({3})), zip_entry("a/data/2", le(7, 8)),
                                    zip_entry("a/data.pkl", std::string(pickle)), zip_entry("a/byteorder", "little")}}
      .bytes();
}

}  // namespace ckpt::test
