// Products of rows of blocks with few activations rounded to bytes on AVX-512 VNNI, 256 values at a time, whose scales are one
// register. What is left of a row goes through RowChunk.
//
// A type says, for 256 values that begin at `b`:
//   raise           what the codes that are multiplied are above the codes, 0 where the type has offsets
//   scales(b)       groups of 32: eight scales, then eight offsets (or the scales again where there are none)
//                   groups of 16: sixteen scales
//   offsets(b)      groups of 16 with offsets: sixteen of them
//   codes<j>(b)     groups of 16: raised codes of values 64 j ... 64 j + 63, not negative

template <class Block>
struct Wide;

// Lower half, upper half.
HWY_INLINE __m512i two_halves(int low, int high) {
  return _mm512_inserti64x4(_mm512_set1_epi32(low), _mm256_set1_epi32(high), 1);
}
HWY_INLINE __m512 both(__m256 low, __m256 high) { return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1); }
// 32 bytes twice.
HWY_INLINE __m512i twice32(const uint8_t* p) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// Every byte of the lower half shifted right by `low` bits, of the upper one by `high`, bits of neighbours among them; counts
// below zero shift to the left.
template <int low, int high>
HWY_INLINE __m512i turned(__m512i v) {
  if constexpr (low >= 0 && high >= 0) return _mm512_srlv_epi32(v, two_halves(low, high));
  return _mm512_rorv_epi32(v, two_halves(low & 31, high & 31));
}
HWY_INLINE __m512i bits_of(__m512i v, char mask) { return _mm512_and_si512(v, _mm512_set1_epi8(mask)); }
// codes | (v & mask)
HWY_INLINE __m512i with_bits(__m512i codes, __m512i v, char mask) {
  return _mm512_ternarylogic_epi32(codes, v, _mm512_set1_epi8(mask), 0xF8);
}
HWY_INLINE __m128i bytes_of(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
HWY_INLINE __m512 floats_of(__m128i unsigned_bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(unsigned_bytes)); }
HWY_INLINE __m512 signed_floats_of(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }
// A scalar f16 in all lanes.
HWY_INLINE __m512 half512(f16 h) { return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h.bits))); }

// ---- blocks of 32 with one scale ----

template <class Block>
  requires(Block::length == 32)
struct Wide<Block> {
  static constexpr int raise = Codes<Block>::is_signed ? 128 : Codes<Block>::raise;
  static HWY_INLINE __m512 scales(const Block* b) {
    if constexpr (sizeof(Block) == 18) {  // all eight are in the first 128 bytes, nine words apart
      const __m512i low = _mm512_loadu_si512(b), high = _mm512_loadu_si512(reinterpret_cast<const char*>(b) + 64);
      const __m256i once = _mm256_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63, 0, 9, 18, 27, 36, 45, 54, 63);
      const __m512i words = _mm512_permutex2var_epi16(low, _mm512_castsi256_si512(once), high);
      return _mm512_cvtph_ps(_mm512_castsi512_si256(words));
    }
    const __m256 first = halves_apart(&b->d, sizeof(Block));
    if constexpr (Codes<Block>::has_offset) {
      return both(first, halves_apart(&b->m, sizeof(Block)));
    } else {
      return both(first, first);
    }
  }
};
template <>
struct Wide<BlockMxfp4> {
  static constexpr int raise = 128;
  static HWY_INLINE __m512 scales(const BlockMxfp4* b) {
    const __m256i e = _mm256_setr_epi32(b[0].e, b[1].e, b[2].e, b[3].e, b[4].e, b[5].e, b[6].e, b[7].e);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    const __m256i bits = _mm256_mask_mov_epi32(normal, _mm256_cmplt_epi32_mask(e, _mm256_set1_epi32(2)), small);
    return both(_mm256_castsi256_ps(bits), _mm256_castsi256_ps(bits));
  }
};

// ---- blocks of 256 ----

