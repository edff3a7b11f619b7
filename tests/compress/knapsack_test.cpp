// The knapsack against every combination there is.
#include "qkv/compress/knapsack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"

namespace qkv::test {
namespace {

using Items = std::vector<std::vector<KnapsackChoice>>;

struct Least {
  double cost = std::numeric_limits<double>::infinity();
};

void try_all(const Items& items, size_t item, uint64_t bytes, double cost, uint64_t budget, Least& least) {
  if (bytes > budget) return;
  if (item == items.size()) {
    least.cost = std::min(least.cost, cost);
    return;
  }
  for (const auto& choice : items[item])
    try_all(items, item + 1, bytes + choice.bytes, cost + choice.cost, budget, least);
}

Items random_items(Rng& rng, size_t count, size_t choices, bool equal_items) {
  Items items;
  for (size_t i = 0; i < count; ++i) {
    std::vector<KnapsackChoice> item;
    const uint64_t unit = 1 + rng.below(equal_items ? 1 : 40);
    for (size_t c = 0; c < choices; ++c) {
      // Dominated choices and equal ones are among them.
      const uint64_t bytes = unit * (1 + rng.below(12));
      item.push_back({bytes, std::floor(100 * rng.uniform_double()) / static_cast<double>(bytes)});
    }
    items.push_back(item);
  }
  return items;
}

TEST(Knapsack, EqualsTryingEverything) {
  Rng rng(11);
  for (int round = 0; round < 400; ++round) {
    const Items items = random_items(rng, 1 + rng.below(6), 1 + rng.below(6), round % 3 == 0);
    uint64_t smallest = 0, largest = 0;
    for (const auto& item : items) {
      uint64_t least = UINT64_MAX, most = 0;
      for (const auto& choice : item) {
        least = std::min(least, choice.bytes);
        most = std::max(most, choice.bytes);
      }
      smallest += least;
      largest += most;
    }
    for (int b = 0; b < 6; ++b) {
      const uint64_t budget = smallest + rng.below(largest - smallest + 2);
      Least least;
      try_all(items, 0, 0, 0, budget, least);
      const KnapsackSolution found = solve_knapsack(items, budget);
      EXPECT_TRUE(found.exact);
      // Sums of at most six numbers below 100, in another order.
      EXPECT_NEAR(found.cost, least.cost, 1e-12 * (1 + least.cost)) << "round " << round;
      EXPECT_LE(found.bytes, budget);
      uint64_t bytes = 0;
      double cost = 0;
      for (size_t i = 0; i < items.size(); ++i) {
        bytes += items[i].at(found.choices[i]).bytes;
        cost += items[i].at(found.choices[i]).cost;
      }
      EXPECT_EQ(bytes, found.bytes);
      EXPECT_NEAR(cost, found.cost, 1e-12 * (1 + cost));
    }
  }
}

// A model's shape: 225 tensors, 14 types each whose costs fall by four for every bit.
Items model_items(uint64_t seed) {
  Rng rng(seed);
  const double bits[] = {2.0625, 2.3125, 2.5625, 2.625,  3.0625, 3.4375, 3.4375,
                         4.25,   4.5,    5.5,    6.5625, 8.5,    16};
  Items items;
  for (int i = 0; i < 225; ++i) {
    const uint64_t blocks = i == 0 ? 32001 * 16 : 65536 * (1 + rng.below(3));
    const double scale = std::exp(2.0 * static_cast<double>(rng.normal()));
    std::vector<KnapsackChoice> item;
    for (const double b : bits) {
      const auto bytes = static_cast<uint64_t>(b * 32 * static_cast<double>(blocks));
      item.push_back({bytes, scale * std::pow(0.25, b) * (0.8 + 0.4 * rng.uniform_double())});
    }
    items.push_back(item);
  }
  return items;
}

TEST(Knapsack, SizeOfAModelIsExactMonotoneAndTheSameEveryTime) {
  const Items items = model_items(3);
  uint64_t weights = 0;
  for (const auto& item : items) weights += item.back().bytes / 2;
  double before = std::numeric_limits<double>::infinity();
  for (const double bits : {2.2, 3.0, 4.0, 4.25, 4.85, 6.0, 9.0, 17.0}) {
    const auto budget = static_cast<uint64_t>(bits / 8 * static_cast<double>(weights));
    const KnapsackSolution found = solve_knapsack(items, budget);
    EXPECT_TRUE(found.exact) << bits;
    EXPECT_LE(found.bytes, budget);
    EXPECT_LE(found.cost, before);
    before = found.cost;
    EXPECT_EQ(found.choices, solve_knapsack(items, budget).choices);
  }
}

TEST(Knapsack, StoppedSearchSaysWhatItProved) {
  const Items items = model_items(5);
  uint64_t weights = 0;
  for (const auto& item : items) weights += item.back().bytes / 2;
  const auto budget = static_cast<uint64_t>(4.25 / 8 * static_cast<double>(weights));
  const KnapsackSolution whole = solve_knapsack(items, budget), stopped = solve_knapsack(items, budget, 10);
  EXPECT_FALSE(stopped.exact);
  EXPECT_LE(stopped.bytes, budget);
  EXPECT_LE(stopped.bound, whole.cost);
  EXPECT_GE(stopped.cost, whole.cost);
  // The relaxation is off by at most one step of one tensor of 225.
  EXPECT_LT(stopped.cost - stopped.bound, 0.02 * stopped.cost);
}

TEST(Knapsack, RefusesWhatCannotBe) {
  EXPECT_THROW(solve_knapsack({{{10, 1}}, {{10, 1}}}, 19), Error);
  EXPECT_EQ(solve_knapsack({{{10, 1}}, {{10, 1}}}, 20).bytes, 20U);
  EXPECT_THROW(solve_knapsack({{}}, 19), Error);
  EXPECT_THROW(solve_knapsack({{{1, std::nan("")}}}, 19), Error);
}

}  // namespace
}  // namespace qkv::test
