#include "core/base/name_order.h"

#include <algorithm>
#include <tuple>

namespace ckpt {
namespace {

constexpr size_t kChunk = 8;

unsigned char folded(char c) { return static_cast<unsigned char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); }

struct Entry {
  uint64_t chunk = 0;  // of the name, the first byte highest; zeros behind its end
  uint32_t bytes = 0;  // of the name that are in it
  uint32_t place = 0;
};

/// Entries up to `end`, sorted by the chunk at `depth`; those before `next` are in order altogether.
struct Run {
  uint32_t next, end;
  size_t depth;
};

void take_chunk(Entry& entry, std::string_view name, size_t depth, LetterCase letter_case) {
  name.remove_prefix(depth);
  entry.bytes = static_cast<uint32_t>(std::min(name.size(), kChunk));
  entry.chunk = 0;
  for (size_t i = 0; i < entry.bytes; ++i) {
    const auto byte = letter_case == LetterCase::kFolded ? folded(name[i]) : static_cast<unsigned char>(name[i]);
    entry.chunk |= uint64_t{byte} << (8 * (kChunk - 1 - i));
  }
}

bool before(const Entry& a, const Entry& b) {
  return std::tie(a.chunk, a.bytes, a.place) < std::tie(b.chunk, b.bytes, b.place);
}

}  // namespace

std::vector<uint32_t> order_by_name(size_t count, const std::function<std::string_view(size_t)>& name,
                                    LetterCase letter_case) {
  std::vector<Entry> entries(count);
  for (uint32_t i = 0; i < count; ++i) entries[i].place = i;
  std::vector<Run> runs;  // the innermost last; the longest name says how many there may be
  const auto begin_run = [&](uint32_t first, uint32_t last, size_t depth) {
    const auto begin = entries.begin() + first, end = entries.begin() + last;
    for (auto entry = begin; entry != end; ++entry) take_chunk(*entry, name(entry->place), depth, letter_case);
    if (!std::is_sorted(begin, end, before)) std::sort(begin, end, before);
    runs.push_back({first, last, depth});
  };
  begin_run(0, static_cast<uint32_t>(count), 0);
  while (!runs.empty()) {
    Run& run = runs.back();
    if (run.next == run.end) {
      runs.pop_back();
      continue;
    }
    const uint32_t first = run.next;
    const Entry& entry = entries[first];
    while (run.next < run.end && entries[run.next].chunk == entry.chunk && entries[run.next].bytes == entry.bytes) {
      ++run.next;
    }
    if (run.next - first > 1 && entry.bytes == kChunk) begin_run(first, run.next, run.depth + kChunk);
  }
  std::vector<uint32_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = entries[i].place;
  return order;
}

bool less_folded(std::string_view a, std::string_view b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [](char x, char y) { return folded(x) < folded(y); });
}

}  // namespace ckpt
