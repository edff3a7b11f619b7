// Weights in 8-bit floating point (Micikevicius et al., arXiv 2209.05433) with scales that they are
// multiplied by: one for the tensor, each row, or each square block.
#pragma once

#include <cstdint>

#include "qkv/tensor/tensor.h"

namespace qkv {

struct Fp8Matrix {
  Tensor values;  // (rows, columns) f8_e4m3 or f8_e5m2
  Tensor scales;  // f32 (row blocks, column blocks)
};

// Blocks of (block_rows, block_columns), cut at the edges; 0: all of them. Scales are the largest magnitude
// divided by the type's largest number, 448 or 57344, so nothing overflows; half-way values are rounded to
// even. weight (rows, columns) f32.
Fp8Matrix quantize_fp8(const Tensor& weight, DType type, int64_t block_rows, int64_t block_columns);

// The nearest number of the type; magnitudes beyond the largest become the largest, NaN stays NaN.
uint8_t to_fp8(float x, DType type);

}  // namespace qkv
