#include "qkv/core/rng.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace qkv {
namespace {

TEST(Rng, MatchesThePublishedPhiloxVectors) {
  // Known-answer tests of Random123 (kat_vectors, philox4x32 10 rounds).
  EXPECT_EQ(philox4x32(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32(~0ull, ~0ull, ~0ull), (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Rng, PositionIsTheWholeState) {
  Rng a(7, 3);
  for (int i = 0; i < 13; ++i) a.next_u32();
  Rng b(7, 3);
  b.set_position(a.position());
  for (int i = 0; i < 9; ++i) EXPECT_EQ(a.next_u64(), b.next_u64());
}

TEST(Rng, StreamsDiffer) {
  Rng root(1);
  EXPECT_NE(root.split(1).next_u64(), root.split(2).next_u64());
  EXPECT_NE(root.split(1).split(2).next_u64(), root.split(2).split(1).next_u64());
}

TEST(Rng, BelowIsInRangeAndEven) {
  Rng rng(5);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts[rng.below(7)];
  for (int count : counts) EXPECT_NEAR(count, 10000, 500);
}

TEST(Rng, NormalHasUnitVariance) {
  Rng rng(11);
  double sum = 0, squares = 0;
  constexpr int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0, 0.02);
  EXPECT_NEAR(squares / n, 1, 0.02);
}

TEST(Rng, ShuffleIsAPermutation) {
  std::vector<int> items(100);
  std::iota(items.begin(), items.end(), 0);
  Rng rng(2);
  shuffle(items, rng);
  EXPECT_FALSE(std::is_sorted(items.begin(), items.end()));
  std::sort(items.begin(), items.end());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(items[i], i);
}

}  // namespace
}  // namespace qkv
