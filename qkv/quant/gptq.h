// GPTQ (Frantar et al., arXiv 2210.17323): rounding a matrix column by column, where the columns still to
// come make up for the error in the layer's output. The same codes as AutoGPTQ 0.7, whose quirk is kept:
// inside a block of columns the scale of a group is taken from weights that are not yet compensated for that
// block's own errors.
#pragma once

#include "qkv/quant/uniform.h"

namespace qkv {

struct GptqOptions {
  UniformScheme scheme;
  // Columns with the largest inputs first. Groups are then made of columns that follow each other in that
  // order, and a column's group is in CodedMatrix::group_of; or, with static groups, they stay neighbours,
  // with scales taken from the weights as they were.
  bool act_order = false;
  bool static_groups = false;
  double damping = 0.01;  // of the mean of the Hessian's diagonal
  int64_t block = 128;    // columns between which errors are settled at once
};

// weight (rows, columns) f32; products (columns, columns) f32: sum of x x^T over the layer's inputs, in any
// unit. Columns that had no input are rounded to nearest. Error `[gptq] <where>: ...`.
CodedMatrix gptq(const Tensor& weight, const Tensor& products, const GptqOptions& options,
                 std::string_view where = "matrix");

}  // namespace qkv
