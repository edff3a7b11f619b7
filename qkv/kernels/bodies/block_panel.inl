// Products of rows of blocks with many tokens rounded to bytes, on AVX-512 VNNI: 16 rows are unpacked into a panel once,
// 16 lanes for 16 rows and 4 neighbouring codes to a lane, and the panel then meets 8 tokens at a time.

constexpr int64_t kPanelRows = kInt8PanelRows;

// Row r of a panel is lane 4 * (r % 4) + r / 4: what is left by transposing 4 x 4 words in every quarter of a register.
HWY_INLINE int64_t lane_of_row(int64_t r) { return 4 * (r % 4) + r / 4; }

// Types whose codes are nibbles, in segments of 16 bytes: low nibbles are 16 values from first(segment) on, high nibbles those
// `apart` values later; code() makes codes of them.
template <class Block>
struct Nibbles {};
struct HalvesOfSmallBlock {
  static constexpr int64_t segments = 1, apart = 16;
  static constexpr int64_t first(int64_t) { return 0; }
  static HWY_INLINE __m512i code(__m512i v) { return v; }
};
template <>
struct Nibbles<BlockQ4_0> : HalvesOfSmallBlock {};
template <>
struct Nibbles<BlockQ4_1> : HalvesOfSmallBlock {};
template <>
struct Nibbles<BlockIq4Nl> : HalvesOfSmallBlock {
  static HWY_INLINE __m512i code(__m512i v) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(&kIq4Values))), v);
  }
};
template <>
struct Nibbles<BlockIq4Xs> : Nibbles<BlockIq4Nl> {
  static constexpr int64_t segments = 8;
  static constexpr int64_t first(int64_t i) { return 32 * i; }
};
template <>
struct Nibbles<BlockQ4K> {
  static constexpr int64_t segments = 8, apart = 32;
  static constexpr int64_t first(int64_t i) { return 64 * (i / 2) + 16 * (i % 2); }
  static HWY_INLINE __m512i code(__m512i v) { return v; }
};

// The panel in scratch memory: cols / 4 registers of codes, then a register of scales, and one of offsets if the type has
// them, per group.
template <class Block>
struct Panel {
  using C = Codes<Block>;
  static constexpr int kRaise = C::is_signed ? 128 : C::raise;
  uint8_t* codes;
  float* scales;
  float* offsets;

  Panel(void* scratch, int64_t cols) : codes(static_cast<uint8_t*>(scratch)) {
    scales = reinterpret_cast<float*>(codes + kPanelRows * cols);
    offsets = scales + kPanelRows * (cols / C::group);
  }

