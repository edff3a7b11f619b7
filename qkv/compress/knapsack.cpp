#include "qkv/compress/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"

namespace qkv {
namespace {

struct Choice {
  uint64_t bytes;
  double cost;
  size_t index;  // among the item's choices as given
};

// Ascending in bytes and strictly descending in cost: what is left out costs as much for no fewer bytes.
std::vector<Choice> undominated(const std::vector<KnapsackChoice>& given) {
  std::vector<Choice> sorted, kept;
  for (size_t i = 0; i < given.size(); ++i) {
    require(std::isfinite(given[i].cost) && given[i].cost >= 0,
            "knapsack: expected costs that are finite and not negative, found {}", given[i].cost);
    sorted.push_back({given[i].bytes, given[i].cost, i});
  }
  std::sort(sorted.begin(), sorted.end(), [](const Choice& a, const Choice& b) {
    if (a.bytes != b.bytes) return a.bytes < b.bytes;
    return a.cost != b.cost ? a.cost < b.cost : a.index < b.index;
  });
  for (const Choice& choice : sorted) {
    if (kept.empty() || choice.cost < kept.back().cost) kept.push_back(choice);
  }
  return kept;
}

// A step along an item's lower convex hull.
struct Edge {
  size_t item, from, to;  // positions in its undominated choices
  uint64_t bytes;
  double saving;  // of cost
  double ratio() const { return saving / static_cast<double>(bytes); }
};

std::vector<Edge> hull_edges(const std::vector<std::vector<Choice>>& items) {
  std::vector<Edge> edges;
  for (size_t item = 0; item < items.size(); ++item) {
    const auto& choices = items[item];
    std::vector<Edge> hull;
    for (size_t to = 1; to < choices.size(); ++to) {
      Edge edge{item, to - 1, to, 0, 0};
      const auto measure = [&] {
        edge.bytes = choices[to].bytes - choices[edge.from].bytes;
        edge.saving = choices[edge.from].cost - choices[to].cost;
      };
      measure();
      while (!hull.empty() && hull.back().ratio() <= edge.ratio()) {
        edge.from = hull.back().from;
        hull.pop_back();
        measure();
      }
      hull.push_back(edge);
    }
    edges.insert(edges.end(), hull.begin(), hull.end());
  }
  // Within an item ratios fall along its hull, so the order keeps its steps in order.
  std::stable_sort(edges.begin(), edges.end(),
                   [](const Edge& a, const Edge& b) { return a.ratio() > b.ratio(); });
  return edges;
}

class Search {
 public:
  Search(std::vector<std::vector<Choice>> items, uint64_t budget)
      : items_(std::move(items)), budget_(budget) {
    relax();
  }

  KnapsackSolution run(size_t most_states) {
    const bool exact = price_ == 0 || enumerate(most_states);
    KnapsackSolution solution;
    solution.price = price_;
    solution.exact = exact;
    for (size_t i = 0; i < items_.size(); ++i) {
      const Choice& choice = items_[i][best_[i]];
      solution.choices.push_back(choice.index);
      solution.bytes += choice.bytes;
      solution.cost += choice.cost;
    }
    solution.bound = exact ? solution.cost : std::min(solution.cost, bound_);
    return solution;
  }

 private:
  struct State {
    uint64_t bytes;
    double cost, reduced;
    uint32_t parent;
    uint32_t choice;
  };

  double reduced(size_t item, const Choice& choice) const {
    return choice.cost + price_ * static_cast<double>(choice.bytes) - least_[item];
  }

  // The price, the bound and a first solution.
  void relax() {
    best_.assign(items_.size(), 0);
    uint64_t bytes = 0;
    for (const auto& choices : items_) bytes += choices.front().bytes;
    require(bytes <= budget_, "knapsack: expected a budget of at least {} bytes, found {}", bytes, budget_);
    for (const Edge& edge : hull_edges(items_)) {
      // Steps behind one that did not fit are not taken either.
      if (best_[edge.item] != edge.from) continue;
      if (edge.bytes > budget_ - bytes) {
        if (price_ == 0) price_ = edge.ratio();
        continue;
      }
      best_[edge.item] = edge.to;
      bytes += edge.bytes;
    }
    least_.assign(items_.size(), 0);
    best_cost_ = 0;
    bound_ = -price_ * static_cast<double>(budget_);
    for (size_t i = 0; i < items_.size(); ++i) {
      least_[i] = std::numeric_limits<double>::infinity();
      for (const Choice& choice : items_[i])
        least_[i] = std::min(least_[i], choice.cost + price_ * static_cast<double>(choice.bytes));
      bound_ += least_[i];
      best_cost_ += items_[i][best_[i]].cost;
    }
  }

