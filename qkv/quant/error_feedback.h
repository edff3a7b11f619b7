// The walk that GPTQ (Frantar et al., arXiv 2210.17323) and SparseGPT (arXiv 2301.00774) share: columns are
// changed one after the other, and the columns after each make up for its error as U, the inverse's factor,
// says. Blocks of columns are worked on row by row; what they owe to all later columns is one matrix product
// ("lazy batch updates").
#pragma once

#include <cstdint>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/tensor/tensor.h"

namespace qkv {

// One row's columns [first, first + count).
struct RowPiece {
  int64_t row, first, count;
  float* values;        // compensated for everything before `first`; changed by change()
  float* errors;        // of each column, divided by U's diagonal
  const float* factor;  // U from (first, first)
  int64_t stride;

  float diagonal(int64_t i) const { return factor[i * stride + i]; }
  // Column i becomes `value`, and the later columns of the piece make up for it.
  void change(int64_t i, float value) {
    const float error = (values[i] - value) / diagonal(i);
    const float* row_of_factor = factor + i * stride;
    for (int64_t j = i + 1; j < count; ++j) values[j] -= error * row_of_factor[j];
    errors[i] = error;
    values[i] = value;
  }
};

// Called with every block of columns before its rows, for what looks at all of them; then body with every row
// of it, in parallel. body calls change() for every column in order. `weight` (rows, columns) f32 is not
// compensated for errors inside the block while body runs, and holds the changed values at the end.
void walk_columns(Tensor& weight, const Tensor& factor, int64_t block,
                  FunctionRef<void(int64_t first, int64_t count)> begin_block,
                  FunctionRef<void(RowPiece& piece)> body);

// The order in which columns may be walked instead: largest diagonal of H (n, n) first.
std::vector<int64_t> largest_inputs_first(const Tensor& products);
// Column i of the result is column order[i]; of a symmetric matrix rows, too.
Tensor permuted_columns(const Tensor& in, const std::vector<int64_t>& order, bool rows_too);

}  // namespace qkv
