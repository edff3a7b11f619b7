#include "qkv/quant/pack_blocks.h"

#include <array>
#include <cstring>

#include "qkv/kernels/block_codebooks.h"

namespace qkv {
namespace {

// The code of every level, levels as bytes.
template <size_t count>
constexpr std::array<uint8_t, 256> codes_of_levels(const std::array<int8_t, count>& levels) {
  std::array<uint8_t, 256> codes{};
  for (size_t i = count; i-- > 0;) codes[static_cast<uint8_t>(levels[i])] = static_cast<uint8_t>(i);
  return codes;
}
constexpr std::array<uint8_t, 256> kIq4Codes = codes_of_levels(kIq4Values);
constexpr std::array<uint8_t, 256> kMxfp4Codes = codes_of_levels(kMxfp4Values);

uint8_t byte(int value) {
  return static_cast<uint8_t>(value);
}

// Low nibbles: codes 0 ... 15; high nibbles: codes 16 ... 31.
template <class CodeOf>
void pack_halves(const int8_t* __restrict codes, uint8_t* __restrict qs, CodeOf&& code_of) {
  for (int i = 0; i < 16; ++i) qs[i] = byte((code_of(codes[i]) & 15) | (code_of(codes[i + 16]) & 15) << 4);
}

template <class CodeOf>
void pack_fifth(const int8_t* codes, uint8_t* qh, CodeOf&& code_of) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(code_of(codes[i]) >> 4 & 1) << i;
  for (int i = 0; i < 4; ++i) qh[i] = byte(static_cast<int>(bits >> (8 * i) & 255));
}

int plain(int8_t code) {
  return code;
}
template <int offset>
int shifted(int8_t code) {
  return code + offset;
}
int iq4(int8_t level) {
  return kIq4Codes[static_cast<uint8_t>(level)];
}

// Two bits of each of 256 codes; per 128 values byte i holds values i, i + 32, i + 64, i + 96.
template <class CodeOf>
void pack_pairs(const int8_t* __restrict codes, uint8_t* __restrict qs, CodeOf&& code_of) {
  for (int half = 0; half < 2; ++half, codes += 128, qs += 32) {
    for (int i = 0; i < 32; ++i) {
      qs[i] = byte((code_of(codes[i]) & 3) | (code_of(codes[i + 32]) & 3) << 2 |
                   (code_of(codes[i + 64]) & 3) << 4 | (code_of(codes[i + 96]) & 3) << 6);
    }
  }
}

// Per 64 values: low nibbles are the first 32, high nibbles the others.
void pack_nibbles(const int8_t* __restrict codes, uint8_t* __restrict qs) {
  for (int part = 0; part < 4; ++part, codes += 64, qs += 32) {
    for (int i = 0; i < 32; ++i) qs[i] = byte((codes[i] & 15) | (codes[i + 32] & 15) << 4);
  }
}

// 8 scales and 8 minimums of 6 bits, as block_reference.h reads them.
void pack_six_bits(const int* scales, const int* minimums, uint8_t* bytes) {
  for (int g = 0; g < 4; ++g) {
    bytes[g] = byte(scales[g] | (scales[g + 4] >> 4) << 6);
    bytes[g + 4] = byte(minimums[g] | (minimums[g + 4] >> 4) << 6);
    bytes[g + 8] = byte((scales[g + 4] & 15) | (minimums[g + 4] & 15) << 4);
  }
}

// Five levels -1, 0, 1 as base-3 digits of a fraction of 256, rounded up so that digits come back by
// multiplication.
uint8_t ternary_byte(const int8_t* codes, int count, int stride) {
  int q = 0;
  for (int i = 0; i < 5; ++i) q = q * 3 + (i < count ? codes[i * stride] + 1 : 0);
  return byte((q * 256 + 242) / 243);
}

}  // namespace

void pack_codes(const int8_t* codes, BlockQ4_0& block) {
  pack_halves(codes, block.qs, shifted<8>);
}
void pack_codes(const int8_t* codes, BlockQ4_1& block) {
  pack_halves(codes, block.qs, plain);
}
void pack_codes(const int8_t* codes, BlockQ5_0& block) {
  pack_halves(codes, block.qs, shifted<16>);
  pack_fifth(codes, block.qh, shifted<16>);
}
void pack_codes(const int8_t* codes, BlockQ5_1& block) {
  pack_halves(codes, block.qs, plain);
  pack_fifth(codes, block.qh, plain);
}
void pack_codes(const int8_t* codes, BlockQ8_0& block) {
  std::memcpy(block.qs, codes, sizeof block.qs);
}
void pack_codes(const int8_t* codes, BlockIq4Nl& block) {
  pack_halves(codes, block.qs, iq4);
}
void pack_codes(const int8_t* codes, BlockMxfp4& block) {
  pack_halves(codes, block.qs,
              [](int8_t level) { return static_cast<int>(kMxfp4Codes[static_cast<uint8_t>(level)]); });
}

