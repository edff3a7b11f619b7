// Products of rows of blocks with activations rounded to bytes, 256 bits at a time (x86): integer dot products of 32 codes,
// scaled and summed in float. A set says how 32 products become 8 sums of 4 each: dot32 for codes that are not negative,
// dot32_signed for all others.

#if defined(__AVX512VNNI__)
// Negative codes are raised by 128 to be unsigned; what that adds is taken off again with the activations' sums.
constexpr bool kRaised = true;
HWY_INLINE __m256i dot32(__m256i codes, __m256i x) { return _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, x); }
HWY_INLINE __m256i dot32_signed(__m256i codes, __m256i x) {
  return dot32(_mm256_xor_si256(codes, _mm256_set1_epi8(-128)), x);
}
#else
// Pairs are summed in 16 bits, where 2 * 128 * 127 fits but raised codes do not: signs move to the activations.
constexpr bool kRaised = false;
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
  const float* sums16;
  const float* sums32;
};
HWY_INLINE TokenChunk token_chunk(const Int8Rows& x, int64_t token, int64_t first) {
  const int64_t i = token * x.cols + first;
  return {x.codes + i, x.scales + i / 32, x.sums16 + i / 16, x.sums32 + i / 32};
}

// A chunk of up to 256 values of a row: one super-block, or small blocks.
template <class Block>
struct RowChunk {
  using C = Codes<Block>;
  static constexpr bool has_offset = C::has_offset || kRaised;
  const Block* blocks;
  int64_t values;  // 256, or less at the end of a row of small blocks
  HWY_ALIGN float scales[16];
  HWY_ALIGN float offsets[16];

  HWY_INLINE RowChunk(const Block* first, int64_t n) : blocks(first), values(n) {
    for (int64_t i = 0; i < n / Block::length; ++i) {
      const int64_t group = i * (Block::length / C::group);
      C::scales(blocks[i], scales + group, offsets + group);
    }
    if constexpr (!C::has_offset && kRaised) {
      for (int64_t i = 0; i < kSuperBlock / C::group; i += 8) {
        _mm256_store_ps(offsets + i, _mm256_mul_ps(_mm256_load_ps(scales + i), _mm256_set1_ps(-128.0f)));
      }
    }
  }

  // Adds the products of values [32 p, 32 p + 32) with every token's to sums[t][p % chains].
  template <int p, int tokens, int chains>
  HWY_INLINE void add_piece(const TokenChunk* x, __m256 (*sums)[chains]) const {
    __m256i q;
    if constexpr (Block::length == kSuperBlock) {
      q = C::template piece<p>(*blocks, 0).raw;
    } else {
      if (32 * p >= values) return;
      q = C::template piece<0>(blocks[p], 0).raw;
    }
    for (int t = 0; t < tokens; ++t) {
      const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x[t].codes + 32 * p));
      const __m256 products = _mm256_cvtepi32_ps(C::has_offset ? dot32(q, in) : dot32_signed(q, in));
      __m256 scale;
      if constexpr (C::group == 32) {
        scale = _mm256_set1_ps(scales[p]);
      } else {
        const __m256 pair = _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(scales + 2 * p)));
        scale = _mm256_permutevar_ps(pair, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
      }
      __m256& sum = sums[t][p % chains];
      sum = _mm256_fmadd_ps(products, _mm256_mul_ps(scale, _mm256_set1_ps(x[t].scales[p])), sum);
    }
  }

  template <int tokens, int chains>
  HWY_INLINE void add(const TokenChunk* x, __m256 (*sums)[chains]) const {
    add_piece<0, tokens>(x, sums);
    add_piece<1, tokens>(x, sums);
    add_piece<2, tokens>(x, sums);
    add_piece<3, tokens>(x, sums);
    add_piece<4, tokens>(x, sums);
    add_piece<5, tokens>(x, sums);
    add_piece<6, tokens>(x, sums);
    add_piece<7, tokens>(x, sums);
    if constexpr (has_offset) {
      for (int t = 0; t < tokens; ++t) {
        const float* x_sums = C::group == 32 ? x[t].sums32 : x[t].sums16;
        __m256& sum = sums[t][chains - 1];
        if (values == kSuperBlock) {
          for (int64_t i = 0; i < kSuperBlock / C::group; i += 8) {
            sum = _mm256_fmadd_ps(_mm256_load_ps(offsets + i), _mm256_loadu_ps(x_sums + i), sum);
          }
        } else {
          float rest = 0;
          for (int64_t i = 0; i < values / C::group; ++i) rest += offsets[i] * x_sums[i];
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

// y[t * y_stride] = row . x[t] for `count` <= tokens tokens from `token` on.
template <class Block, int tokens>
HWY_INLINE void int8_row(const Block* row, const Int8Rows& x, int64_t token, int64_t count, float* y, int64_t y_stride) {
  constexpr int chains = tokens == 1 ? 4 : 2;  // so that additions overlap
  __m256 sums[tokens][chains];
  for (int t = 0; t < tokens; ++t) {
    for (int c = 0; c < chains; ++c) sums[t][c] = _mm256_setzero_ps();
  }
  for (int64_t first = 0; first < x.cols; first += kSuperBlock) {
    const int64_t values = Block::length == kSuperBlock || x.cols - first >= kSuperBlock ? kSuperBlock : x.cols - first;
    TokenChunk in[tokens];
    for (int t = 0; t < tokens; ++t) in[t] = token_chunk(x, token + (t < count ? t : 0), first);
    RowChunk<Block>(row + first / Block::length, values).template add<tokens>(in, sums);
  }
  for (int t = 0; t < count; ++t) {
    __m256 sum = _mm256_add_ps(sums[t][0], sums[t][1]);
    if constexpr (chains == 4) sum = _mm256_add_ps(sum, _mm256_add_ps(sums[t][2], sums[t][3]));
    y[t * y_stride] = sum_of(sum);
  }
}

template <class Block>
void int8_product(const void* blocks, const Int8Rows& x, float* y, int64_t rows, int64_t y_stride, void*) {
  const auto* row = static_cast<const Block*>(blocks);
  for (int64_t r = 0; r < rows; ++r, row += x.cols / Block::length) {
    if (x.rows == 1) {
      int8_row<Block, 1>(row, x, 0, 1, y + r, y_stride);
      continue;
    }
    for (int64_t t = 0; t < x.rows; t += 4) {
      int8_row<Block, 4>(row, x, t, x.rows - t < 4 ? x.rows - t : 4, y + t * y_stride + r, y_stride);
    }
  }
}