// q4_k and q5_k: d, dmin and their scales are the first 16 bytes.
HWY_INLINE __m512 wide_scales_and_minima(const void* block) {
  const __m128i v = bytes_of(block);  // d and dmin, then three words of scales
  const __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(v, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
  const __m128i high = _mm_and_si128(_mm_srli_epi32(_mm_shuffle_epi32(v, _MM_SHUFFLE(2, 2, 1, 1)), 2),
                                     _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
  const __m128i mask = _mm_setr_epi32(0x3F3F3F3F, 0x0F0F0F0F, 0x3F3F3F3F, 0x0F0F0F0F);
  const __m128i codes = _mm_ternarylogic_epi32(high, low, mask, 0xF8);
  const __m512 halves = _mm512_castps128_ps512(_mm_cvtph_ps(v));
  const __m512 d = _mm512_permutexvar_ps(two_halves(0, 1), halves);
  const __m512 signs = _mm512_castsi512_ps(two_halves(0, static_cast<int>(0x80000000)));
  return _mm512_mul_ps(_mm512_xor_ps(d, signs), floats_of(codes));
}

template <>
struct Wide<BlockQ4K> {
  static_assert(offsetof(BlockQ4K, d) == 0 && offsetof(BlockQ4K, dmin) == 2 && offsetof(BlockQ4K, scales) == 4);
  static constexpr int raise = 0;
  static HWY_INLINE __m512 scales(const BlockQ4K* b) { return wide_scales_and_minima(b); }
};
template <>
struct Wide<BlockQ5K> {
  static_assert(offsetof(BlockQ5K, d) == 0 && offsetof(BlockQ5K, dmin) == 2 && offsetof(BlockQ5K, scales) == 4);
  static constexpr int raise = 0;
  static HWY_INLINE __m512 scales(const BlockQ5K* b) { return wide_scales_and_minima(b); }
};
template <>
struct Wide<BlockQ6K> {
  static constexpr int raise = 32;
  template <int j>
  static HWY_INLINE __m512i codes(const BlockQ6K* b) {
    const __m512i v = _mm512_loadu_si512(b->ql + 64 * (j / 2));
    const __m512i low = bits_of(j % 2 == 0 ? v : _mm512_srli_epi32(v, 4), 15);
    constexpr int shift = 4 * (j % 2) - 4;
    return with_bits(low, turned<shift, shift + 2>(twice32(b->qh + 32 * (j / 2))), 0x30);
  }
  static HWY_INLINE __m512 scales(const BlockQ6K* b) {
    return _mm512_mul_ps(half512(b->d), signed_floats_of(bytes_of(b->scales)));
  }
};
template <>
struct Wide<BlockQ2K> {
  static constexpr int raise = 0;
  template <int j>
  static HWY_INLINE __m512i codes(const BlockQ2K* b) {
    constexpr int shift = 4 * (j % 2);
    return bits_of(turned<shift, shift + 2>(twice32(b->qs + 32 * (j / 2))), 3);
  }
  static HWY_INLINE __m512 scales(const BlockQ2K* b) {
    return _mm512_mul_ps(half512(b->d), floats_of(_mm_and_si128(bytes_of(b->scales), _mm_set1_epi8(15))));
  }
  static HWY_INLINE __m512 offsets(const BlockQ2K* b) {
    const __m128i high = _mm_and_si128(_mm_srli_epi32(bytes_of(b->scales), 4), _mm_set1_epi8(15));
    return _mm512_mul_ps(_mm512_xor_ps(half512(b->dmin), _mm512_set1_ps(-0.0f)), floats_of(high));
  }
};
template <>
struct Wide<BlockQ3K> {
  static constexpr int raise = 4;
  template <int j>
  static HWY_INLINE __m512i codes(const BlockQ3K* b) {
    constexpr int shift = 4 * (j % 2);
    const __m512i low = bits_of(turned<shift, shift + 2>(twice32(b->qs + 32 * (j / 2))), 3);
    return with_bits(low, turned<2 * j - 2, 2 * j - 1>(twice32(b->hmask)), 4);
  }
  static HWY_INLINE __m512 scales(const BlockQ3K* b) {
    const __m128i v = bytes_of(reinterpret_cast<const uint8_t*>(b) + offsetof(BlockQ3K, scales) - 4);  // the last codes, then three words
    const __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(v, _MM_SHUFFLE(2, 1, 2, 1)), _mm_setr_epi32(0, 0, 4, 4));
    const __m128i high = _mm_srlv_epi32(_mm_shuffle_epi32(v, _MM_SHUFFLE(3, 3, 3, 3)), _mm_setr_epi32(0, 2, 4, 6));
    const __m128i codes = _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)),
                                       _mm_slli_epi32(_mm_and_si128(high, _mm_set1_epi8(3)), 4));
    return _mm512_mul_ps(half512(b->d), signed_floats_of(_mm_sub_epi8(codes, _mm_set1_epi8(32))));
  }
};
template <>
struct Wide<BlockIq4Xs> {
  static constexpr int raise = 128;
  static HWY_INLINE __m512 scales(const BlockIq4Xs* b) {
    uint32_t low;
    std::memcpy(&low, b->scales_l, sizeof(low));
    const __m256i l = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(low)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    const __m256i h = _mm256_srlv_epi32(_mm256_set1_epi32(b->scales_h), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    const __m256i code = _mm256_or_si256(_mm256_and_si256(l, _mm256_set1_epi32(15)),
                                         _mm256_slli_epi32(_mm256_and_si256(h, _mm256_set1_epi32(3)), 4));
    const __m256 s = _mm256_mul_ps(_mm512_castps512_ps256(half512(b->d)),
                                   _mm256_cvtepi32_ps(_mm256_sub_epi32(code, _mm256_set1_epi32(32))));
    return both(s, s);
  }
};

// ---- a row ----

// The sums of a row with `tokens` tokens, made in the same order for any number of them: how many are multiplied together
// changes no bit. Groups of 32 are taken 256 bits at a time, since then one factor, read as it is multiplied, serves a whole
// register; groups of 16 are better off with 512, of which four factors have to be spread anyway.
template <class Block, int tokens, int64_t group = Codes<Block>::group>
struct RowSums;

// Codes of values 32 p ... 32 p + 31, not negative.
template <int p, class Block>
HWY_INLINE __m256i raised_codes(const Block* b) {
  __m256i q;
  if constexpr (Block::length == kSuperBlock) {
    q = Codes<Block>::template piece<p>(*b, 0).raw;
  } else {
    q = Codes<Block>::template piece<0>(b[p], 0).raw;
  }
  return Codes<Block>::is_signed ? _mm256_xor_si256(q, _mm256_set1_epi8(-128)) : q;
}

template <class Block, int tokens>
struct RowSums<Block, tokens, 32> {
  using W = Wide<Block>;
  struct Factors {
    HWY_ALIGN float of[tokens][8];
  };
  __m256 dots[tokens][4];
  __m512 offsets[tokens];  // in the upper half alone

