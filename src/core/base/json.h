// JSON as ckpt writes it: strict, NaN and infinities as the strings "NaN", "Infinity", "-Infinity".
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace ckpt {

/// A number, or one of the three strings.
nlohmann::json json_number(double value);

/// The reverse; std::nullopt where `value` is neither a number nor one of the three strings.
std::optional<double> number_from_json(const nlohmann::json& value);

/// Parses strictly: duplicate keys, bytes after the value and nesting beyond 1,000 are refused. Throws kCorrupt with
/// `path` and the byte offset.
nlohmann::json parse_json(std::string_view text, const std::string& path);

/// Compact, keys sorted, bytes that are not UTF-8 replaced by U+FFFD.
std::string dump_json(const nlohmann::json& value);

}  // namespace ckpt
