// Plain dequantization of every block type. The order of roundings is the format's: see blocks.h. Compiled
// without contraction of a * b + c.
#include <cstring>

#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/block_reference.h"

namespace qkv {
namespace {

// Codes of a "halves" layout: code(low or high nibble, index of the value in its 32) -> value.
template <typename Value>
void halves(const uint8_t* qs, float* out, Value value) {
  for (int i = 0; i < 16; ++i) {
    out[i] = value(qs[i] & 15, i);
    out[i + 16] = value(qs[i] >> 4, i + 16);
  }
}

int fifth_bit(const uint8_t* qh, int i) {
  return ((qh[i / 8] >> (i % 8)) & 1) << 4;
}

void dequantize(const BlockQ4_0& b, float* out) {
  const float d = to_float(b.d);
  halves(b.qs, out, [&](int code, int) { return static_cast<float>(code - 8) * d; });
}
void dequantize(const BlockQ4_1& b, float* out) {
  const float d = to_float(b.d), m = to_float(b.m);
  halves(b.qs, out, [&](int code, int) { return static_cast<float>(code) * d + m; });
}
void dequantize(const BlockQ5_0& b, float* out) {
  const float d = to_float(b.d);
  halves(b.qs, out,
         [&](int code, int i) { return static_cast<float>((code | fifth_bit(b.qh, i)) - 16) * d; });
}
void dequantize(const BlockQ5_1& b, float* out) {
  const float d = to_float(b.d), m = to_float(b.m);
  halves(b.qs, out, [&](int code, int i) { return static_cast<float>(code | fifth_bit(b.qh, i)) * d + m; });
}
void dequantize(const BlockQ8_0& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(b.qs[i]) * d;
}
void dequantize(const BlockQ8_1& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(b.qs[i]) * d;
}
void dequantize(const BlockIq4Nl& b, float* out) {
  const float d = to_float(b.d);
  halves(b.qs, out,
         [&](int code, int) { return d * static_cast<float>(kIq4Values[static_cast<size_t>(code)]); });
}
void dequantize(const BlockMxfp4& b, float* out) {
  const float d = mxfp4_scale(b.e);
  halves(b.qs, out,
         [&](int code, int) { return static_cast<float>(kMxfp4Values[static_cast<size_t>(code)]) * d; });
}

// q2_k, q3_k and tq2_0 keep two bits of value i in byte 32 * (i / 128) + i % 32.
int two_bits(const uint8_t* qs, int i) {
  return (qs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3;
}

void dequantize(const BlockQ2K& b, float* out) {
  const float d = to_float(b.d), dmin = to_float(b.dmin);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(b.scales[g] & 15),
                min = dmin * static_cast<float>(b.scales[g] >> 4);
    for (int i = 16 * g; i < 16 * (g + 1); ++i) out[i] = scale * static_cast<float>(two_bits(b.qs, i)) - min;
  }
}
void dequantize(const BlockQ3K& b, float* out) {
  const float d = to_float(b.d);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(q3_k_scale(b.scales, g) - 32);
    for (int i = 16 * g; i < 16 * (g + 1); ++i) {
      const int third = (b.hmask[i % 32] >> (i / 32)) & 1;
      out[i] = scale * static_cast<float>(two_bits(b.qs, i) - 4 * (1 - third));
    }
  }
}
void dequantize(const BlockQ4K& b, float* out) {
  const float d = to_float(b.d), dmin = to_float(b.dmin);
  for (int g = 0; g < 8; ++g) {
    int scale_code = 0, min_code = 0;
    scale_and_min(b.scales, g, scale_code, min_code);
    const float scale = d * static_cast<float>(scale_code), min = dmin * static_cast<float>(min_code);
    for (int i = 0; i < 32; ++i) {
      const int code = (b.qs[32 * (g / 2) + i] >> (4 * (g % 2))) & 15;
      out[32 * g + i] = scale * static_cast<float>(code) - min;
    }
  }
}
void dequantize(const BlockQ5K& b, float* out) {
  const float d = to_float(b.d), dmin = to_float(b.dmin);
  for (int g = 0; g < 8; ++g) {
    int scale_code = 0, min_code = 0;
    scale_and_min(b.scales, g, scale_code, min_code);
    const float scale = d * static_cast<float>(scale_code), min = dmin * static_cast<float>(min_code);
    for (int i = 0; i < 32; ++i) {
      const int code = ((b.qs[32 * (g / 2) + i] >> (4 * (g % 2))) & 15) | (((b.qh[i] >> g) & 1) << 4);
      out[32 * g + i] = scale * static_cast<float>(code) - min;
    }
  }
}
void dequantize(const BlockQ6K& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, j = i % 128;
    const int low = (b.ql[64 * half + j % 64] >> (4 * (j / 64))) & 15;
    const int high = (b.qh[32 * half + j % 32] >> (2 * (j / 32))) & 3;
    out[i] = d * static_cast<float>(b.scales[i / 16]) * static_cast<float>((low | (high << 4)) - 32);
  }
}
void dequantize(const BlockQ8K& b, float* out) {
  for (int i = 0; i < 256; ++i) out[i] = b.d * static_cast<float>(b.qs[i]);
}

