// Products of rows of blocks with few activations rounded to bytes, 256 bits at a time (x86): integer dot products of 32 codes,
// scaled and summed in float. A set says how 32 products become 8 sums of 4 each: dot32 for codes that are not negative,
// dot32_signed for all others.

#if defined(__AVX512VNNI__)
// Negative codes are raised by 128 to be unsigned; what that adds is taken off again with the activations' sums.
constexpr int kSignedRaise = 128;
HWY_INLINE __m256i dot32(__m256i codes, __m256i x) { return _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, x); }
HWY_INLINE __m256i dot32_signed(__m256i codes, __m256i x) {
  return dot32(_mm256_xor_si256(codes, _mm256_set1_epi8(-128)), x);
}
#else
// Pairs are summed in 16 bits, where 2 * 128 * 127 fits but raised codes do not: signs move to the activations.
constexpr int kSignedRaise = 0;
HWY_INLINE __m256i dot32(__m256i codes, __m256i x) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1));
}
HWY_INLINE __m256i dot32_signed(__m256i codes, __m256i x) {
  return dot32(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
}
#endif

// Where a chunk of up to 256 values of one token begins.
struct TokenChunk {
  const int8_t* codes;
  const float* scales;
  const float* sums;  // per 16 or per 32
};
HWY_INLINE TokenChunk token_chunk(const Int8Rows& x, int64_t token, int64_t first, int64_t group) {
  const int64_t i = token * x.cols + first;
  return {x.codes + i, x.scales + i / 32, group == 16 ? x.sums16 + i / 16 : x.sums32 + i / 32};
}

// 8 f16 that lie `stride` bytes apart.
HWY_INLINE __m256 halves_apart(const f16* first, int64_t stride) {
  const auto* p = reinterpret_cast<const char*>(first);
  const auto at = [&](int64_t i) HWY_ATTR {
    short bits;
    std::memcpy(&bits, p + i * stride, sizeof(bits));
    return bits;
  };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}

// A chunk of 256 values of a row, or of fewer at the end of a row of small blocks.
template <class Block>
struct RowChunk {
  using C = Codes<Block>;
  static constexpr int64_t kGroups = kSuperBlock / C::group;
  static constexpr int kRaise = C::is_signed ? kSignedRaise : C::raise;
  static constexpr bool kHasOffsets = C::has_offset || kRaise != 0;
  const Block* blocks;
  HWY_ALIGN float scales[16];
  HWY_ALIGN float offsets[16];

  // Scales past the end of the row are zeros.
  template <bool whole>
  HWY_INLINE void read(const Block* first, int64_t values) {
    blocks = first;
    if constexpr (whole && Block::length < kSuperBlock && requires { first->d; }) {
      _mm256_store_ps(scales, halves_apart(&first->d, sizeof(Block)));
      if constexpr (C::has_offset) _mm256_store_ps(offsets, halves_apart(&first->m, sizeof(Block)));
    } else {
      if constexpr (!whole) {
        for (int64_t i = 0; i < 16; ++i) scales[i] = offsets[i] = 0;
      }
      for (int64_t i = 0; i < (whole ? kSuperBlock : values) / Block::length; ++i) {
        const int64_t group = i * (Block::length / C::group);
        C::scales(blocks[i], scales + group, offsets + group);
      }
    }
    if constexpr (kRaise != 0) {
      for (int64_t i = 0; i < kGroups; i += 8) {
        _mm256_store_ps(offsets + i, _mm256_mul_ps(_mm256_load_ps(scales + i), _mm256_set1_ps(-kRaise)));
      }
    }
  }

  // Adds the products of values [32 p, 32 p + 32) with every token's to sums[t][p % chains]; factors[t] are the scales of both
  // sides multiplied.
  template <int p, int tokens, int chains>
  HWY_INLINE void add_piece(const TokenChunk* x, const float (*factors)[16], __m256 (*sums)[chains]) const {
    __m256i q;
    if constexpr (Block::length == kSuperBlock) {
      q = C::template piece<p>(*blocks, 0).raw;
    } else {
      q = C::template piece<0>(blocks[p], 0).raw;
    }
    for (int t = 0; t < tokens; ++t) {
      const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x[t].codes + 32 * p));
      const __m256 products = _mm256_cvtepi32_ps(C::is_signed ? dot32_signed(q, in) : dot32(q, in));
      __m256 factor;
      if constexpr (C::group == 32) {
        factor = _mm256_broadcast_ss(factors[t] + p);
      } else {
        const __m256 pair = _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(factors[t] + 2 * p)));
        factor = _mm256_permutevar_ps(pair, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
      }
      sums[t][p % chains] = _mm256_fmadd_ps(products, factor, sums[t][p % chains]);
    }
  }

  // Of 8 pieces, or of those that there are.
  template <bool whole, int tokens, int chains, int p = 0>
  HWY_INLINE void add_pieces(const TokenChunk* x, int64_t values, const float (*factors)[16], __m256 (*sums)[chains]) const {
    if constexpr (p < 8) {
      if (!whole && 32 * p >= values) return;
      add_piece<p, tokens>(x, factors, sums);
      add_pieces<whole, tokens, chains, p + 1>(x, values, factors, sums);
    }
  }

  template <bool whole, int tokens, int chains>
  HWY_INLINE void add(const TokenChunk* x, int64_t values, __m256 (*sums)[chains]) const {
    HWY_ALIGN float factors[tokens][16];
    for (int t = 0; t < tokens; ++t) {
      __m256 in;
      HWY_ALIGN float some[8] = {};
      if constexpr (whole) {
        in = _mm256_loadu_ps(x[t].scales);
      } else {
        for (int64_t i = 0; i < values / 32; ++i) some[i] = x[t].scales[i];
        in = _mm256_load_ps(some);
      }
      if constexpr (C::group == 32) {
        _mm256_store_ps(factors[t], _mm256_mul_ps(_mm256_load_ps(scales), in));
      } else {
        const __m256i low = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3), high = _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7);
        _mm256_store_ps(factors[t], _mm256_mul_ps(_mm256_load_ps(scales), _mm256_permutevar8x32_ps(in, low)));
        _mm256_store_ps(factors[t] + 8, _mm256_mul_ps(_mm256_load_ps(scales + 8), _mm256_permutevar8x32_ps(in, high)));
      }
    }
    add_pieces<whole, tokens, chains>(x, values, factors, sums);
    if constexpr (kHasOffsets) {
      for (int t = 0; t < tokens; ++t) {
        __m256& sum = sums[t][chains - 1];
        if constexpr (whole) {
          for (int64_t i = 0; i < kGroups; i += 8) {
            sum = _mm256_fmadd_ps(_mm256_load_ps(offsets + i), _mm256_loadu_ps(x[t].sums + i), sum);
          }
        } else {
          float rest = 0;
          for (int64_t i = 0; i < values / C::group; ++i) rest += offsets[i] * x[t].sums[i];
          sum = _mm256_add_ps(sum, _mm256_setr_ps(rest, 0, 0, 0, 0, 0, 0, 0));
        }
      }
    }
  }
};

