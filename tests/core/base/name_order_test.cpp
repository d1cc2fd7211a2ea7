#include "core/base/name_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>

namespace ckpt {
namespace {

std::vector<uint32_t> order_of(const std::vector<std::string>& names, LetterCase letter_case = LetterCase::kKept) {
  return order_by_name(
      names.size(), [&](size_t i) -> std::string_view { return names[i]; }, letter_case);
}

template <class Less>
std::vector<uint32_t> stably_sorted(const std::vector<std::string>& names, Less less) {
  std::vector<uint32_t> order(names.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return less(names[a], names[b]); });
  return order;
}

/// Names of few letters, so that many begin alike or are the same; NUL and bytes above 127 among them.
std::vector<std::string> random_names(uint32_t seed) {
  std::mt19937 random(seed);
  const std::string letters("aAbB.\0\xff", 7);
  std::vector<std::string> names(500);
  for (std::string& name : names) {
    name.assign(random() % 3 * 8, 'p');
    for (size_t left = random() % 12; left > 0; --left) name += letters[random() % letters.size()];
  }
  return names;
}

TEST(NameOrderTest, IsThatOfTheBytes) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<std::string> names = random_names(seed);
    EXPECT_EQ(order_of(names), stably_sorted(names, std::less<std::string>())) << seed;
  }
}

TEST(NameOrderTest, FoldsCase) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<std::string> names = random_names(seed);
    EXPECT_EQ(order_of(names, LetterCase::kFolded), stably_sorted(names, less_folded)) << seed;
  }
  EXPECT_EQ(order_of({"b", "A", "a"}, LetterCase::kFolded), (std::vector<uint32_t>{1, 2, 0}));
}

TEST(NameOrderTest, TakesNoNamesAndLongOnes) {
  EXPECT_TRUE(order_of({}).empty());
  std::vector<std::string> names;
  for (size_t length = 3000; length > 0; --length) names.emplace_back(length, 'x');
  std::vector<uint32_t> expected(names.size());
  std::iota(expected.rbegin(), expected.rend(), 0u);
  EXPECT_EQ(order_of(names), expected);
}

}  // namespace
}  // namespace ckpt