  // 16 bytes of each of 16 rows, `stride` bytes apart, as 4 registers of 4 bytes of every row.
  static HWY_INLINE void transpose(const void* first, int64_t stride, __m512i (&out)[4]) {
    const auto* q = static_cast<const uint8_t*>(first);
    __m512i v[4];
    for (int64_t i = 0; i < 4; ++i) {
      const auto row = [&](int64_t r) HWY_ATTR {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + (4 * i + r) * stride));
      };
      const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(1), 1);
      const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(row(2)), row(3), 1);
      v[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
  }

  static HWY_INLINE void store_codes(const __m512i (&q)[4], uint8_t* to) {
    for (int64_t i = 0; i < 4; ++i) {
      _mm512_store_si512(to + 64 * i, C::is_signed ? _mm512_xor_si512(q[i], _mm512_set1_epi8(static_cast<char>(128))) : q[i]);
    }
  }

  // Codes of one block of each of 16 rows, `stride` bytes apart: all of them unpacked and then transposed...
  static HWY_INLINE void fill_codes(const Block* block, int64_t stride, uint8_t* to) {
    __m512i v[4];
    if constexpr (requires { Nibbles<Block>::segments; }) {  // ... or transposed as they are packed
      using N = Nibbles<Block>;
      const __m512i mask = _mm512_set1_epi8(15);
      for (int64_t i = 0; i < N::segments; ++i) {
        transpose(block->qs + 16 * i, stride, v);
        __m512i low[4], high[4];
        for (int64_t k = 0; k < 4; ++k) {
          low[k] = N::code(_mm512_and_si512(v[k], mask));
          high[k] = N::code(_mm512_and_si512(_mm512_srli_epi16(v[k], 4), mask));
        }
        store_codes(low, to + N::first(i) * kPanelRows);
        store_codes(high, to + (N::first(i) + N::apart) * kPanelRows);
      }
    } else {
      HWY_ALIGN int8_t q[kPanelRows * Block::length];
      for (int64_t r = 0; r < kPanelRows; ++r) {
        put_codes<Block, 0>(*reinterpret_cast<const Block*>(reinterpret_cast<const char*>(block) + r * stride), q + r * Block::length);
      }
      for (int64_t i = 0; i < Block::length; i += 16) {
        transpose(q + i, Block::length, v);
        store_codes(v, to + i * kPanelRows);
      }
    }
  }

  // Fetches what lies where the next panel does, a block's share of 16 rows for every block of this one.
  static HWY_INLINE void fetch(const char* ahead, int64_t row) {
    constexpr int64_t lines = (kPanelRows * static_cast<int64_t>(sizeof(Block)) + 63) / 64;
    for (int64_t i = lines * row / kPanelRows; i < lines * (row + 1) / kPanelRows; ++i) __builtin_prefetch(ahead + 64 * i, 0, 2);
  }

  // Registers of floats 4 k ... 4 k + 3 of every row's 16.
  static HWY_INLINE void store_floats(const float (*of_rows)[16], int64_t first, int64_t count, float* to) {
    for (int64_t k = 0; k < count; k += 4) {
      __m512i v[4];
      transpose(of_rows[0] + first + k, sizeof(*of_rows), v);
      for (int64_t i = 0; i < 4; ++i) _mm512_store_si512(to + (k + i) * kPanelRows, v[i]);
    }
  }

  // Scales, and offsets if the type has them, of one block of each of 16 rows.
  static HWY_INLINE void fill_scales(const Block* block, int64_t stride, float* to, float* to_offsets, const char* ahead) {
    const auto row = [&](int64_t r) HWY_ATTR {
      return reinterpret_cast<const Block*>(reinterpret_cast<const char*>(block) + r * stride);
    };
    if constexpr (Block::length == kSuperBlock) {
      using W = Wide<Block>;
      HWY_ALIGN float s[kPanelRows][16];
      HWY_ALIGN float m[kPanelRows][16];
      for (int64_t r = 0; r < kPanelRows; ++r) {
        fetch(ahead, r);
        _mm512_store_ps(s[r], W::scales(row(r)));
        if constexpr (requires { W::offsets(block); }) _mm512_store_ps(m[r], W::offsets(row(r)));
      }
      store_floats(s, 0, kSuperBlock / C::group, to);
      if constexpr (C::has_offset && C::group == 32) store_floats(s, 8, 8, to_offsets);
      if constexpr (C::has_offset && C::group == 16) store_floats(m, 0, 16, to_offsets);
    } else if constexpr (requires { block->d; }) {
      for (int64_t r = 0; r < kPanelRows; ++r) fetch(ahead, r);
      const auto of_rows = [&](const f16* first) HWY_ATTR {
        const f16* later = reinterpret_cast<const f16*>(reinterpret_cast<const char*>(first) + 8 * stride);
        const __m512i rows = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // lane by lane
        return _mm512_permutexvar_ps(rows, both(halves_apart(first, stride), halves_apart(later, stride)));
      };
      _mm512_store_ps(to, of_rows(&block->d));
      if constexpr (C::has_offset) _mm512_store_ps(to_offsets, of_rows(&block->m));
    } else {
      for (int64_t r = 0; r < kPanelRows; ++r) {
        fetch(ahead, r);
        C::scales(*row(r), to + lane_of_row(r), nullptr);
      }
    }
  }

  // `values` of 16 rows of blocks, `stride` bytes apart. `ahead` is what will be read next, as many bytes.
  HWY_NOINLINE void fill(const Block* blocks, int64_t stride, int64_t values, const char* ahead) {
    constexpr int64_t group_floats = Block::length / C::group * kPanelRows;
    for (int64_t i = 0; i < values / Block::length; ++i) {
      fill_codes(blocks + i, stride, codes + i * Block::length * kPanelRows);
      fill_scales(blocks + i, stride, scales + i * group_floats, offsets + i * group_floats,
                  ahead + i * kPanelRows * static_cast<int64_t>(sizeof(Block)));
    }
  }

  // Adds the products of 16 rows with values [first, first + values) of the given tokens, which the panel begins with.
  template <int tokens>
  HWY_INLINE void add(const Int8Rows& x, const int64_t (&token)[tokens], int64_t first, int64_t values, __m512 (&sums)[tokens]) const {
    // Where each token's values begin.
    const int8_t* x_codes[tokens];
    const float *x_scales[tokens], *x_sums[tokens];
    const int32_t* x_code_sums[tokens];
    for (int t = 0; t < tokens; ++t) {
      const int64_t i = token[t] * x.cols + first;
      x_codes[t] = x.codes + i;
      x_scales[t] = x.scales + i / 32;
      x_sums[t] = C::group == 16 ? x.sums16 + i / 16 : x.sums32 + i / 32;
      x_code_sums[t] = x.code_sums16 + i / 16;
    }
    for (int64_t g = 0; g < values / 32; ++g) {
      __m512 products[tokens];
      for (int64_t part = 0; part < 32 / C::group; ++part) {
        constexpr int64_t words = C::group / 4;
        const int64_t group = g * (32 / C::group) + part;
        const uint8_t* q = codes + group * C::group * kPanelRows;
        __m512i dots[tokens];
        for (int t = 0; t < tokens; ++t) {
          if constexpr (C::has_offset) {
            dots[t] = _mm512_setzero_si512();
          } else {
            const int32_t* sum = x_code_sums[t] + group * (C::group / 16);
            dots[t] = _mm512_set1_epi32(-kRaise * (C::group == 16 ? sum[0] : sum[0] + sum[1]));
          }
        }
        for (int64_t i = 0; i < words; ++i) {
          const __m512i w = _mm512_load_si512(q + 64 * i);
          for (int t = 0; t < tokens; ++t) {
            int32_t four;
            std::memcpy(&four, x_codes[t] + group * C::group + 4 * i, sizeof(four));
            dots[t] = _mm512_dpbusd_epi32(dots[t], w, _mm512_set1_epi32(four));
          }
        }
        const __m512 scale = _mm512_load_ps(scales + group * kPanelRows);
        for (int t = 0; t < tokens; ++t) {
          const __m512 floats = _mm512_cvtepi32_ps(dots[t]);
          products[t] = part == 0 ? _mm512_mul_ps(floats, scale) : _mm512_fmadd_ps(floats, scale, products[t]);
        }
        if constexpr (C::has_offset) {
          const __m512 offset = _mm512_load_ps(offsets + group * kPanelRows);
          for (int t = 0; t < tokens; ++t) {
            sums[t] = _mm512_fmadd_ps(offset, _mm512_set1_ps(x_sums[t][group]), sums[t]);
          }
        }
      }
      for (int t = 0; t < tokens; ++t) {
        sums[t] = _mm512_fmadd_ps(products[t], _mm512_set1_ps(x_scales[t][g]), sums[t]);
      }
    }
  }

  static HWY_INLINE void store_rows(__m512 sums, float* y) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_ps(y, _mm512_permutexvar_ps(order, sums));
  }

  // 16 rows x `tokens` tokens from `first` on, of a panel that holds whole rows.
  template <int tokens>
  HWY_INLINE void multiply(const Int8Rows& x, int64_t first, float* y, int64_t y_stride) const {
    __m512 sums[tokens];
    int64_t token[tokens];
    for (int t = 0; t < tokens; ++t) {
      sums[t] = _mm512_setzero_ps();
      token[t] = first + t;
    }
    add<tokens>(x, token, 0, x.cols, sums);
    for (int t = 0; t < tokens; ++t) store_rows(sums[t], y + t * y_stride);
  }

  // 16 rows x all tokens, of which there are at most `tokens`: 256 values are unpacked and multiplied at a time, so that the
  // panel stays in the first cache. Tokens that are missing are the last one over again.
  template <int tokens>
  HWY_INLINE void multiply_few(const Block* blocks, int64_t stride, const Int8Rows& x, float* y, int64_t y_stride) {
    __m512 sums[tokens];
    int64_t token[tokens];
    for (int t = 0; t < tokens; ++t) {
      sums[t] = _mm512_setzero_ps();
      token[t] = t < x.rows ? t : x.rows - 1;
    }
    const char* ahead = reinterpret_cast<const char*>(blocks) + kPanelRows * stride;
    for (int64_t first = 0; first < x.cols; first += kSuperBlock) {
      const int64_t values = x.cols - first < kSuperBlock ? x.cols - first : kSuperBlock, block = first / Block::length;
      fill(blocks + block, stride, values, ahead + block * kPanelRows * static_cast<int64_t>(sizeof(Block)));
      add<tokens>(x, token, first, values, sums);
    }
    for (int t = 0; t < tokens && t < x.rows; ++t) store_rows(sums[t], y + t * y_stride);
  }
};

