// GGUF's block-quantized types: how a block lies in memory, and the table of kernels on rows of blocks.
//
// A row of K values is K / length blocks, one after the other. Every type gives value = f(scales of the
// block, small code); dequantization equals ggml's dequantize_row_* bit for bit, because files are exchanged
// with programs that use it: scales are rounded in the order written in block_reference.cpp, and
// multiplications are never fused with additions.
//
// Below, d is a scale, m or dmin an offset that is subtracted or added, qs the codes. Codes of a "halves"
// layout: the low nibbles of 16 bytes are values 0..15 of a group of 32, the high nibbles values 16..31.
// Multi-byte fields are little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "qkv/kernels/scalar_types.h"

namespace qkv {

enum class BlockType : uint8_t {
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q8_1,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  q8_k,
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
  mxfp4,
};
constexpr int kBlockTypeCount = static_cast<int>(BlockType::mxfp4) + 1;

constexpr int64_t kSmallBlock = 32;   // values per block of the plain types, iq4_nl and mxfp4
constexpr int64_t kSuperBlock = 256;  // values per block of all others

// ---- 32 values, one or two 16-bit scales ----

struct BlockQ4_0 {  // d * (code - 8)
  static constexpr BlockType type = BlockType::q4_0;
  static constexpr int64_t length = kSmallBlock;
  f16 d;
  uint8_t qs[16];  // halves
};
struct BlockQ4_1 {  // d * code + m
  static constexpr BlockType type = BlockType::q4_1;
  static constexpr int64_t length = kSmallBlock;
  f16 d, m;
  uint8_t qs[16];  // halves
};
struct BlockQ5_0 {  // d * (code - 16)
  static constexpr BlockType type = BlockType::q5_0;
  static constexpr int64_t length = kSmallBlock;
  f16 d;
  uint8_t qh[4];   // bit i: the fifth bit of code i
  uint8_t qs[16];  // halves
};
struct BlockQ5_1 {  // d * code + m
  static constexpr BlockType type = BlockType::q5_1;
  static constexpr int64_t length = kSmallBlock;
  f16 d, m;
  uint8_t qh[4];   // as q5_0
  uint8_t qs[16];  // halves
};
struct BlockQ8_0 {  // d * code
  static constexpr BlockType type = BlockType::q8_0;
  static constexpr int64_t length = kSmallBlock;
  f16 d;
  int8_t qs[32];
};
struct BlockQ8_1 {  // d * code; a partner in dot products, whose sum meets the other side's offset
  static constexpr BlockType type = BlockType::q8_1;
  static constexpr int64_t length = kSmallBlock;
  f16 d;
  f16 s;  // d * sum of the codes
  int8_t qs[32];
};
struct BlockIq4Nl {  // d * kIq4Values[code]
  static constexpr BlockType type = BlockType::iq4_nl;
  static constexpr int64_t length = kSmallBlock;
  f16 d;
  uint8_t qs[16];  // halves
};
struct BlockMxfp4 {  // 2^(e - 128) * kMxfp4Values[code] (OCP Microscaling Formats v1.0)
  static constexpr BlockType type = BlockType::mxfp4;
  static constexpr int64_t length = kSmallBlock;
  uint8_t e;
  uint8_t qs[16];  // halves
};

// ---- 256 values, scales of groups quantized themselves ("K-quants") ----

struct BlockQ2K {  // 16 groups of 16: d * (scale & 15) * code - dmin * (scale >> 4)
  static constexpr BlockType type = BlockType::q2_k;
  static constexpr int64_t length = kSuperBlock;
  uint8_t scales[16];
  uint8_t qs[64];  // each 32 bytes hold 128 values, 2 bits each: bits 0-1 of all 32, then bits 2-3, ...
  f16 d, dmin;
};
struct BlockQ3K {  // 16 groups of 16: d * (scale - 32) * (code - 4)
  static constexpr BlockType type = BlockType::q3_k;
  static constexpr int64_t length = kSuperBlock;
  uint8_t hmask[32];   // third bit of the codes: bit g of byte i belongs to value 32 g + i
  uint8_t qs[64];      // two low bits, laid out as q2_k's
  uint8_t scales[12];  // 16 x 6 bits: low nibbles in 8 bytes (halves), then the high pairs of bits in 4
  f16 d;
};
struct BlockQ4K {  // 8 groups of 32: d * scale * code - dmin * min
  static constexpr BlockType type = BlockType::q4_k;
  static constexpr int64_t length = kSuperBlock;
  f16 d, dmin;
  uint8_t scales[12];  // 8 scales and 8 mins, 6 bits each; unpacked by scale_and_min()
  uint8_t qs[128];     // each 32 bytes: low nibbles are one group, high nibbles the next
};
struct BlockQ5K {  // as q4_k with a fifth bit
  static constexpr BlockType type = BlockType::q5_k;
  static constexpr int64_t length = kSuperBlock;
  f16 d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];  // bit g of byte i: the fifth bit of value i of group g
  uint8_t qs[128];
};
struct BlockQ6K {  // 16 groups of 16: d * scale * (code - 32)
  static constexpr BlockType type = BlockType::q6_k;
  static constexpr int64_t length = kSuperBlock;
  uint8_t ql[128];  // low nibbles; per half of 128 values: byte i holds values i and i + 64
  uint8_t qh[64];   // high pairs of bits; per half: byte i holds values i, i + 32, i + 64, i + 96
  int8_t scales[16];
  f16 d;
};
struct BlockQ8K {  // d * code; a partner in dot products
  static constexpr BlockType type = BlockType::q8_k;
  static constexpr int64_t length = kSuperBlock;
  float d;
  int8_t qs[256];
  int16_t bsums[16];  // sums of groups of 16 codes
};

