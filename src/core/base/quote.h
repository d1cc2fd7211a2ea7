// Names that come from a file, made safe to print on one line of a terminal.
#pragma once

#include <string>
#include <string_view>

namespace ckpt {

/// In double quotes; control bytes, quotes, backslashes and bytes that are not UTF-8 escaped (\n, \x1b, ...); at most
/// `limit` bytes of the name, then "...".
std::string quote(std::string_view name, size_t limit = 200);

/// Whether `text` is well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

}  // namespace ckpt
