// Very many names in order, with little time and memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace ckpt {

enum class LetterCase { kKept, kFolded };  ///< folded: A to Z count as a to z

/// What order_by_name() takes for each name, at most.
inline constexpr uint64_t kNameOrderBytes = 12;

/// The places 0 to count - 1 in the order of the names there, byte by byte; equal ones in the order of their places.
/// Names are looked at four bytes at a time: those of a model begin alike, and lie anywhere in memory.
std::vector<uint32_t> order_by_name(size_t count, const std::function<std::string_view(size_t)>& name,
                                    LetterCase letter_case = LetterCase::kKept);

/// Whether `a` comes before `b` in that order.
bool less_folded(std::string_view a, std::string_view b);

}  // namespace ckpt
