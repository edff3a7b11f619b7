// GPTQ (Frantar et al., arXiv 2210.17323) into GGUF's block types: the blocks' scales come from the weighted
// search (quantize.h), on weights that are compensated for the columns before them; their codes are then
// chosen one column after the other, where the columns still to come make up for the error.
#pragma once

#include <string_view>

#include "qkv/tensor/tensor.h"

namespace qkv {

// Types in which every weight has a code of its own. In codebooks of vectors and ternary digits a column
// cannot be chosen alone, and mxfp4's scales have no search.
bool can_compensate(DType type);
// The one with the nearest size; `type` itself if it can.
DType nearest_compensated(DType type);

struct BlockRoundingOptions {
  DType type = DType::q4_k;
  // Columns with the largest inputs first; scales are then taken from the weights as they were.
  bool act_order = false;
  double damping = 0.01;  // of the mean of the Hessian's diagonal
};

// weight (rows, columns) f32 to a tensor of whole blocks of the same shape; products (columns, columns) f32:
// sum of x x^T over the layer's inputs, in any unit. Columns that had no input are rounded to nearest. Error
// `[gptq] <where>: ...`.
Tensor gptq_blocks(const Tensor& weight, const Tensor& products, const BlockRoundingOptions& options,
                   std::string_view where = "matrix");

}  // namespace qkv