  // All that the bound does not exclude. False if there were more than `most_states` of them.
  bool enumerate(size_t most_states) {
    const size_t n = items_.size();
    // Sums in another order differ in their last bits: what lies that close to the gap is looked at.
    const double tolerance = 1e-12 * (std::abs(best_cost_) + price_ * static_cast<double>(budget_));
    std::vector<std::vector<size_t>> open(n);
    for (size_t i = 0; i < n; ++i) {
      for (size_t c = 0; c < items_[i].size(); ++c) {
        if (reduced(i, items_[i][c]) <= best_cost_ - bound_ + tolerance) open[i].push_back(c);
      }
    }
    // Items with the least freedom first, so that lists grow late.
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return open[a].size() < open[b].size(); });
    std::vector<uint64_t> smallest(n + 1, 0);  // of the items from a place in the order on
    for (size_t k = n; k-- > 0;) {
      uint64_t least = std::numeric_limits<uint64_t>::max();
      for (const size_t c : open[order[k]]) least = std::min(least, items_[order[k]][c].bytes);
      if (open[order[k]].empty()) return true;  // nothing is better than what there is
      smallest[k] = smallest[k + 1] + least;
    }

    std::vector<std::vector<State>> levels(n + 1);
    levels[0].push_back({0, 0, 0, 0, 0});
    size_t states = 1;
    for (size_t k = 0; k < n; ++k) {
      stop_if_interrupted();
      std::vector<State> next;
      for (size_t s = 0; s < levels[k].size(); ++s) {
        const State& state = levels[k][s];
        for (const size_t c : open[order[k]]) {
          const Choice& choice = items_[order[k]][c];
          const double so_far = state.reduced + reduced(order[k], choice);
          const uint64_t bytes = state.bytes + choice.bytes;
          if (so_far > best_cost_ - bound_ + tolerance || bytes + smallest[k + 1] > budget_) continue;
          next.push_back(
              {bytes, state.cost + choice.cost, so_far, static_cast<uint32_t>(s), static_cast<uint32_t>(c)});
        }
      }
      std::sort(next.begin(), next.end(), [](const State& a, const State& b) {
        if (a.bytes != b.bytes) return a.bytes < b.bytes;
        if (a.cost != b.cost) return a.cost < b.cost;
        return a.parent != b.parent ? a.parent < b.parent : a.choice < b.choice;
      });
      auto& kept = levels[k + 1];
      for (const State& state : next) {
        if (kept.empty() || state.cost < kept.back().cost) kept.push_back(state);
      }
      states += kept.size();
      if (states > most_states) return false;
      if (kept.empty()) return true;
    }
    // The last of a list costs least.
    if (levels[n].back().cost >= best_cost_) return true;
    size_t s = levels[n].size() - 1;
    for (size_t k = n; k-- > 0;) {
      best_[order[k]] = levels[k + 1][s].choice;
      s = levels[k + 1][s].parent;
    }
    return true;
  }

  std::vector<std::vector<Choice>> items_;
  uint64_t budget_;
  double price_ = 0, bound_ = 0, best_cost_ = 0;
  std::vector<double> least_;  // of cost + price x bytes, by item
  std::vector<size_t> best_;   // positions in the undominated choices
};

}  // namespace

KnapsackSolution solve_knapsack(const std::vector<std::vector<KnapsackChoice>>& given, uint64_t budget,
                                size_t most_states) {
  std::vector<std::vector<Choice>> items;
  for (const auto& choices : given) {
    require(!choices.empty(), "knapsack: expected at least one choice for item {}, found none", items.size());
    items.push_back(undominated(choices));
  }
  return Search(std::move(items), budget).run(most_states);
}

}  // namespace qkv
