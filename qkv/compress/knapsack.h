// The multiple-choice knapsack: of every item one choice, the sum of sizes within a budget, the sum of costs
// least (Sinha & Zoltners, "The multiple-choice knapsack problem", Operations Research 27, 1979). Items are
// tensors, choices their types.
//
// Solved exactly. The linear relaxation gives a price per byte and with it a bound from below, a rounding of
// it a solution from above. A choice whose reduced cost (cost + price x bytes, less the item's best) exceeds
// the gap between the two cannot be in a better solution; what remains goes through a dynamic program over
// lists of undominated (bytes, cost) pairs, cut off by the same bound (Nemhauser & Ullmann 1969; Dyer, Kayal
// & Walker 1984).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qkv {

struct KnapsackChoice {
  uint64_t bytes = 0;
  double cost = 0;  // finite, not negative
};

struct KnapsackSolution {
  std::vector<size_t> choices;  // of every item
  uint64_t bytes = 0;
  double cost = 0;
  double bound = 0;   // no solution costs less
  double price = 0;   // what a byte more would save, by the linear relaxation; 0: nothing
  bool exact = true;  // false: `most_states` stopped the search; the true optimum lies between bound and cost
};

// Error if an item has no choice or not even the smallest fit the budget. The same input gives the same
// choices.
KnapsackSolution solve_knapsack(const std::vector<std::vector<KnapsackChoice>>& items, uint64_t budget,
                                size_t most_states = size_t{1} << 24);

}  // namespace qkv