// n magnitudes from a codebook, negated where a bit of `signs` is set.
template <size_t n>
void signed_grid(float scale, const std::array<uint8_t, n>& grid, uint32_t signs, float* out) {
  for (size_t i = 0; i < n; ++i) {
    out[i] = scale * static_cast<float>(grid[i]) * ((signs >> i) & 1 ? -1.0f : 1.0f);
  }
}

uint32_t word(const void* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

void dequantize(const BlockIq2Xxs& b, float* out) {
  const float d = to_float(b.d);
  for (int g = 0; g < 8; ++g) {  // 32 values
    const uint32_t indices = word(b.qs + 4 * g), rest = word(b.qs + 4 * g + 2);
    const float scale = d * (0.5f + static_cast<float>(rest >> 28)) * 0.25f;
    for (int l = 0; l < 4; ++l) {
      signed_grid(scale, kIq2XxsGrid[(indices >> (8 * l)) & 255], signs_of_seven(rest >> (7 * l)),
                  out + 32 * g + 8 * l);
    }
  }
}
void dequantize(const BlockIq2Xs& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 32; ++i) {  // 8 values
    const int code = (b.scales[i / 4] >> (4 * (i / 2 % 2))) & 15;
    const float scale = d * (0.5f + static_cast<float>(code)) * 0.25f;
    signed_grid(scale, kIq2XsGrid[b.qs[i] & 511], signs_of_seven(b.qs[i] >> 9), out + 8 * i);
  }
}
void dequantize(const BlockIq2S& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 32; ++i) {  // 8 values
    const int code = (b.scales[i / 4] >> (4 * (i / 2 % 2))) & 15;
    const float scale = d * (0.5f + static_cast<float>(code)) * 0.25f;
    const size_t index = b.qs[i] | static_cast<size_t>((b.qh[i / 4] >> (2 * (i % 4))) & 3) << 8;
    signed_grid(scale, kIq2SGrid[index], b.signs[i], out + 8 * i);
  }
}
void dequantize(const BlockIq3Xxs& b, float* out) {
  const float d = to_float(b.d);
  for (int g = 0; g < 8; ++g) {  // 32 values
    const uint32_t rest = word(b.scales_and_signs + 4 * g);
    const float scale = d * (0.5f + static_cast<float>(rest >> 28)) * 0.5f;
    for (int l = 0; l < 4; ++l) {
      const uint32_t signs = signs_of_seven(rest >> (7 * l));
      signed_grid(scale, kIq3XxsGrid[b.qs[8 * g + 2 * l]], signs, out + 32 * g + 8 * l);
      signed_grid(scale, kIq3XxsGrid[b.qs[8 * g + 2 * l + 1]], signs >> 4, out + 32 * g + 8 * l + 4);
    }
  }
}
void dequantize(const BlockIq3S& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 64; ++i) {  // 4 values
    const int g = i / 8;
    const float scale = d * static_cast<float>(1 + 2 * ((b.scales[g / 2] >> (4 * (g % 2))) & 15));
    const size_t index = b.qs[i] | static_cast<size_t>((b.qh[g] >> (i % 8)) & 1) << 8;
    signed_grid(scale, kIq3SGrid[index], static_cast<uint32_t>(b.signs[i / 2]) >> (4 * (i % 2)), out + 4 * i);
  }
}

