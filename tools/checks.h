// What is in a file, by its content, and whether it is whole.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/content.h"
#include "core/io/file.h"
#include "core/run/run.h"

namespace ckpt::tool {

using format::Content;
using format::content_of;

struct FileCheck {
  std::vector<run::Problem> problems;
  std::vector<std::string> warnings;
  std::vector<std::string> foreign = {};  ///< globals that a pickle names and that are not understood
  std::string what;                       ///< "archive", "safetensors file", ...
};

/// Reads every byte of one file. Where it lies in a checkpoint, the manifest there is used too. kUnsupported for a
/// content that has nothing to check.
FileCheck check_file(const std::string& path);

/// run::verify of one checkpoint of a run that others may be writing to. std::nullopt where it vanished meanwhile.
std::optional<std::vector<run::Problem>> check_step(const io::Directory& run, std::string_view name);

/// "state.pt, record data/3, tensor "model.weight", byte 4096: wrong CRC-32", safe to print.
std::string describe(const run::Problem& problem);

}  // namespace ckpt::tool
