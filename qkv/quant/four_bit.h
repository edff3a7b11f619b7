// Codes that stand for unevenly spaced values, as bitsandbytes stores them: NF4, whose 16 values are
// quantiles of a normal distribution (QLoRA: Dettmers et al., arXiv 2305.14314), FP4, and the dynamic 8-bit
// map (Dettmers, arXiv 1511.04561), in which QLoRA's double quantization keeps the scales of blocks. Values
// are divided by the largest magnitude of their block.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace qkv {

constexpr int64_t kFourBitBlock = 64;  // values per block
constexpr int64_t kDynamicBlock = 256;

// What the codes stand for, in the order of the codes.
const std::array<float, 16>& nf4_values();
const std::array<float, 16>& fp4_values();
const std::array<float, 256>& dynamic_values();

// n values as codes with a scale per block; the last block may be shorter. Ties go to the lower value.
struct BlockCodes {
  std::vector<uint8_t> codes;  // one per value
  std::vector<float> scales;   // one per block: the largest magnitude
};
BlockCodes quantize_blockwise(std::span<const float> values, int64_t block, std::span<const float> map);

// Scales that are quantized themselves: absmax = map[code] * scales[i / kDynamicBlock] + offset.
struct NestedScales {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  float offset = 0;  // the mean
  std::vector<float> dequantize() const;
};
NestedScales nest_scales(std::span<const float> scales);

// Two codes per byte, the first in the high nibble; an odd last one stands beside code 0.
std::vector<uint8_t> pack_nibbles(std::span<const uint8_t> codes);

}  // namespace qkv
