// Rows of values to GGUF's block types by a search: for every block the scales (and offsets) with the least
// weighted squared error, where the weights of columns are given by how much the model's activations use
// them.
//
// Plain rounding (kernels/blocks.h) takes the scale from a block's extreme values; here many are tried, the
// scales of scales included. The result is the same on every instruction set and for every split of the rows.
#pragma once

#include <cstdint>

#include "qkv/kernels/blocks.h"

namespace qkv {

// Types of 2.6 bits and less (and Q2_K where nothing else is near it) are of no use without importances: the
// error falls on the wrong columns.
bool needs_importance(BlockType type);

// The largest magnitude that can be quantized: f16's, which most types have their scales in.
constexpr float kMostQuantizable = 65504;

// x (rows, cols), magnitudes at most kMostQuantizable, to rows * cols / length blocks at `out`. `importance`
// (cols), not negative, weighs the squared errors of the columns; null: all alike. cols is a multiple of the
// type's block length. q8_1 and q8_k, which only exist inside products, are rounded plainly. On the calling
// thread.
void quantize_rows(BlockType type, const float* x, int64_t rows, int64_t cols, const float* importance,
                   void* out);

}  // namespace qkv
