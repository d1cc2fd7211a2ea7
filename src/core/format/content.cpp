#include "core/format/content.h"

#include <algorithm>
#include <array>
#include <string>

namespace ckpt::format {
namespace {

constexpr uint64_t kZipEndBytes = 22;  // the end record, without a comment

std::string text_at(const io::File& file, uint64_t size, uint64_t offset, uint64_t most) {
  if (offset >= size) return "";
  return std::string(as_text(file.read_at(offset, std::min(most, size - offset))));
}

/// A JSON object, by which of two keys comes first: a manifest's are sorted, so that "check" begins it, and the weights
/// of an index come after a few lines of metadata.
Content content_of_json(const io::File& file, uint64_t size) {
  const std::string head = text_at(file, size, 0, 65536);
  const size_t weights = head.find("\"weight_map\"");
  const size_t check = head.substr(0, 4096).find("\"check\"");
  if (weights == check) return Content::kUnknown;  // neither
  return weights < check ? Content::kSafetensorsIndex : Content::kManifest;
}

}  // namespace

Content content_of(const io::File& file) {
  const uint64_t size = file.stat().bytes;
  if (size == 0) return Content::kEmpty;
  const std::string head = text_at(file, size, 0, 256);
  if (head.starts_with("PK\x03\x04") || std::string_view("PK\x03\x04").starts_with(head)) return Content::kZip;
  if (head.size() > 8) {
    const auto header_bytes = load_le<uint64_t>(as_bytes(head).data());
    const size_t first = head.find_first_not_of(' ', 8);
    if (header_bytes <= 100'000'000 && first != std::string::npos && head[first] == '{') return Content::kSafetensors;
  }
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && head[first] == '{') {
    const Content content = content_of_json(file, size);
    if (content != Content::kUnknown) return content;
  }
  if (head[0] == '\x80' && head.size() > 1 && head[1] >= 2 && head[1] <= 5) return Content::kPickle;
  if (size >= kZipEndBytes && text_at(file, size, size - kZipEndBytes, 4) == "PK\x05\x06") return Content::kZip;
  return Content::kUnknown;
}

bool claims_weights(std::string_view path) {
  static constexpr std::array<std::string_view, 5> kEndings{".pt", ".pth", ".ckpt", ".bin", ".safetensors"};
  return std::any_of(kEndings.begin(), kEndings.end(), [&](std::string_view end) { return path.ends_with(end); });
}

}  // namespace ckpt::format