// ---- 256 values, codes are indices into codebooks of 4 or 8 values (block_codebooks.h) ----

struct BlockIq1S {  // d * (2 * scale + 1) * (grid +- 1/8)
  static constexpr BlockType type = BlockType::iq1_s;
  static constexpr int64_t length = kSuperBlock;
  f16 d;
  uint8_t qs[32];  // low 8 bits of the indices, one per 8 values
  uint16_t qh[8];  // per 32 values: 4 x 3 high bits, 3 bits of scale, sign of the eighth
};
struct BlockIq1M {  // as iq1_s, finer groups; d is spread over the top nibbles of the scales
  static constexpr BlockType type = BlockType::iq1_m;
  static constexpr int64_t length = kSuperBlock;
  uint8_t qs[32];
  uint8_t qh[16];     // per 16 values: 2 x (3 high bits, sign of the eighth)
  uint8_t scales[8];  // 4 words: 4 x 3 bits of scale, a nibble of d
};
struct BlockIq2Xxs {  // d * (scale + 1/2) / 4 * +-grid
  static constexpr BlockType type = BlockType::iq2_xxs;
  static constexpr int64_t length = kSuperBlock;
  f16 d;
  uint16_t qs[32];  // per 32 values: 4 indices of 8 bits, then 32 bits: 4 x 7 signs, 4 bits of scale
};
struct BlockIq2Xs {
  static constexpr BlockType type = BlockType::iq2_xs;
  static constexpr int64_t length = kSuperBlock;
  f16 d;
  uint16_t qs[32];    // per 8 values: index of 9 bits, 7 signs
  uint8_t scales[8];  // a nibble per 16 values
};
struct BlockIq2S {
  static constexpr BlockType type = BlockType::iq2_s;
  static constexpr int64_t length = kSuperBlock;
  f16 d;
  uint8_t qs[32];     // low 8 bits of the indices, one per 8 values
  uint8_t signs[32];  // 8 signs per 8 values
  uint8_t qh[8];      // per 32 values: 4 x 2 high bits
  uint8_t scales[8];  // a nibble per 16 values
};
struct BlockIq3Xxs {  // d * (scale + 1/2) / 2 * +-grid
  static constexpr BlockType type = BlockType::iq3_xxs;
  static constexpr int64_t length = kSuperBlock;
  f16 d;
  uint8_t qs[64];                // an index per 4 values
  uint8_t scales_and_signs[32];  // per 32 values, 32 bits: 4 x 7 signs, 4 bits of scale
};
struct BlockIq3S {  // d * (2 * scale + 1) * +-grid
  static constexpr BlockType type = BlockType::iq3_s;
  static constexpr int64_t length = kSuperBlock;
  f16 d;
  uint8_t qs[64];     // low 8 bits of the indices, one per 4 values
  uint8_t qh[8];      // per 32 values: the ninth bits
  uint8_t signs[32];  // 8 signs per 8 values
  uint8_t scales[4];  // a nibble per 32 values
};
struct BlockIq4Xs {  // 8 groups of 32: d * (scale - 32) * kIq4Values[code]
  static constexpr BlockType type = BlockType::iq4_xs;
  static constexpr int64_t length = kSuperBlock;
  f16 d;
  uint16_t scales_h;    // 8 x 2 high bits
  uint8_t scales_l[4];  // 8 x 4 low bits
  uint8_t qs[128];      // halves, 16 bytes per group
};