HWY_INLINE float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// How far ahead of its use a row is fetched. Further pays on huge pages, nearer on small ones, where it leaves the page.
constexpr int64_t kPrefetchBytes = 3072;

// y[t * y_stride] = row . x[t] for tokens `token` ... `token` + tokens - 1.
template <class Block, int tokens>
HWY_INLINE void int8_row(const Block* row, const Int8Rows& x, int64_t token, float* y, int64_t y_stride) {
  constexpr int chains = tokens == 1 ? 4 : tokens == 2 ? 2 : 1;  // so that additions overlap
  __m256 sums[tokens][chains];
  for (int t = 0; t < tokens; ++t) {
    for (int c = 0; c < chains; ++c) sums[t][c] = _mm256_setzero_ps();
  }
  RowChunk<Block> chunk;
  TokenChunk in[tokens];
  int64_t first = 0;
  for (; first + kSuperBlock <= x.cols; first += kSuperBlock) {
    for (int t = 0; t < tokens; ++t) in[t] = token_chunk(x, token + t, first, RowChunk<Block>::C::group);
    const char* ahead = reinterpret_cast<const char*>(row + first / Block::length) + kPrefetchBytes;
    constexpr int64_t chunk_bytes = sizeof(Block) * (kSuperBlock / Block::length);
    for (int64_t byte = 0; byte < chunk_bytes; byte += 64) __builtin_prefetch(ahead + byte, 0, 3);
    chunk.template read<true>(row + first / Block::length, kSuperBlock);
    chunk.template add<true, tokens>(in, kSuperBlock, sums);
  }
  if constexpr (Block::length < kSuperBlock) {
    if (first < x.cols) {
      for (int t = 0; t < tokens; ++t) in[t] = token_chunk(x, token + t, first, RowChunk<Block>::C::group);
      chunk.template read<false>(row + first / Block::length, x.cols - first);
      chunk.template add<false, tokens>(in, x.cols - first, sums);
    }
  }
  for (int t = 0; t < tokens; ++t) {
    __m256 sum = sums[t][0];
    for (int c = 1; c < chains; ++c) sum = _mm256_add_ps(sum, sums[t][c]);
    y[t * y_stride] = sum_of(sum);
  }
}

template <class Block>
void int8_product(const void* blocks, const Int8Rows& x, float* y, int64_t rows, int64_t y_stride, void*) {
  const auto* row = static_cast<const Block*>(blocks);
  for (int64_t r = 0; r < rows; ++r, row += x.cols / Block::length) {
    int64_t t = 0;
    for (; t + 4 <= x.rows; t += 4) int8_row<Block, 4>(row, x, t, y + t * y_stride + r, y_stride);
    for (; t + 2 <= x.rows; t += 2) int8_row<Block, 2>(row, x, t, y + t * y_stride + r, y_stride);
    if (t < x.rows) int8_row<Block, 1>(row, x, t, y + t * y_stride + r, y_stride);
  }
}
