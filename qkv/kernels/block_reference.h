// The plain block kernels: what every instruction set must equal bit for bit, and the fallback where a set
// has none.
#pragma once

#include <bit>

#include "qkv/kernels/blocks.h"

namespace qkv {

// The 6-bit scale and minimum of group g of a q4_k or q5_k block: groups 0-3 are the low 6 bits of bytes 0-3
// (scale) and 4-7 (min); groups 4-7 have their low nibbles in bytes 8-11 and their high pairs of bits on top
// of bytes 0-7.
inline void scale_and_min(const uint8_t* scales, int g, int& scale, int& min) {
  if (g < 4) {
    scale = scales[g] & 63;
    min = scales[g + 4] & 63;
  } else {
    scale = (scales[g + 4] & 15) | ((scales[g - 4] >> 6) << 4);
    min = (scales[g + 4] >> 4) | ((scales[g] >> 6) << 4);
  }
}

// The 6-bit scale (stored + 32) of group g of a q3_k block.
inline int q3_k_scale(const uint8_t* scales, int g) {
  const int low = (scales[g % 8] >> (4 * (g / 8))) & 15;
  const int high = (scales[8 + g % 4] >> (2 * (g / 4))) & 3;
  return low | (high << 4);
}

// 2^(e - 128): the E8M0 scale of an mxfp4 block, halved because its values are stored doubled. e = 0 and 1
// are subnormal.
inline float mxfp4_scale(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? uint32_t{0x00200000} << e : static_cast<uint32_t>(e - 1) << 23);
}

// Activations whose scale is smaller round to zeros: its inverse would not be finite.
constexpr float kLeastActivationScale = 1e-36f;

BlockKernels block_kernels_reference();

// The parts of the table above.
void add_reference_dequantize(BlockKernels& table);
void add_reference_product(BlockKernels& table);
void add_reference_quantize(BlockKernels& table);
void add_reference_rounding(BlockKernels& table);

// The plain dequantization of one type, for instruction sets that have none of their own.
using DequantizeRow = void(const void* blocks, float* out, int64_t n);
DequantizeRow* plain_dequantize(BlockType type);

}  // namespace qkv
