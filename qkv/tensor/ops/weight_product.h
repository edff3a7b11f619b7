// Products of activations with a weight in whatever type it is stored: shared by linear, the vocabulary
// losses and the layers above. A stored type that the general product does not take (f16, block types, bf16
// under f32 activations) is widened a panel of rows at a time, so that a second copy of the weight never
// exists.
#pragma once

#include "qkv/tensor/tensor.h"

namespace qkv::ops::detail {

// y (T, N) = x (T, K) w^T for w (N, K) of any floating or block type; x is f32 or bf16, y of x's type or f32.
// Off the tape.
void weight_product(const Tensor& x, const Tensor& w, Tensor& y);

// dx (T, K) = dy (T, N) w, plus dx itself if `accumulate`; dx of dy's type or f32. Off the tape.
void weight_product_backward(const Tensor& dy, const Tensor& w, Tensor& dx, bool accumulate);

// y (T, N) in x's type for few rows of x, by a matrix x vector kernel each: the weight is read once, in its storage type.
Tensor few_rows_product(const Tensor& x, const Tensor& w);
// Whether `rows` are few for this type of weight.
bool are_few_rows(int64_t rows, DType weight);

}  // namespace qkv::ops::detail
