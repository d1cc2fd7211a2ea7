// Names of an archive's members: LibTorch's trouble with some, and the way from a tree to dotted names.
#include <algorithm>
#include <array>

#include "core/format/archive.h"

namespace ckpt::format {
namespace {

// Sorted. Python's keywords, and what LibTorch reads as a declaration of its own: with a member `__annotations__` or
// `__parameters__` it loses it, throws or crashes.
constexpr std::array<std::string_view, 41> kReserved = {"False",
                                                        "None",
                                                        "NoneType",
                                                        "True",
                                                        "__annotations__",
                                                        "__buffers__",
                                                        "__forward_hooks__",
                                                        "__forward_pre_hooks__",
                                                        "__parameters__",
                                                        "and",
                                                        "as",
                                                        "assert",
                                                        "async",
                                                        "await",
                                                        "break",
                                                        "class",
                                                        "continue",
                                                        "def",
                                                        "del",
                                                        "elif",
                                                        "else",
                                                        "except",
                                                        "finally",
                                                        "for",
                                                        "from",
                                                        "global",
                                                        "if",
                                                        "import",
                                                        "in",
                                                        "is",
                                                        "lambda",
                                                        "nonlocal",
                                                        "not",
                                                        "or",
                                                        "pass",
                                                        "raise",
                                                        "return",
                                                        "try",
                                                        "while",
                                                        "with",
                                                        "yield"};

bool must_escape(char c) {
  const auto code = static_cast<unsigned char>(c);
  return code < 0x20 || code == 0x7f || c == '"' || c == '\\' || c == '%';
}

constexpr std::string_view kDigits = "0123456789ABCDEF";

void append_code(std::string& to, char c) {
  const auto code = static_cast<unsigned char>(c);
  to += '%';
  to += kDigits[code >> 4];
  to += kDigits[code & 15];
}

/// `full`: the names of the levels above; one for all levels, since each of a thousand would have all before it.
void collect(const Archive& archive, std::string& full, bool escaped, std::vector<NamedTensor>& into) {
  const size_t above = full.size();
  for (const auto& [name, value] : archive.members) {
    full += escaped ? unescape_name(name) : name;
    if (const auto* tensor = std::get_if<StoredTensor>(&value)) {
      into.push_back({full, *tensor});
    } else if (const auto* list = std::get_if<std::vector<StoredTensor>>(&value)) {
      for (size_t i = 0; i < list->size(); ++i) into.push_back({full + "." + std::to_string(i), (*list)[i]});
    } else if (const auto* nested = std::get_if<std::shared_ptr<const Archive>>(&value)) {
      full += '.';
      collect(**nested, full, escaped, into);
    }
    full.resize(above);
  }
}

}  // namespace

std::string escape_name(std::string_view name) {
  std::string escaped;
  escaped.reserve(name.size());
  const bool reserved = std::binary_search(kReserved.begin(), kReserved.end(), name);
  for (size_t i = 0; i < name.size(); ++i) {
    if (must_escape(name[i]) || (reserved && i == 0))
      append_code(escaped, name[i]);
    else
      escaped += name[i];
  }
  return escaped;
}

std::string unescape_name(std::string_view name) {
  std::string plain;
  plain.reserve(name.size());
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '%' && name.size() - i > 2) {
      const size_t high = kDigits.find(name[i + 1]), low = kDigits.find(name[i + 2]);
      if (high != std::string_view::npos && low != std::string_view::npos) {
        plain += static_cast<char>(high << 4 | low);
        i += 2;
        continue;
      }
    }
    plain += name[i];
  }
  return plain;
}

std::vector<NamedTensor> tensors_of(const Archive& archive, bool escaped) {
  std::vector<NamedTensor> tensors;
  std::string name;
  collect(archive, name, escaped, tensors);  // ArchiveFile::open bounds the depth, and what sharing can multiply
  return tensors;
}

}  // namespace ckpt::format
