// Which weights of a matrix to drop: by magnitude, by what their inputs make of them (Wanda: Sun et al.,
// arXiv 2306.11695), and with the others making up for it (SparseGPT: Frantar & Alistarh, arXiv 2301.00774).
#pragma once

#include "qkv/quant/input_statistics.h"

namespace qkv {

struct SparsityPattern {
  double share = 0.5;  // of the weights that become zero
  // > 0: of every `of` neighbours in a row, `zeros` become zero (2:4) instead; a last incomplete group stays.
  int zeros = 0, of = 0;

  bool is_structured() const { return of > 0; }
  // Error unless it means something.
  void require_valid() const;
};

// All three give the pruned matrix (rows, columns) f32. Of equal scores the earlier weight goes first, and
// exactly floor(share * count) do: of the whole matrix, of each row (Wanda), or of each block of columns
// (SparseGPT).
Tensor prune_by_magnitude(const Tensor& weight, const SparsityPattern& pattern);
Tensor prune_wanda(const Tensor& weight, const InputStatistics& inputs, const SparsityPattern& pattern);
Tensor prune_sparsegpt(const Tensor& weight, const InputStatistics& inputs, const SparsityPattern& pattern,
                       double damping = 0.01, std::string_view where = "matrix");

// The share of exact zeros.
double sparsity_of(const Tensor& weight);

}  // namespace qkv