template <class Block>
void int8_panel_product(const void* blocks, const Int8Rows& x, float* y, int64_t rows, int64_t y_stride, void* scratch) {
  if (x.rows <= kInt8FewRows) return wide_product<Block>(blocks, x, y, rows, y_stride);
  const auto* first = static_cast<const Block*>(blocks);
  const int64_t row_blocks = x.cols / Block::length, stride = row_blocks * static_cast<int64_t>(sizeof(Block));
  const bool few = x.rows <= 8;
  Panel<Block> panel(scratch, few && kSuperBlock < x.cols ? kSuperBlock : x.cols);
  int64_t r = 0;
  for (; r + kPanelRows <= rows; r += kPanelRows, first += kPanelRows * row_blocks) {
    if (few) {
      if (x.rows <= 4) {
        panel.template multiply_few<4>(first, stride, x, y + r, y_stride);
      } else {
        panel.template multiply_few<8>(first, stride, x, y + r, y_stride);
      }
      continue;
    }
    panel.fill(first, stride, x.cols, reinterpret_cast<const char*>(first) + kPanelRows * stride);
    int64_t t = 0;
    for (; t + 8 <= x.rows; t += 8) panel.template multiply<8>(x, t, y + t * y_stride + r, y_stride);
    for (; t + 4 <= x.rows; t += 4) panel.template multiply<4>(x, t, y + t * y_stride + r, y_stride);
    for (; t + 2 <= x.rows; t += 2) panel.template multiply<2>(x, t, y + t * y_stride + r, y_stride);
    if (t < x.rows) panel.template multiply<1>(x, t, y + t * y_stride + r, y_stride);
  }
  wide_product<Block>(first, x, y + r, rows - r, y_stride);  // too few for a panel
}
