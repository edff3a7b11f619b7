#include "qkv/compress/allocate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/progress.h"

namespace qkv {

Allocator::Allocator(const QuantizePlan& plan, std::vector<TensorCosts> costs)
    : plan_(plan), costs_(std::move(costs)), fixed_bytes_(gguf_bytes(plan)) {
  // The tensors that are chosen for lie in the plan in some type, padded as theirs are.
  for (const TensorCosts& tensor : costs_) {
    const QuantizedTensor& planned = plan.tensors.at(tensor.tensor);
    require(!tensor.types.empty(), "allocate: expected a type for tensor '{}', found none", planned.name);
    fixed_bytes_ -= padded_bytes(plan, planned.to, planned.shape);
  }
}

uint64_t Allocator::smallest_file() const {
  uint64_t bytes = fixed_bytes_;
  for (const TensorCosts& tensor : costs_) bytes += tensor.types.front().bytes;
  return bytes;
}

uint64_t Allocator::largest_file() const {
  uint64_t bytes = fixed_bytes_;
  for (const TensorCosts& tensor : costs_) bytes += tensor.types.back().bytes;
  return bytes;
}

Allocation Allocator::within(uint64_t file_bytes) const {
  require(
      file_bytes >= smallest_file(),
      "expected a size of at least {} bytes ({}), the smallest that the types to choose from allow, found {}",
      smallest_file(), format_bytes(smallest_file()), file_bytes);
  std::vector<std::vector<KnapsackChoice>> items;
  for (const TensorCosts& tensor : costs_) {
    auto& choices = items.emplace_back();
    for (const TypeCost& type : tensor.types) choices.push_back({type.bytes, type.cost});
  }
  KnapsackSolution solution = solve_knapsack(items, file_bytes - fixed_bytes_);
  return {std::move(solution.choices),
          fixed_bytes_ + solution.bytes,
          solution.cost,
          solution.bound,
          solution.price,
          solution.exact};
}

Allocation Allocator::of_types(const std::vector<DType>& types) const {
  Allocation allocation;
  allocation.file_bytes = fixed_bytes_;
  for (const TensorCosts& tensor : costs_) {
    const auto found = std::find_if(tensor.types.begin(), tensor.types.end(), [&](const TypeCost& type) {
      return type.type == types.at(tensor.tensor);
    });
    require(found != tensor.types.end(), "allocate: tensor '{}': expected a type with known costs, found {}",
            plan_.tensors[tensor.tensor].name, name(types.at(tensor.tensor)));
    allocation.choices.push_back(static_cast<size_t>(found - tensor.types.begin()));
    allocation.file_bytes += found->bytes;
    allocation.predicted += found->cost;
  }
  allocation.exact = false;
  return allocation;
}

std::vector<Allocation> Allocator::curve(size_t count) const {
  std::vector<Allocation> points;
  const auto smallest = static_cast<double>(smallest_file()), largest = static_cast<double>(largest_file());
  for (size_t i = 0; i < count; ++i) {
    const double part = count > 1 ? static_cast<double>(i) / static_cast<double>(count - 1) : 0;
    const auto bytes = static_cast<uint64_t>(smallest * std::pow(largest / smallest, part) + 0.5);
    Allocation point = within(std::clamp(bytes, smallest_file(), largest_file()));
    if (points.empty() || point.file_bytes > points.back().file_bytes) points.push_back(std::move(point));
  }
  return points;
}

std::vector<DType> Allocator::types(const Allocation& allocation) const {
  std::vector<DType> types;
  for (const QuantizedTensor& tensor : plan_.tensors) types.push_back(tensor.to);
  for (size_t i = 0; i < costs_.size(); ++i)
    types[costs_[i].tensor] = costs_[i].types[allocation.choices.at(i)].type;
  return types;
}

Allocation smallest_within(const Allocator& allocator, const DivergenceSearch& search,
                           const std::function<double(const Allocation& allocation)>& measure) {
  require(search.limit > 0, "expected a KL divergence above 0, found {}", search.limit);
  uint64_t below = allocator.smallest_file(), above = allocator.largest_file();  // fails or unknown; passes
  std::optional<Allocation> best;
  // Predictions, and what they are to be multiplied by: measured over predicted, where it was measured last.
  double factor = 1;
  size_t measured = 0;
  const auto try_size = [&](uint64_t bytes) {
    Allocation tried = allocator.within(bytes);
    const double divergence = measure(tried);
    ++measured;
    if (tried.predicted > 0 && divergence > 0) factor = divergence / tried.predicted;
    const bool passes = divergence <= search.limit;
    if (passes) {
      above = tried.file_bytes;
      best = std::move(tried);
    } else {
      below = std::max(below, bytes);
    }
    return passes;
  };
  // The smallest size that should pass by the prediction as it is corrected by now, between the two ends.
  const auto expected = [&] {
    uint64_t low = below, high = above;
    while (high - low > std::max<uint64_t>(1, above / 2000)) {
      const uint64_t middle = low + (high - low) / 2;
      (factor * allocator.within(middle).predicted <= search.limit ? high : low) = middle;
    }
    return high;
  };
  if (try_size(below)) return *best;
  while (measured<search.most&& static_cast<double>(above - below)> search.tolerance *
         static_cast<double>(above)) {
    // The prediction first; by halves where it keeps to one end.
    uint64_t next = measured % 3 == 0 ? below + (above - below) / 2 : expected();
    const auto margin = static_cast<uint64_t>(search.tolerance / 2 * static_cast<double>(above));
    next = std::clamp(next, below + margin, std::max(below + margin, above - margin));
    try_size(next);
  }
  if (!best) {
    require(try_size(allocator.largest_file()),
            "expected a KL divergence of at most {}, found more with the largest of the types to choose from",
            search.limit);
  }
  return *best;
}

}  // namespace qkv
