// safetensors files written part by part, so that any of them can be made to lie.
#pragma once

#include <string>

#include "core/format/zip_builder.h"

namespace ckpt::test {

inline std::string safetensors(const std::string& header, const std::string& data) {
  return le(header.size(), 8) + header + data;
}

/// Two tensors, the later one in the header first in the data, and metadata.
inline std::string good_safetensors() {
  return safetensors(
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      "01234567xyz");
}

}  // namespace ckpt::test