void pack_codes(const int8_t* codes, BlockTq1_0& block) {
  for (int i = 0; i < 32; ++i) block.qs[i] = ternary_byte(codes + i, 5, 32);
  for (int i = 0; i < 16; ++i) block.qs[32 + i] = ternary_byte(codes + 160 + i, 5, 16);
  for (int i = 0; i < 4; ++i) block.qh[i] = ternary_byte(codes + 240 + i, 4, 4);
}
void pack_codes(const int8_t* codes, BlockTq2_0& block) {
  pack_pairs(codes, block.qs, shifted<1>);
}

void pack_codes(const int8_t* codes, BlockQ2K& block) {
  pack_pairs(codes, block.qs, plain);
}
void pack_codes(const int8_t* codes, BlockQ3K& block) {
  pack_pairs(codes, block.qs, shifted<4>);
  for (int i = 0; i < 32; ++i) {
    int bits = 0;
    for (int g = 0; g < 8; ++g) bits |= ((codes[32 * g + i] + 4) >> 2) << g;
    block.hmask[i] = byte(bits);
  }
}
void pack_codes(const int8_t* codes, BlockQ4K& block) {
  pack_nibbles(codes, block.qs);
}
void pack_codes(const int8_t* codes, BlockQ5K& block) {
  pack_nibbles(codes, block.qs);
  for (int i = 0; i < 32; ++i) {
    int bits = 0;
    for (int g = 0; g < 8; ++g) bits |= (codes[32 * g + i] >> 4) << g;
    block.qh[i] = byte(bits);
  }
}
void pack_codes(const int8_t* codes, BlockQ6K& block) {
  uint8_t c[256];
  for (int i = 0; i < 256; ++i) c[i] = static_cast<uint8_t>(codes[i] + 32);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* from = c + 128 * half;
    for (int i = 0; i < 64; ++i) block.ql[64 * half + i] = byte((from[i] & 15) | (from[i + 64] & 15) << 4);
    for (int i = 0; i < 32; ++i) {
      block.qh[32 * half + i] =
          byte(from[i] >> 4 | (from[i + 32] >> 4) << 2 | (from[i + 64] >> 4) << 4 | (from[i + 96] >> 4) << 6);
    }
  }
}
void pack_codes(const int8_t* codes, BlockIq4Xs& block) {
  for (int g = 0; g < 8; ++g) pack_halves(codes + 32 * g, block.qs + 16 * g, iq4);
}

void pack_scales(const int* scales, const int* minimums, BlockQ2K& block) {
  for (int g = 0; g < 16; ++g) block.scales[g] = byte(scales[g] | minimums[g] << 4);
}
void pack_scales(const int* scales, const int* minimums, BlockQ4K& block) {
  pack_six_bits(scales, minimums, block.scales);
}
void pack_scales(const int* scales, const int* minimums, BlockQ5K& block) {
  pack_six_bits(scales, minimums, block.scales);
}

void pack_scales(const int* scales, BlockQ3K& block) {
  for (int g = 0; g < 8; ++g) {
    block.scales[g] = byte(((scales[g] + 32) & 15) | ((scales[g + 8] + 32) & 15) << 4);
  }
  for (int g = 0; g < 4; ++g) {
    int bits = 0;
    for (int part = 0; part < 4; ++part) bits |= ((scales[4 * part + g] + 32) >> 4) << (2 * part);
    block.scales[8 + g] = byte(bits);
  }
}
void pack_scales(const int* scales, BlockQ6K& block) {
  for (int g = 0; g < 16; ++g) block.scales[g] = static_cast<int8_t>(scales[g]);
}
void pack_scales(const int* scales, BlockIq4Xs& block) {
  block.scales_h = 0;
  for (int g = 0; g < 8; ++g) {
    const int code = scales[g] + 32;
    block.scales_h = static_cast<uint16_t>(block.scales_h | (code >> 4) << (2 * g));
    block.scales_l[g / 2] = byte(g % 2 == 0 ? code & 15 : block.scales_l[g / 2] | (code & 15) << 4);
  }
}

}  // namespace qkv
