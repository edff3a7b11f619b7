// Codec loops for AVX-512 with VBMI and VBMI2 (Ice Lake and later, Zen 4 and later): bytes are permuted,
// shifted by counts of their own and expanded by masks, 64 at a time.
#include <immintrin.h>

#include <cstring>

#include "qkv/kernels/codec_kernels.h"
#include "qkv/kernels/isa/codec_tables.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/codec.inl"

// Byte j of lane l: f(l, j).
template <typename F>
__m512i bytes_of_lanes(F f) {
  alignas(64) uint8_t bytes[64];
  for (int lane = 0; lane < 8; ++lane) {
    for (int j = 0; j < 8; ++j) bytes[8 * lane + j] = static_cast<uint8_t>(f(lane, j));
  }
  return _mm512_load_si512(bytes);
}

// 64 numbers of `bits` (at most 8) bits each, packed: brings each lane its eight, then each byte its own.
struct Unpack {
  explicit Unpack(int bits)
      : lanes(bytes_of_lanes([&](int lane, int j) { return j < bits ? lane * bits + j : 0; })),
        shifts(bytes_of_lanes([&](int, int j) { return j * bits; })),
        mask(_mm512_set1_epi8(static_cast<char>((1 << bits) - 1))) {}
  __m512i operator()(__m512i packed) const {
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(lanes, packed)),
                            mask);
  }
  __m512i lanes, shifts, mask;
};

void pack7_by_products(const uint8_t* bytes, int64_t n, std::byte* packed) {
  // Neighbours closed up: a + 2^7 b in 16 bits, then a + 2^14 b in 32, then the two halves of 64.
  const __m512i pairs = _mm512_set1_epi16(static_cast<short>(1 | 128 << 8)),
                quads = _mm512_set1_epi32(1 | 1 << 30), close = bytes_of_lanes([](int lane, int j) {
                                                          const int to = 8 * lane + j;
                                                          return to < 56 ? to / 7 * 8 + to % 7 : 0;
                                                        });
  int64_t i = 0;
  for (; i + 64 <= n; i += 64, packed += 56) {
    // The first operand is unsigned: 128 is itself there; the numbers, below 128, may be signed.
    __m512i x = _mm512_maddubs_epi16(pairs, _mm512_loadu_si512(bytes + i));
    x = _mm512_madd_epi16(x, quads);
    x = _mm512_or_si512(_mm512_and_si512(x, _mm512_set1_epi64(0x0FFFFFFF)),
                        _mm512_slli_epi64(_mm512_srli_epi64(x, 32), 28));
    _mm512_mask_storeu_epi8(packed, (uint64_t{1} << 56) - 1, _mm512_permutexvar_epi8(close, x));
  }
  pack7(bytes + i, n - i, packed);
}

void join_packed_bytes(const std::byte* packed, int64_t n, uint16_t* words) {
  const Unpack unpack(7);
  const __m512i sign = _mm512_set1_epi16(0x40), low = _mm512_set1_epi16(0x3F);
  const auto join = [&](uint16_t* to, __m256i rest) {
    const __m512i wide = _mm512_cvtepu8_epi16(rest);
    const __m512i bits =
        _mm512_or_si512(_mm512_slli_epi16(_mm512_and_si512(wide, sign), 9), _mm512_and_si512(wide, low));
    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_loadu_si512(to), bits));
  };
  int64_t i = 0;
  for (; i + 64 <= n; i += 64, packed += 56) {
    const __m512i rest = unpack(_mm512_maskz_loadu_epi8((uint64_t{1} << 56) - 1, packed));
    join(words + i, _mm512_castsi512_si256(rest));
    join(words + i + 32, _mm512_extracti64x4_epi64(rest, 1));
  }
  join_packed(packed, n - i, words + i);
}

// Codebooks of at most 256 words, as their low and their high bytes: four registers each.
void look_up_bytes(const std::byte* indices, int bits, int64_t n, const uint16_t* codebook, uint16_t* words) {
  if (bits > 8) return look_up(indices, bits, n, codebook, words);
  alignas(64) uint8_t low[256] = {}, high[256] = {};
  for (int e = 0; e < 1 << bits; ++e) {
    low[e] = static_cast<uint8_t>(codebook[e]);
    high[e] = static_cast<uint8_t>(codebook[e] >> 8);
  }
  __m512i l[4], h[4];
  for (int r = 0; r < 4; ++r) {
    l[r] = _mm512_load_si512(low + 64 * r);
    h[r] = _mm512_load_si512(high + 64 * r);
  }
  const Unpack unpack(bits);
  const __mmask64 loaded = bits == 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * bits) - 1;
  // Where the unpacked halves of low and high bytes belong in 64 words.
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  int64_t i = 0;
  for (; i + 64 <= n; i += 64, indices += 8 * bits) {
    __m512i index = _mm512_maskz_loadu_epi8(loaded, indices);
    if (bits < 8) index = unpack(index);
    const __mmask64 upper = _mm512_movepi8_mask(index);
    const auto value = [&](const __m512i* t) {
      return _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(t[0], index, t[1]),
                                    _mm512_permutex2var_epi8(t[2], index, t[3]));
    };
    // Within 128 bits, the interleaving takes each half's bytes: 64-bit pieces are put so that it ends in
    // order.
    const __m512i a = _mm512_permutexvar_epi64(order, value(l)),
                  b = _mm512_permutexvar_epi64(order, value(h));
    _mm512_storeu_si512(words + i, _mm512_unpacklo_epi8(a, b));
    _mm512_storeu_si512(words + i + 32, _mm512_unpackhi_epi8(a, b));
  }
  look_up(indices, bits, n - i, codebook, words + i);
}

void merge_by_expansion(const std::byte* bitmaps, int64_t groups, const uint16_t* known,
                        const std::byte* others, uint16_t* words) {
  int64_t g = 0;
  for (; g + 4 <= groups; g += 4, words += 32) {
    uint32_t map;
    std::memcpy(&map, bitmaps + g, 4);
    const __m512i a = _mm512_maskz_expand_epi16(map, _mm512_loadu_si512(known)),
                  b = _mm512_maskz_expand_epi16(~map, _mm512_loadu_si512(others));
    _mm512_storeu_si512(words, _mm512_or_si512(a, b));
    const int count = __builtin_popcount(map);
    known += count;
    others += 2 * (32 - count);
  }
  merge_words(bitmaps + g, groups - g, known, others, words);
}

}  // namespace

CodecKernels kernels_avx512_codec() {
  CodecKernels table = make_codec_table();
  table.pack7 = pack7_by_products;
  table.join_packed = join_packed_bytes;
  table.look_up = look_up_bytes;
  table.merge_words = merge_by_expansion;
  return table;
}

}  // namespace qkv
