// Plain round-to-nearest quantization of the block types whose scale follows from a block's extreme values,
// in the order of roundings of ggml's quantize_row_*_ref. Compiled without contraction of a * b + c.
#include <algorithm>
#include <cmath>

#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/block_reference.h"

namespace qkv {
namespace {

// The element of largest magnitude, the first of equals; 0 if all are 0.
template <int n>
float extreme(const float* x) {
  float magnitude = 0, value = 0;
  for (int i = 0; i < n; ++i) {
    if (magnitude < std::abs(x[i])) {
      magnitude = std::abs(x[i]);
      value = x[i];
    }
  }
  return value;
}

float inverse(float d) {
  return d != 0 ? 1.0f / d : 0.0f;
}

// Integer part of v in [0, most]. A scale below float's normal range has an infinite inverse: what it makes
// is clamped.
uint8_t code_of(float v, int most) {
  if (!(v > 0)) return 0;
  return static_cast<uint8_t>(v >= static_cast<float>(most) ? most : static_cast<int>(v));
}

int rounded_code(float v, int most) {
  if (!(std::abs(v) < static_cast<float>(most))) return v > 0 ? most : v < 0 ? -most : 0;
  return static_cast<int>(std::round(v));
}

// Packs 32 codes of 4 bits; returns their fifth bits.
uint32_t pack_halves(const uint8_t* codes, uint8_t* qs) {
  uint32_t fifth = 0;
  for (int i = 0; i < 16; ++i) {
    qs[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
    fifth |= static_cast<uint32_t>(codes[i] >> 4) << i | static_cast<uint32_t>(codes[i + 16] >> 4)
                                                             << (i + 16);
  }
  return fifth;
}

void store_fifth(uint32_t bits, uint8_t* qh) {
  for (int i = 0; i < 4; ++i) qh[i] = static_cast<uint8_t>(bits >> (8 * i));
}

void quantize(const float* x, BlockQ4_0& b) {
  const float d = extreme<32>(x) / -8.0f, id = inverse(d);
  uint8_t codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = code_of(x[i] * id + 8.5f, 15);
  b.d = to_f16(d);
  pack_halves(codes, b.qs);
}
void quantize(const float* x, BlockQ5_0& b) {
  const float d = extreme<32>(x) / -16.0f, id = inverse(d);
  uint8_t codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = code_of(x[i] * id + 16.5f, 31);
  b.d = to_f16(d);
  store_fifth(pack_halves(codes, b.qs), b.qh);
}

// The scale of an offset type with `levels` codes; writes the codes and the least value.
float quantize_from_least(const float* x, int levels, uint8_t* codes, float& least) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  least = *low;
  const float d = (*high - least) / static_cast<float>(levels - 1), id = inverse(d);
  for (int i = 0; i < 32; ++i) codes[i] = code_of((x[i] - least) * id + 0.5f, levels - 1);
  return d;
}

void quantize(const float* x, BlockQ4_1& b) {
  uint8_t codes[32];
  float least = 0;
  b.d = to_f16(quantize_from_least(x, 16, codes, least));
  b.m = to_f16(least);
  pack_halves(codes, b.qs);
}
void quantize(const float* x, BlockQ5_1& b) {
  uint8_t codes[32];
  float least = 0;
  b.d = to_f16(quantize_from_least(x, 32, codes, least));
  b.m = to_f16(least);
  store_fifth(pack_halves(codes, b.qs), b.qh);
}

// Returns d in full precision.
float quantize_bytes(const float* x, int8_t* qs) {
  const float d = std::abs(extreme<32>(x)) / 127.0f, id = inverse(d);
  for (int i = 0; i < 32; ++i) qs[i] = static_cast<int8_t>(rounded_code(x[i] * id, 127));
  return d;
}

void quantize(const float* x, BlockQ8_0& b) {
  b.d = to_f16(quantize_bytes(x, b.qs));
}
void quantize(const float* x, BlockQ8_1& b) {
  const float d = quantize_bytes(x, b.qs);
  int sum = 0;
  for (int i = 0; i < 32; ++i) sum += b.qs[i];
  b.d = to_f16(d);
  b.s = to_f16(static_cast<float>(sum) * d);
}

void quantize(const float* x, BlockQ8K& b) {
  b = {};
  const float largest = extreme<256>(x);
  if (largest == 0) return;
  const float inverse_scale = -127.0f / largest;
  for (int i = 0; i < 256; ++i) {
    const float v = inverse_scale * x[i];
    // Ties to even here, unlike q8_0.
    b.qs[i] = static_cast<int8_t>(std::abs(v) < 127.0f ? static_cast<int>(std::nearbyint(v))
                                                       : rounded_code(v, 127));
  }
  for (int g = 0; g < 16; ++g) {
    int sum = 0;
    for (int i = 0; i < 16; ++i) sum += b.qs[16 * g + i];
    b.bsums[g] = static_cast<int16_t>(sum);
  }
  b.d = 1.0f / inverse_scale;
}

// Nearest entry of the sorted table, the upper one of a tie.
uint8_t nearest_iq4(float x) {
  size_t index = 0;
  for (size_t step = 8; step > 0; step /= 2) {
    const size_t next = index + step;
    if (x + x >= static_cast<float>(kIq4Values[next - 1] + kIq4Values[next])) index = next;
  }
  return static_cast<uint8_t>(index);
}

// The codes follow from the extreme value; the scale is then the one that fits them best, weighting by x^2.
void quantize(const float* x, BlockIq4Nl& b) {
  constexpr float kNothing = 1e-15f;
  const float largest = extreme<32>(x);
  float d = 0;
  uint8_t codes[32] = {};
  if (std::abs(largest) < kNothing) {
    std::fill(codes, codes + 32, nearest_iq4(0));
  } else {
    const float id = 1.0f / (largest / static_cast<float>(kIq4Values[0]));
    float product = 0, square = 0;
    for (int i = 0; i < 32; ++i) {
      codes[i] = nearest_iq4(id * x[i]);
      const float value = static_cast<float>(kIq4Values[codes[i]]), weight = x[i] * x[i];
      product += weight * value * x[i];
      square += weight * value * value;
    }
    d = product / square;
  }
  b.d = to_f16(d);
  pack_halves(codes, b.qs);
}

uint8_t nearest_mxfp4(float x, float scale) {
  size_t best = 0;
  float error = std::abs(static_cast<float>(kMxfp4Values[0]) * scale - x);
  for (size_t i = 1; i < kMxfp4Values.size(); ++i) {
    const float candidate = std::abs(static_cast<float>(kMxfp4Values[i]) * scale - x);
    if (candidate < error) {
      best = i;
      error = candidate;
    }
  }
  return static_cast<uint8_t>(best);
}

void quantize(const float* x, BlockMxfp4& b) {
  const float largest = std::abs(extreme<32>(x));
  // The largest E2M1 value is 6 = 1.5 * 2^2.
  const float exponent = largest > 0 ? std::floor(std::log2(largest)) - 2.0f + 127.0f : 0.0f;
  b.e = static_cast<uint8_t>(std::clamp(exponent, 0.0f, 254.0f));
  const float scale = mxfp4_scale(b.e);
  uint8_t codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = nearest_mxfp4(x[i], scale);
  pack_halves(codes, b.qs);
}

// -1, 0 or 1, plus one.
uint32_t ternary_code(float x, float id) {
  return static_cast<uint32_t>(rounded_code(x * id, 1) + 1);
}

// `count` digits of x[0], x[stride], ... as a fraction of 256 in base 3, rounded up so that digits come back
// by multiplication.
uint8_t ternary_byte(const float* x, int count, int stride, float id) {
  uint32_t q = 0;
  for (int i = 0; i < 5; ++i) q = q * 3 + (i < count ? ternary_code(x[i * stride], id) : 0);
  return static_cast<uint8_t>((q * 256 + 242) / 243);
}

void quantize(const float* x, BlockTq1_0& b) {
  const float d = std::abs(extreme<256>(x)), id = inverse(d);
  b.d = to_f16(d);
  for (int i = 0; i < 32; ++i) b.qs[i] = ternary_byte(x + i, 5, 32, id);
  for (int i = 0; i < 16; ++i) b.qs[32 + i] = ternary_byte(x + 160 + i, 5, 16, id);
  for (int i = 0; i < 4; ++i) b.qh[i] = ternary_byte(x + 240 + i, 4, 4, id);
}
void quantize(const float* x, BlockTq2_0& b) {
  const float d = std::abs(extreme<256>(x)), id = inverse(d);
  b.d = to_f16(d);
  for (int i = 0; i < 64; ++i) {
    uint32_t q = 0;
    for (int part = 0; part < 4; ++part)
      q |= ternary_code(x[i / 32 * 128 + 32 * part + i % 32], id) << (2 * part);
    b.qs[i] = static_cast<uint8_t>(q);
  }
}

template <typename Block>
void quantize_row(const float* x, void* blocks, int64_t n) {
  auto* block = static_cast<Block*>(blocks);
  for (int64_t i = 0; i < n; i += Block::length) quantize(x + i, *block++);
}

}  // namespace

void add_reference_quantize(BlockKernels& table) {
  auto& quantize = table.quantize;
  quantize[BlockType::q4_0] = quantize_row<BlockQ4_0>;
  quantize[BlockType::q4_1] = quantize_row<BlockQ4_1>;
  quantize[BlockType::q5_0] = quantize_row<BlockQ5_0>;
  quantize[BlockType::q5_1] = quantize_row<BlockQ5_1>;
  quantize[BlockType::q8_0] = quantize_row<BlockQ8_0>;
  quantize[BlockType::q8_1] = quantize_row<BlockQ8_1>;
  quantize[BlockType::q8_k] = quantize_row<BlockQ8K>;
  quantize[BlockType::iq4_nl] = quantize_row<BlockIq4Nl>;
  quantize[BlockType::mxfp4] = quantize_row<BlockMxfp4>;
  quantize[BlockType::tq1_0] = quantize_row<BlockTq1_0>;
  quantize[BlockType::tq2_0] = quantize_row<BlockTq2_0>;
}

BlockKernels block_kernels_reference() {
  BlockKernels table{};
  add_reference_dequantize(table);
  add_reference_product(table);
  add_reference_quantize(table);
  add_reference_rounding(table);
  return table;
}

}  // namespace qkv
