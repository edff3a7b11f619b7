#include "qkv/quant/error_feedback.h"

#include <algorithm>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/tensor/gemm.h"

namespace qkv {

void walk_columns(Tensor& weight, const Tensor& factor, int64_t block,
                  FunctionRef<void(int64_t, int64_t)> begin_block, FunctionRef<void(RowPiece&)> body) {
  const int64_t rows = weight.rows(), columns = weight.cols();
  require(block > 0, "error feedback: expected blocks of at least 1 column, found {}", block);
  float* w = weight.data<float>();
  const float* u = factor.data<float>();
  Tensor changed = Tensor::empty({rows, std::min(block, columns)}),
         owed = Tensor::empty({rows, std::min(block, columns)});
  for (int64_t first = 0; first < columns; first += block) {
    const int64_t count = std::min(block, columns - first), last = first + count;
    begin_block(first, count);
    float *values = changed.data<float>(), *errors = owed.data<float>();
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        std::copy_n(w + row * columns + first, count, values + row * count);
        RowPiece piece{
            row,    first, count, values + row * count, errors + row * count, u + first * columns + first,
            columns};
        body(piece);
        for (int64_t i = 0; i < count; ++i) piece.errors[i] = -piece.errors[i];
      }
    });
    for (int64_t row = 0; row < rows; ++row)
      std::copy_n(values + row * count, count, w + row * columns + first);
    if (last < columns)
      gemm(rows, columns - last, count, {errors, DType::f32, count, false},
           {u + first * columns + last, DType::f32, columns, false}, w + last, DType::f32, columns, true);
  }
}

}  // namespace qkv