// ---- 256 values of -1, 0, 1 ----

struct BlockTq1_0 {  // d * (code - 1), five codes to a byte as base-3 digits of a fraction of 256
  static constexpr BlockType type = BlockType::tq1_0;
  static constexpr int64_t length = kSuperBlock;
  uint8_t qs[48];  // 32 bytes: 160 values, digit by digit; 16 bytes: 80 values
  uint8_t qh[4];   // four digits each: 16 values
  f16 d;
};
struct BlockTq2_0 {  // d * (code - 1)
  static constexpr BlockType type = BlockType::tq2_0;
  static constexpr int64_t length = kSuperBlock;
  uint8_t qs[64];  // 2 bits each, laid out as q2_k's
  f16 d;
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 &&
              sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ8_1) == 36 && sizeof(BlockIq4Nl) == 18 &&
              sizeof(BlockMxfp4) == 17);
static_assert(sizeof(BlockQ2K) == 84 && sizeof(BlockQ3K) == 110 && sizeof(BlockQ4K) == 144 &&
              sizeof(BlockQ5K) == 176);
static_assert(sizeof(BlockQ6K) == 210 && sizeof(BlockQ8K) == 292 && sizeof(BlockIq1S) == 50 &&
              sizeof(BlockIq1M) == 56);
static_assert(sizeof(BlockIq2Xxs) == 66 && sizeof(BlockIq2Xs) == 74 && sizeof(BlockIq2S) == 82 &&
              sizeof(BlockIq3Xxs) == 98);
static_assert(sizeof(BlockIq3S) == 110 && sizeof(BlockIq4Xs) == 136 && sizeof(BlockTq1_0) == 54 &&
              sizeof(BlockTq2_0) == 66);

// Calls body with a null pointer of the type's block struct.
template <typename Body>
constexpr decltype(auto) with_block(BlockType type, Body&& body) {
  switch (type) {
    case BlockType::q4_0:
      return body(static_cast<BlockQ4_0*>(nullptr));
    case BlockType::q4_1:
      return body(static_cast<BlockQ4_1*>(nullptr));
    case BlockType::q5_0:
      return body(static_cast<BlockQ5_0*>(nullptr));
    case BlockType::q5_1:
      return body(static_cast<BlockQ5_1*>(nullptr));
    case BlockType::q8_0:
      return body(static_cast<BlockQ8_0*>(nullptr));
    case BlockType::q8_1:
      return body(static_cast<BlockQ8_1*>(nullptr));
    case BlockType::iq4_nl:
      return body(static_cast<BlockIq4Nl*>(nullptr));
    case BlockType::q2_k:
      return body(static_cast<BlockQ2K*>(nullptr));
    case BlockType::q3_k:
      return body(static_cast<BlockQ3K*>(nullptr));
    case BlockType::q4_k:
      return body(static_cast<BlockQ4K*>(nullptr));
    case BlockType::q5_k:
      return body(static_cast<BlockQ5K*>(nullptr));
    case BlockType::q6_k:
      return body(static_cast<BlockQ6K*>(nullptr));
    case BlockType::q8_k:
      return body(static_cast<BlockQ8K*>(nullptr));
    case BlockType::iq1_s:
      return body(static_cast<BlockIq1S*>(nullptr));
    case BlockType::iq1_m:
      return body(static_cast<BlockIq1M*>(nullptr));
    case BlockType::iq2_xxs:
      return body(static_cast<BlockIq2Xxs*>(nullptr));
    case BlockType::iq2_xs:
      return body(static_cast<BlockIq2Xs*>(nullptr));
    case BlockType::iq2_s:
      return body(static_cast<BlockIq2S*>(nullptr));
    case BlockType::iq3_xxs:
      return body(static_cast<BlockIq3Xxs*>(nullptr));
    case BlockType::iq3_s:
      return body(static_cast<BlockIq3S*>(nullptr));
    case BlockType::iq4_xs:
      return body(static_cast<BlockIq4Xs*>(nullptr));
    case BlockType::tq1_0:
      return body(static_cast<BlockTq1_0*>(nullptr));
    case BlockType::tq2_0:
      return body(static_cast<BlockTq2_0*>(nullptr));
    case BlockType::mxfp4:
      break;
  }
  return body(static_cast<BlockMxfp4*>(nullptr));
}
constexpr int64_t block_length(BlockType type) {
  return with_block(type, [](auto* block) { return std::remove_pointer_t<decltype(block)>::length; });
}
constexpr int64_t block_bytes(BlockType type) {
  return with_block(type, [](auto* block) { return static_cast<int64_t>(sizeof(*block)); });
}