constexpr float kEighth = 0.125f;

void shifted_grid(float scale, size_t index, bool down, float* out) {
  const float shift = down ? -kEighth : kEighth;
  for (size_t i = 0; i < 8; ++i) out[i] = scale * (static_cast<float>(kIq1Grid[index][i]) + shift);
}

void dequantize(const BlockIq1S& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 32; ++i) {  // 8 values
    const uint32_t qh = b.qh[i / 4];
    const float scale = d * static_cast<float>(2 * ((qh >> 12) & 7) + 1);
    shifted_grid(scale, b.qs[i] | ((qh >> (3 * (i % 4))) & 7) << 8, (qh & 0x8000) != 0, out + 8 * i);
  }
}
void dequantize(const BlockIq1M& b, float* out) {
  uint16_t words[4];
  std::memcpy(words, b.scales, sizeof(words));
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(words[i] >> 12) << (4 * i);
  const float d = to_float(f16{static_cast<uint16_t>(bits)});
  for (int i = 0; i < 32; ++i) {  // 8 values
    const float scale = d * static_cast<float>(2 * ((words[i / 8] >> (3 * (i / 2 % 4))) & 7) + 1);
    const uint32_t qh = static_cast<uint32_t>(b.qh[i / 2]) >> (4 * (i % 2));
    shifted_grid(scale, b.qs[i] | (qh & 7) << 8, (qh & 8) != 0, out + 8 * i);
  }
}
void dequantize(const BlockIq4Xs& b, float* out) {
  const float d = to_float(b.d);
  for (int g = 0; g < 8; ++g) {
    const int code = ((b.scales_l[g / 2] >> (4 * (g % 2))) & 15) | (((b.scales_h >> (2 * g)) & 3) << 4);
    const float scale = d * static_cast<float>(code - 32);
    halves(b.qs + 16 * g, out + 32 * g,
           [&](int q, int) { return scale * static_cast<float>(kIq4Values[static_cast<size_t>(q)]); });
  }
}

// The digit after `skip` others: the byte is a fraction of 256 whose base-3 digits are the codes.
float ternary(uint8_t packed, int skip, float d) {
  constexpr uint8_t powers[5] = {1, 3, 9, 27, 81};
  const auto rest = static_cast<uint8_t>(packed * powers[skip]);
  return static_cast<float>(((rest * 3) >> 8) - 1) * d;
}

void dequantize(const BlockTq1_0& b, float* out) {
  const float d = to_float(b.d);
  for (int digit = 0; digit < 5; ++digit) {
    for (int i = 0; i < 32; ++i) *out++ = ternary(b.qs[i], digit, d);
  }
  for (int digit = 0; digit < 5; ++digit) {
    for (int i = 32; i < 48; ++i) *out++ = ternary(b.qs[i], digit, d);
  }
  for (int digit = 0; digit < 4; ++digit) {
    for (int i = 0; i < 4; ++i) *out++ = ternary(b.qh[i], digit, d);
  }
}
void dequantize(const BlockTq2_0& b, float* out) {
  const float d = to_float(b.d);
  for (int i = 0; i < 256; ++i) out[i] = static_cast<float>(two_bits(b.qs, i) - 1) * d;
}

template <typename Block>
void dequantize_row(const void* blocks, float* out, int64_t n) {
  const auto* block = static_cast<const Block*>(blocks);
  for (int64_t i = 0; i < n; i += Block::length) dequantize(*block++, out + i);
}

}  // namespace

DequantizeRow* plain_dequantize(BlockType type) {
  return with_block(type, [](auto* block) -> DequantizeRow* {
    return dequantize_row<std::remove_pointer_t<decltype(block)>>;
  });
}

void add_reference_dequantize(BlockKernels& table) {
  for (int i = 0; i < kBlockTypeCount; ++i)
    table.dequantize.entries[i] = plain_dequantize(static_cast<BlockType>(i));
}

}  // namespace qkv
