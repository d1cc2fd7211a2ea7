// Where weights are written to: the format that --to or the name of OUT says, and what may be replaced there.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ckpt/weights.h"
#include "core/base/dtype.h"

namespace ckpt::tool {

/// What --to can say. `format` is one that files are written in, or kCheckpoint: OUT is a run then.
struct OutputFormat {
  std::string_view name;
  Format format;
};

/// By `to`, else by the ending of `out`. kUsage where neither tells.
const OutputFormat& output_format(const std::optional<std::string>& to, const std::string& out);

/// kInvalid where something stands at `out` that is not of that format, unless `force`; kIo where nothing can be
/// written there.
void check_output(const std::string& out, const OutputFormat& target, bool force);

/// The value of --dtype: f16, bf16, f32, f64 or torch's names of them.
DType parse_floating(const std::string& text);

}  // namespace ckpt::tool
