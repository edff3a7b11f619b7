// Random blocks of every GGUF type: random codes under scales of a trained weight's size.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/kernels/blocks.h"

namespace qkv::test {

inline std::vector<BlockType> all_block_types() {
  std::vector<BlockType> types;
  for (int i = 0; i < kBlockTypeCount; ++i) types.push_back(static_cast<BlockType>(i));
  return types;
}

inline const char* name_of(BlockType type) {
  constexpr const char* names[kBlockTypeCount] = {"q4_0",  "q4_1",   "q5_0",    "q5_1",   "q8_0",  "q8_1",
                                                  "q2_k",  "q3_k",   "q4_k",    "q5_k",   "q6_k",  "q8_k",
                                                  "iq1_s", "iq1_m",  "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs",
                                                  "iq3_s", "iq4_nl", "iq4_xs",  "tq1_0",  "tq2_0", "mxfp4"};
  return names[static_cast<int>(type)];
}

// Of either sign, for fields that are f16 or float.
template <typename Scale>
Scale random_scale(Rng& rng) {
  return from_float<Scale>(0.02f * rng.normal());
}

template <typename Block>
void make_sane(Block& block, Rng& rng) {
  if constexpr (requires { block.d; }) block.d = random_scale<decltype(block.d)>(rng);
  if constexpr (requires { block.m; }) block.m = random_scale<f16>(rng);
  if constexpr (requires { block.s; }) block.s = random_scale<f16>(rng);
  if constexpr (requires { block.dmin; }) block.dmin = random_scale<f16>(rng);
  if constexpr (std::is_same_v<Block, BlockMxfp4>) block.e = static_cast<uint8_t>(118 + block.e % 10);
  if constexpr (std::is_same_v<Block, BlockIq1M>) {  // d: four nibbles, the highest in the last byte
    const uint16_t bits = random_scale<f16>(rng).bits;
    for (int i = 0; i < 4; ++i) {
      block.scales[2 * i + 1] =
          static_cast<uint8_t>((block.scales[2 * i + 1] & 15) | ((bits >> (4 * i)) & 15) << 4);
    }
  }
}

inline std::vector<uint8_t> random_blocks(BlockType type, int64_t count, uint64_t seed) {
  Rng rng(seed, static_cast<uint64_t>(type));
  std::vector<uint8_t> bytes(static_cast<size_t>(count * block_bytes(type)));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(256 * rng.uniform());
  for (int64_t i = 0; i < count; ++i) {
    uint8_t* at = bytes.data() + i * block_bytes(type);
    with_block(type, [&](auto* pointer) {
      std::remove_pointer_t<decltype(pointer)> block;
      std::memcpy(&block, at, sizeof(block));
      make_sane(block, rng);
      std::memcpy(at, &block, sizeof(block));
    });
  }
  return bytes;
}

}  // namespace qkv::test
