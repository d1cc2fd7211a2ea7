#include "core/base/name_order.h"

#include <algorithm>
#include <cstddef>

namespace ckpt {
namespace {

constexpr size_t kChunk = 4;

unsigned char folded(char c) { return static_cast<unsigned char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); }

struct Entry {
  uint32_t chunk = 0;  // of the name, the first byte highest; zeros behind its end
  uint32_t place = 0;
};

/// Entries up to `end`, sorted by the chunk at `depth`; those before `next` are in order altogether.
struct Run {
  size_t next, end, depth;
};

uint32_t chunk_of(std::string_view name, size_t depth, LetterCase letter_case) {
  name.remove_prefix(depth);
  uint32_t chunk = 0;
  for (size_t i = 0; i < kChunk; ++i) {
    const char c = i < name.size() ? name[i] : '\0';
    chunk = chunk << 8 | (letter_case == LetterCase::kFolded ? folded(c) : static_cast<unsigned char>(c));
  }
  return chunk;
}

bool before(const Entry& a, const Entry& b) { return a.chunk != b.chunk ? a.chunk < b.chunk : a.place < b.place; }

}  // namespace

std::vector<uint32_t> order_by_name(size_t count, const std::function<std::string_view(size_t)>& name,
                                    LetterCase letter_case) {
  std::vector<Entry> entries(count);
  for (size_t i = 0; i < count; ++i) entries[i].place = static_cast<uint32_t>(i);
  const auto at = [&](size_t i) { return entries.begin() + static_cast<ptrdiff_t>(i); };
  std::vector<Run> runs;  // the innermost last; the longest name says how many there may be
  const auto begin_run = [&](size_t first, size_t last, size_t depth) {
    for (auto entry = at(first); entry != at(last); ++entry) {
      entry->chunk = chunk_of(name(entry->place), depth, letter_case);
    }
    if (!std::is_sorted(at(first), at(last), before)) std::sort(at(first), at(last), before);
    runs.push_back({first, last, depth});
  };
  begin_run(0, count, 0);
  while (!runs.empty()) {
    Run& run = runs.back();
    if (run.next == run.end) {
      runs.pop_back();
      continue;
    }
    const size_t first = run.next, depth = run.depth + kChunk;
    while (run.next < run.end && entries[run.next].chunk == entries[first].chunk) ++run.next;
    const size_t last = run.next;
    if (last - first == 1) continue;
    // Those that end here come before those that go on, the shorter first: they differ by zeros at their ends.
    const auto rest =
        std::partition(at(first), at(last), [&](const Entry& e) { return name(e.place).size() <= depth; });
    std::sort(at(first), rest, [&](const Entry& a, const Entry& b) {
      const size_t size_a = name(a.place).size(), size_b = name(b.place).size();
      return size_a != size_b ? size_a < size_b : a.place < b.place;
    });
    if (rest != at(last)) begin_run(static_cast<size_t>(rest - entries.begin()), last, depth);
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