// One entry per type.
template <typename Function>
struct PerBlockType {
  Function* entries[kBlockTypeCount];
  Function*& operator[](BlockType type) { return entries[static_cast<int>(type)]; }
  Function* operator[](BlockType type) const { return entries[static_cast<int>(type)]; }
};

// Rows of activations rounded to bytes in groups of 32: value = scale * code, |code| <= 127. The sums serve types whose
// blocks have offsets. All arrays are row after row, with cols / 32 or cols / 16 elements per row.
struct Int8Rows {
  const int8_t* codes = nullptr;          // (rows, cols)
  const float* scales = nullptr;          // per 32
  const float* sums16 = nullptr;          // scale * sum of the codes, per 16
  const float* sums32 = nullptr;          // scale * sum of the codes, per 32
  const int32_t* code_sums16 = nullptr;   // sums of the codes, per 16
  int64_t rows = 0, cols = 0;             // cols is a multiple of 32
};
// Up to so many rows are taken as few by int8_product: every row of the weight by itself. More of them meet 16 rows of the
// weight at a time, unpacked into scratch memory, which is 64-byte aligned; few rows need none.
constexpr int64_t kInt8FewRows = 2;
constexpr int64_t kInt8PanelRows = 16;
constexpr size_t int8_scratch_bytes(int64_t cols) { return static_cast<size_t>(24 * cols); }

// Kernels on rows of blocks; conventions as in kernels.h. n and cols are multiples of the type's block
// length.
struct BlockKernels {
  // out[i] for the n values of n / length blocks.
  PerBlockType<void(const void* blocks, float* out, int64_t n)> dequantize;
  // y[t * y_stride + r] = row r . x[t], for `rows` rows of `cols` values and x (x_rows, cols): each value
  // dequantized as above, products summed in float. Few rows of x; the blocks are read once.
  PerBlockType<void(const void* blocks, const float* x, float* y, int64_t rows, int64_t cols, int64_t x_rows,
                    int64_t y_stride)>
      product;
  // Rounds n activations (a multiple of 32) for the product below: scale = largest magnitude / 127, NaN if any is not finite;
  // codes to the nearest, ties to even. The same bits on every set.
  void (*round_activations)(const float* x, int64_t n, int8_t* codes, float* scales, float* sums16, float* sums32,
                            int32_t* code_sums16);
  // y[t * y_stride + r] = row r . x[t] for `rows` rows of x.cols values: integer products of codes, scaled and summed in
  // float, so that what sets it apart from `product` is the rounding of x alone. Null where it would not be faster.
  PerBlockType<void(const void* blocks, const Int8Rows& x, float* y, int64_t rows, int64_t y_stride, void* scratch)>
      int8_product;
  // Plain round-to-nearest: each block by itself, scale from its extreme values, equal to ggml's
  // quantize_row_*_ref bit for bit. Null for the types whose scales need a search. x is finite.
  PerBlockType<void(const float* x, void* blocks, int64_t n)> quantize;
};

}  // namespace qkv