  HWY_INLINE RowSums() {
    for (int t = 0; t < tokens; ++t) {
      for (__m256& sum : dots[t]) sum = _mm256_setzero_ps();
      offsets[t] = _mm512_setzero_ps();
    }
  }

  template <int p>
  HWY_INLINE void add_codes(const Block* b, const int8_t* const (&codes)[tokens], const Factors& factors) {
    const __m256i q = raised_codes<p>(b);
    for (int t = 0; t < tokens; ++t) {
      const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes[t] + 32 * p));
      const __m256i products = _mm256_dpbusd_epi32(_mm256_setzero_si256(), q, in);
      dots[t][p % 4] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_broadcast_ss(factors.of[t] + p), dots[t][p % 4]);
    }
    if constexpr (p < 7) add_codes<p + 1>(b, codes, factors);
  }

  // The factors of 256 values of the row from b on, with each token's from `first` on; adds what offsets make.
  HWY_INLINE void prepare(const Block* b, const Int8Rows& x, int64_t token, int64_t first, Factors& to) {
    const __m512 scales = W::scales(b);
    for (int t = 0; t < tokens; ++t) {
      const int64_t i = ((token + t) * x.cols + first) / 32;
      const __m512 products = _mm512_mul_ps(scales, both(_mm256_loadu_ps(x.scales + i), _mm256_loadu_ps(x.sums32 + i)));
      _mm256_store_ps(to.of[t], _mm512_castps512_ps256(products));
      offsets[t] = _mm512_add_ps(offsets[t], products);
    }
  }

  HWY_INLINE float total(int t) const {
    const __m256 factor = _mm256_set1_ps(W::raise == 0 ? 1.0f : static_cast<float>(-W::raise));
    const __m256 all = _mm256_add_ps(_mm256_add_ps(dots[t][0], dots[t][1]), _mm256_add_ps(dots[t][2], dots[t][3]));
    return sum_of(_mm256_fmadd_ps(_mm512_extractf32x8_ps(offsets[t], 1), factor, all));
  }
};

template <class Block, int tokens>
struct RowSums<Block, tokens, 16> {
  using W = Wide<Block>;
  struct Factors {
    __m512 of[tokens];
  };
  __m512 dots[tokens][2];
  __m512 offsets[tokens];

  HWY_INLINE RowSums() {
    for (int t = 0; t < tokens; ++t) dots[t][0] = dots[t][1] = offsets[t] = _mm512_setzero_ps();
  }

