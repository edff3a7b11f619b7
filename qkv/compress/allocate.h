// Which type each tensor of a model gets, so that the file meets a size or a KL divergence: costs by type
// (sensitivity.h), the best choice within a size (knapsack.h), and what it costs in the end, measured.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "qkv/compress/knapsack.h"
#include "qkv/compress/quantize.h"
#include "qkv/compress/type_costs.h"

namespace qkv {

// One choice for all tensors.
struct Allocation {
  std::vector<size_t> choices;  // of every TensorCosts, a place in its types
  uint64_t file_bytes = 0;      // of the GGUF file
  double predicted = 0;         // sum of the costs
  double bound = 0;             // no choice of this size costs less; equal to predicted where exact
  double price = 0;             // cost that a byte more would save
  bool exact = true;
};

class Allocator {
 public:
  // `plan` is what stays of the file whatever is chosen: its other tensors and its headers.
  Allocator(const QuantizePlan& plan, std::vector<TensorCosts> costs);

  const std::vector<TensorCosts>& costs() const { return costs_; }
  // Costs may be corrected (probing) between choices.
  std::vector<TensorCosts>& costs() { return costs_; }
  uint64_t smallest_file() const;
  uint64_t largest_file() const;
  // The best of at most so many bytes. Error naming the smallest possible size if there is none.
  Allocation within(uint64_t file_bytes) const;
  // What a choice that was made elsewhere would cost; types that are not among a tensor's are an Error.
  Allocation of_types(const std::vector<DType>& types) const;
  // The best at `count` sizes from the smallest to the largest, evenly spaced in their logarithm; equal ones
  // once.
  std::vector<Allocation> curve(size_t count) const;
  // A type for each of the plan's tensors.
  std::vector<DType> types(const Allocation& allocation) const;

 private:
  const QuantizePlan& plan_;
  std::vector<TensorCosts> costs_;
  uint64_t fixed_bytes_ = 0;
};

// The smallest file whose measured divergence is at most `limit`: sizes are tried between those that pass and
// those that do not, beginning where the prediction says, until they are within `tolerance` (relative) of
// each other or `most` were measured. `measure` gives the divergence of a choice. Error if not even the
// largest passes.
struct DivergenceSearch {
  double limit = 0.01, tolerance = 0.004;
  size_t most = 12;
};
Allocation smallest_within(const Allocator& allocator, const DivergenceSearch& search,
                           const std::function<double(const Allocation& allocation)>& measure);

}  // namespace qkv
