#include "core/base/epoch_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

namespace ckpt {
namespace {

TEST(EpochOrder, IsTheSameForGood) {
  // Written down from a run of the algorithm in Python: a change here breaks the resumption of every run.
  EXPECT_EQ(epoch_order(10, 0, 0), (std::vector<size_t>{7, 4, 2, 9, 0, 1, 6, 3, 8, 5}));
  EXPECT_EQ(epoch_order(10, 42, 7), (std::vector<size_t>{4, 6, 5, 1, 3, 7, 9, 2, 8, 0}));
}

TEST(EpochOrder, IsAPermutation) {
  for (size_t size : {0, 1, 2, 3, 1000}) {
    std::vector<size_t> order = epoch_order(size, 5, 6);
    std::sort(order.begin(), order.end());
    std::vector<size_t> all(size);
    std::iota(all.begin(), all.end(), size_t{0});
    EXPECT_EQ(order, all);
  }
}

TEST(EpochOrder, DependsOnSeedAndEpoch) {
  EXPECT_NE(epoch_order(100, 1, 0), epoch_order(100, 2, 0));
  EXPECT_NE(epoch_order(100, 1, 0), epoch_order(100, 1, 1));
  EXPECT_NE(epoch_order(100, 1, 2), epoch_order(100, 2, 1));
}

TEST(EpochOrder, FavoursNoPermutation) {
  std::map<std::vector<size_t>, int> seen;
  for (uint64_t epoch = 0; epoch < 24000; ++epoch) ++seen[epoch_order(4, 9, epoch)];
  ASSERT_EQ(seen.size(), 24u);
  double chi_squared = 0;
  for (const auto& [order, count] : seen) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_squared, 49.7);  // 23 degrees of freedom: exceeded once in 1,000 for a fair shuffle
}

}  // namespace
}  // namespace ckpt