  template <int j>
  HWY_INLINE void add_codes(const Block* b, const int8_t* const (&codes)[tokens], const Factors& factors) {
    const __m512i q = W::template codes<j>(b);
    const __m512i groups =
        _mm512_add_epi32(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), _mm512_set1_epi32(4 * j));
    for (int t = 0; t < tokens; ++t) {
      const __m512i products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q, _mm512_loadu_si512(codes[t] + 64 * j));
      dots[t][j % 2] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_permutexvar_ps(groups, factors.of[t]), dots[t][j % 2]);
    }
    if constexpr (j < 3) add_codes<j + 1>(b, codes, factors);
  }

  HWY_INLINE void prepare(const Block* b, const Int8Rows& x, int64_t token, int64_t first, Factors& to) {
    const __m512 scales = W::scales(b);
    __m512 other = scales;
    if constexpr (requires { W::offsets(b); }) other = W::offsets(b);
    const __m512i pairs = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (int t = 0; t < tokens; ++t) {
      const int64_t i = (token + t) * x.cols + first;
      const __m512 in = _mm512_castps256_ps512(_mm256_loadu_ps(x.scales + i / 32));
      to.of[t] = _mm512_mul_ps(scales, _mm512_permutexvar_ps(pairs, in));
      offsets[t] = _mm512_fmadd_ps(other, _mm512_loadu_ps(x.sums16 + i / 16), offsets[t]);
    }
  }

  HWY_INLINE float total(int t) const {
    const __m512 factor = _mm512_set1_ps(W::raise == 0 ? 1.0f : static_cast<float>(-W::raise));
    const __m512 all = _mm512_fmadd_ps(offsets[t], factor, _mm512_add_ps(dots[t][0], dots[t][1]));
    return sum_of(_mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1)));
  }
};

// y[t * y_stride] = row . x[t] for tokens `token` ... `token` + tokens - 1.
template <class Block, int tokens>
HWY_INLINE void wide_row(const Block* row, const Int8Rows& x, int64_t token, float* y, int64_t y_stride) {
  using Sums = RowSums<Block, tokens>;
  Sums sums;
  // Where factors go through memory they are ready a chunk before they are needed: a processor's window is too short to look
  // that far ahead by itself.
  constexpr bool early = Codes<Block>::group == 32;
  typename Sums::Factors factors[early ? 2 : 1];
  if (early && x.cols >= kSuperBlock) sums.prepare(row, x, token, 0, factors[0]);
  int64_t first = 0;
  for (; first + kSuperBlock <= x.cols; first += kSuperBlock) {
    constexpr int64_t chunk_blocks = kSuperBlock / Block::length, chunk_bytes = sizeof(Block) * chunk_blocks;
    const Block* b = row + first / Block::length;
    const char* ahead = reinterpret_cast<const char*>(b) + kPrefetchBytes;
    for (int64_t byte = 0; byte < chunk_bytes; byte += 64) __builtin_prefetch(ahead + byte, 0, 3);
    const int64_t turn = early ? first / kSuperBlock % 2 : 0;
    if constexpr (early) {
      if (first + 2 * kSuperBlock <= x.cols) sums.prepare(b + chunk_blocks, x, token, first + kSuperBlock, factors[1 - turn]);
    } else {
      sums.prepare(b, x, token, first, factors[0]);
    }
    const int8_t* codes[tokens];
    for (int t = 0; t < tokens; ++t) codes[t] = x.codes + (token + t) * x.cols + first;
    sums.template add_codes<0>(b, codes, factors[turn]);
  }
  float rest[tokens] = {};
  if constexpr (Block::length < kSuperBlock) {
    if (first < x.cols) {
      TokenChunk in[tokens];
      __m256 few[tokens][1];
      for (int t = 0; t < tokens; ++t) {
        in[t] = token_chunk(x, token + t, first, RowChunk<Block>::C::group);
        few[t][0] = _mm256_setzero_ps();
      }
      RowChunk<Block> chunk;
      chunk.template read<false>(row + first / Block::length, x.cols - first);
      chunk.template add<false, tokens>(in, x.cols - first, few);
      for (int t = 0; t < tokens; ++t) rest[t] = sum_of(few[t][0]);
    }
  }
  for (int t = 0; t < tokens; ++t) y[t * y_stride] = sums.total(t) + rest[t];
}

template <class Block>
void wide_product(const void* blocks, const Int8Rows& x, float* y, int64_t rows, int64_t y_stride) {
  const auto* row = static_cast<const Block*>(blocks);
  for (int64_t r = 0; r < rows; ++r, row += x.cols / Block::length) {
    int64_t t = 0;
    for (; t + 4 <= x.rows; t += 4) wide_row<Block, 4>(row, x, t, y + t * y_stride + r, y_stride);
    for (; t + 2 <= x.rows; t += 2) wide_row<Block, 2>(row, x, t, y + t * y_stride + r, y_stride);
    if (t < x.rows) wide_row<Block, 1>(row, x, t, y + t * y_stride + r, y_stride);
  }
}
