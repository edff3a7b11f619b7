// The leading singular values and vectors of a matrix, by randomized subspace iteration (Halko, Martinsson &
// Tropp, arXiv 0909.4061): what PiSSA and LoftQ start adapters from, and what GaLore projects gradients on.
#pragma once

#include <cstdint>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv {

struct LowRank {
  Tensor left;                // (N, r), orthonormal columns
  std::vector<float> values;  // (r), falling
  Tensor right;               // (r, K), orthonormal rows
};

// matrix (N, K) f32; 1 <= rank <= min(N, K). The same seed gives the same bits. `iterations` passes over the
// matrix sharpen the result where singular values fall slowly.
LowRank leading_singular_vectors(const Tensor& matrix, int64_t rank, uint64_t seed, int iterations = 6);

}  // namespace qkv
