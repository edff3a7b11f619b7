// The quantizers behind quantize_rows(), by how a type's scales are made.
#pragma once

#include "qkv/kernels/blocks.h"
#include "qkv/quant/group_batch.h"

namespace qkv {

// One scale (and offset) per block: q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, mxfp4, tq1_0, tq2_0.
void quantize_single_scale(BlockType type, const BlockSource& source, void* out);
// Scales of groups that are quantized themselves: q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs.
void quantize_super_blocks(BlockType type, const BlockSource& source, void* out);
// Codebooks of vectors: iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s.
void quantize_grids(BlockType type, const BlockSource& source, void* out);

}  // namespace qkv
