// Activations rounded to bytes and their products with weights of block types: inference only, off the tape.
#pragma once

#include <span>

#include "qkv/kernels/kernels.h"
#include "qkv/tensor/tensor.h"

namespace qkv::ops::detail {

// Rows of x rounded once, for all the products they go into.
class RoundedRows {
 public:
  // x (T, K) in f32 or bf16, K a multiple of 32.
  explicit RoundedRows(const Tensor& x);
  const Int8Rows& rows() const { return rows_; }

 private:
  Tensor memory_;
  Int8Rows rows_;
};

// Whether this type of weight has products with rounded rows.
bool takes_rounded_rows(DType weight);

struct BlockProduct {
  const Tensor* weight;  // (N, K), blocks
  float* y;              // y (T, N), `stride` floats from row to row
  int64_t stride;
};
// y = x w^T for each of them, in one parallel region.
void rounded_products(const RoundedRows& x, std::span<const BlockProduct> products);

}  // namespace qkv::ops::detail
