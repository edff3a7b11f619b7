// Codec loops for AVX2 and BMI2.
#include <immintrin.h>

#include <array>
#include <cstring>

#include "qkv/kernels/codec_kernels.h"
#include "qkv/kernels/isa/codec_tables.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/codec.inl"

// For every bitmap, where the bytes of eight words come from: words of the mask from the lowest on, others
// 0x80.
struct alignas(16) Shuffle {
  uint8_t from[16];
};
constexpr std::array<Shuffle, 256> kSpread = [] {
  std::array<Shuffle, 256> table{};
  for (unsigned map = 0; map < 256; ++map) {
    uint8_t next = 0;
    for (unsigned i = 0; i < 8; ++i) {
      const bool taken = (map >> i & 1) != 0;
      table[map].from[2 * i] = taken ? static_cast<uint8_t>(2 * next) : 0x80;
      table[map].from[2 * i + 1] = taken ? static_cast<uint8_t>(2 * next + 1) : 0x80;
      next = static_cast<uint8_t>(next + (taken ? 1 : 0));
    }
  }
  return table;
}();

void merge_by_shuffles(const std::byte* bitmaps, int64_t groups, const uint16_t* known,
                       const std::byte* others, uint16_t* words) {
  for (int64_t g = 0; g < groups; ++g, words += 8) {
    const auto map = static_cast<unsigned>(bitmaps[g]);
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(known)),
                  b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(others)),
                  from_a = _mm_load_si128(reinterpret_cast<const __m128i*>(kSpread[map].from)),
                  from_b = _mm_load_si128(reinterpret_cast<const __m128i*>(kSpread[map ^ 0xFF].from));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words),
                     _mm_or_si128(_mm_shuffle_epi8(a, from_a), _mm_shuffle_epi8(b, from_b)));
    const int count = __builtin_popcount(map);
    known += count;
    others += 2 * (8 - count);
  }
}

}  // namespace

CodecKernels kernels_avx2_codec() {
  CodecKernels table = make_codec_table();
  table.merge_words = merge_by_shuffles;
  return table;
}

}  // namespace qkv
