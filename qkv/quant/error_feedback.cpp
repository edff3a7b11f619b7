#include "qkv/quant/error_feedback.h"

#include <algorithm>
#include <numeric>
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

Tensor permuted_columns(const Tensor& in, const std::vector<int64_t>& order, bool rows_too) {
  Tensor out = Tensor::empty(in.shape());
  const int64_t n = in.cols();
  const float* from = in.data<float>();
  float* to = out.data<float>();
  parallel_for(in.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t source = rows_too ? order[static_cast<size_t>(r)] : r;
      for (int64_t c = 0; c < n; ++c) to[r * n + c] = from[source * n + order[static_cast<size_t>(c)]];
    }
  });
  return out;
}

std::vector<int64_t> largest_inputs_first(const Tensor& products) {
  const int64_t n = products.cols();
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const float* h = products.data<float>();
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return h[a * n + a] > h[b * n + b]; });
  return order;
}

}  // namespace qkv
