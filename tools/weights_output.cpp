#include "weights_output.h"

#include <algorithm>
#include <array>

#include "core/base/quote.h"
#include "core/io/file.h"
#include "core/weights/weights.h"

namespace ckpt::tool {
namespace {

constexpr std::array<OutputFormat, 4> kFormats{{{"safetensors", Format::kSafetensors},
                                                {"torch", Format::kTorch},
                                                {"archive", Format::kArchive},
                                                {"checkpoint", Format::kCheckpoint}}};

/// std::nullopt where it is no file of weights.
std::optional<Format> format_at(const std::string& path) {
  try {
    return weights::Weights::open(path).format();
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

const OutputFormat& output_format(const std::optional<std::string>& to, const std::string& out) {
  std::string name = to.value_or("");
  if (!to) {
    for (const char* ending : {".pt", ".pth", ".bin"}) {
      if (out.ends_with(ending)) name = "torch";
    }
    if (out.ends_with(".safetensors")) name = "safetensors";
    if (name.empty()) {
      throw Error(ErrorCode::kUsage, "",
                  "the name " + quote(out) + " does not tell the format (.safetensors, .pt, .pth, .bin): give --to");
    }
  }
  for (const OutputFormat& format : kFormats) {
    if (format.name == name) return format;
  }
  throw Error(ErrorCode::kUsage, "", "--to: expected safetensors, torch, archive or checkpoint, found " + quote(name));
}

void check_output(const std::string& out, const OutputFormat& target, bool force) {
  const auto there = io::stat(out);
  if (!there) {
    if (io::stat(io::parent_path(out))) return;
    throw Error(ErrorCode::kIo, out, "the directory it is to be written to does not exist");
  }
  if (target.format == Format::kCheckpoint) {
    if (there->type != io::FileType::kDirectory) {
      throw Error(ErrorCode::kIo, out, "expected a run (a directory), found a file");
    }
    return;
  }
  if (there->type == io::FileType::kDirectory) throw Error(ErrorCode::kIo, out, "is a directory");
  if (force) return;
  const std::optional<Format> found = format_at(out);
  if (found == target.format) return;
  throw Error(ErrorCode::kInvalid, out,
              "exists and is " + (found ? "of format " + std::string(to_string(*found)) : "no file of weights") +
                  "; --force replaces it");
}

DType parse_floating(const std::string& text) {
  static constexpr std::array kAllowed{DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64};
  const std::optional<DType> dtype = dtype_from_name(text);
  if (dtype && std::find(kAllowed.begin(), kAllowed.end(), *dtype) != kAllowed.end()) return *dtype;
  throw Error(ErrorCode::kUsage, "", "--dtype: expected f16, bf16, f32 or f64, found " + quote(text));
}

}  // namespace ckpt::tool
