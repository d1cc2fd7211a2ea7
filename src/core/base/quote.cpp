#include "core/base/quote.h"

#include <cstdint>

namespace ckpt {
namespace {

struct Decoded {
  size_t bytes = 0;  // 0: no well-formed character begins here
  uint32_t code = 0;
};

// The character that begins at text[at], by table 3-7 of the Unicode standard.
Decoded decode(std::string_view text, size_t at) {
  auto byte = [&](size_t i) -> uint32_t { return static_cast<unsigned char>(text[i]); };
  const uint32_t lead = byte(at);
  if (lead < 0x80) return {1, lead};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() - at < bytes) return {};
  uint32_t code = lead & (0xFFu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  const bool overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (overlong || surrogate || code > 0x10FFFF) return {};
  return {bytes, code};
}

// Characters that move the cursor, end the line or turn the direction of the text around.
bool is_unprintable(uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x200E || code == 0x200F ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF;
}

void append_escaped(std::string& out, std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
}

}  // namespace

std::string quote(std::string_view name, size_t limit) {
  std::string out = "\"";
  size_t at = 0;
  while (at < name.size()) {
    const Decoded character = decode(name, at);
    const size_t bytes = character.bytes == 0 ? 1 : character.bytes;
    if (at + bytes > limit) return out + "\"...";
    const std::string_view raw = name.substr(at, bytes);
    if (character.bytes == 0 || is_unprintable(character.code)) {
      append_escaped(out, raw);
    } else {
      if (raw == "\"" || raw == "\\") out += '\\';
      out += raw;
    }
    at += bytes;
  }
  return out + '"';
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = decode(text, at).bytes;
    if (bytes == 0) return false;
    at += bytes;
  }
  return true;
}

}  // namespace ckpt
