// Rows of a cache in block types (kernels/blocks.h), unpacked in registers: dot products, weighted sums and
// plain floats. A value is scale * code + offset; what a block's codes have in common is applied to their
// sum.

constexpr int64_t kBlockVectors = kSmallBlock / kLanes;

// An f16 in every lane.
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE VF half_everywhere(f16 h) {
  return hn::Set(df, to_float(h));
}
#else
HWY_INLINE VF half_everywhere(f16 h) {
  const hn::Rebind<hwy::float16_t, DF> dh;
  return hn::PromoteTo(df, hn::BitCast(dh, hn::Set(DU16(), h.bits)));
}
#endif

// kLanes bytes, zero-extended.
HWY_INLINE hn::Vec<DI> widened(const uint8_t* p) {
  return hn::PromoteTo(DI(), hn::LoadU(hn::Rebind<uint8_t, DF>(), p));
}
// Codes [i, i + kLanes) of a block in halves.
HWY_INLINE hn::Vec<DI> nibbles(const uint8_t* qs, int64_t i) {
  const auto bytes = widened(qs + i % 16);
  return i < 16 ? hn::And(bytes, hn::Set(DI(), 15)) : hn::ShiftRight<4>(bytes);
}

// By type: codes as floats, their scale, and the offset: a constant times the scale, or the block's own.
template <class Block>
struct CacheCodes;

template <>
struct CacheCodes<BlockQ8_0> {
  static constexpr float raise = 0;
  static constexpr bool has_offset = false;
  static HWY_INLINE VF codes(const BlockQ8_0& block, int64_t i) {
    return hn::ConvertTo(df, hn::PromoteTo(DI(), hn::LoadU(hn::Rebind<int8_t, DF>(), block.qs + i)));
  }
};
template <>
struct CacheCodes<BlockQ4_0> {
  static constexpr float raise = -8;
  static constexpr bool has_offset = false;
  static HWY_INLINE VF codes(const BlockQ4_0& block, int64_t i) {
    return hn::ConvertTo(df, nibbles(block.qs, i));
  }
};
template <>
struct CacheCodes<BlockQ5_1> {
  static constexpr float raise = 0;
  static constexpr bool has_offset = true;
  static HWY_INLINE VF codes(const BlockQ5_1& block, int64_t i) {
    uint32_t high;
    std::memcpy(&high, block.qh, sizeof high);
    const auto bits = hn::Shr(hn::Set(du, high), hn::Iota(du, static_cast<uint32_t>(i)));
    const auto fifth = hn::BitCast(DI(), hn::ShiftLeft<4>(hn::And(bits, hn::Set(du, 1u))));
    return hn::ConvertTo(df, hn::Or(nibbles(block.qs, i), fifth));
  }
};

// The blocks' sums of a packed query, each as a vector with that sum in the first lane: what offsets meet.
inline void query_sums(const float* q, int64_t blocks, float* sums) {
  for (int64_t b = 0; b < blocks; ++b) {
    VF sum = hn::Zero(df);
    for (int64_t v = 0; v < kBlockVectors; ++v) sum = hn::Add(sum, load(q + b * kSmallBlock + v * kLanes));
    fill_row(sums + b * kLanes, 1, kLanes, 0.0f);
    sums[b * kLanes] = hn::GetLane(hn::SumOfLanes(df, sum));
  }
}

template <class Block, int64_t kRows>
HWY_INLINE void block_scores_of(const float* q, int64_t q_stride, const float* sums, int64_t sums_stride,
                                const Block* (&key)[kFewKeys], int64_t blocks, float* scores,
                                int64_t stride) {
  using Codes = CacheCodes<Block>;
  VF totals[kRows][kFewKeys];
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < kFewKeys; ++k) totals[r][k] = hn::Zero(df);
  }
  for (int64_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < kFewKeys; ++k) {
      const Block& block = key[k][b];
      const VF scale = half_everywhere(block.d);
      VF dot[kRows];
#pragma GCC unroll 4
      for (int64_t r = 0; r < kRows; ++r) {
        if constexpr (Codes::raise != 0)
          dot[r] = hn::Mul(hn::Set(df, Codes::raise), load(sums + r * sums_stride + b * kLanes));
        else
          dot[r] = hn::Zero(df);
      }
      for (int64_t v = 0; v < kBlockVectors; ++v) {
        const VF codes = Codes::codes(block, v * kLanes);
        const float* query = q + b * kSmallBlock + v * kLanes;
#pragma GCC unroll 4
        for (int64_t r = 0; r < kRows; ++r) dot[r] = hn::MulAdd(codes, load(query + r * q_stride), dot[r]);
      }
#pragma GCC unroll 4
      for (int64_t r = 0; r < kRows; ++r) {
        totals[r][k] = hn::MulAdd(scale, dot[r], totals[r][k]);
        if constexpr (Codes::has_offset)
          totals[r][k] =
              hn::MulAdd(half_everywhere(block.m), load(sums + r * sums_stride + b * kLanes), totals[r][k]);
      }
    }
  }
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRows; ++r) store_lane_sums(totals[r], scores + r * stride);
}

// As few_scores, for keys of `row` bytes each.
template <class Block>
void block_scores(const float* q, int64_t q_stride, const float* sums, int64_t sums_stride, int64_t rows,
                  const std::byte* keys, int64_t row, int64_t n_keys, const RowsAhead& ahead, int64_t blocks,
                  float* scores, int64_t stride) {
  for (int64_t j = 0; j < n_keys; j += kFewKeys) {
    const Block* key[kFewKeys];
    for (int64_t k = 0; k < kFewKeys; ++k) {
      key[k] = reinterpret_cast<const Block*>(keys + (j + k < n_keys ? j + k : n_keys - 1) * row);
      ahead.fetch(j + k);
    }
    in_row_groups(rows, [&]<int64_t kRows>(int64_t r) {
      block_scores_of<Block, kRows>(q + r * q_stride, q_stride, sums + r * sums_stride, sums_stride, key,
                                    blocks, scores + r * stride + j, stride);
    });
  }
}

template <class Block, int64_t kRows>
HWY_INLINE void block_values_of(const float* p, int64_t p_stride, const std::byte* values, int64_t row,
                                int64_t n_keys, int64_t b, float* out, int64_t out_stride, float* offset,
                                int64_t offset_stride, const RowsAhead& ahead) {
  using Codes = CacheCodes<Block>;
  VF sums[kRows][kBlockVectors], offsets[kRows];
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kBlockVectors; ++v) sums[r][v] = load(out + r * out_stride + v * kLanes);
    offsets[r] = hn::Set(df, offset[r * offset_stride]);
  }
  for (int64_t j = 0; j < n_keys; ++j) {
    const Block& block = reinterpret_cast<const Block*>(values + j * row)[b];
    ahead.fetch(j);
    const VF scale = half_everywhere(block.d);
    VF weight[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      const VF probability = hn::Set(df, p[r * p_stride + j]);
      weight[r] = hn::Mul(scale, probability);
      if constexpr (Codes::has_offset)
        offsets[r] = hn::MulAdd(half_everywhere(block.m), probability, offsets[r]);
      else if constexpr (Codes::raise != 0)
        offsets[r] = hn::Add(offsets[r], weight[r]);
    }
    for (int64_t v = 0; v < kBlockVectors; ++v) {
      const VF codes = Codes::codes(block, v * kLanes);
      for (int64_t r = 0; r < kRows; ++r) sums[r][v] = hn::MulAdd(weight[r], codes, sums[r][v]);
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kBlockVectors; ++v) store(sums[r][v], out + r * out_stride + v * kLanes);
    offset[r * offset_stride] = hn::GetLane(offsets[r]);
  }
}

// out[r] = out[r] + sum over n_keys keys of p[r * p_stride + j] * values[j], but for the values' offsets:
// those of block b are summed in offsets[r * offset_stride + b] and added by add_offsets, after all keys.
template <class Block>
void block_values(const float* p, int64_t p_stride, int64_t rows, const std::byte* values, int64_t row,
                  int64_t n_keys, int64_t blocks, float* out, int64_t out_stride, float* offsets,
                  int64_t offset_stride, const RowsAhead& ahead) {
  const RowsAhead none;
  in_row_groups(rows, [&]<int64_t kRows>(int64_t r) {
    for (int64_t b = 0; b < blocks; ++b) {
      block_values_of<Block, kRows>(
          p + r * p_stride, p_stride, values, row, n_keys, b, out + r * out_stride + b * kSmallBlock,
          out_stride, offsets + r * offset_stride + b, offset_stride, r == 0 && b == 0 ? ahead : none);
    }
  });
}

template <class Block>
void add_offsets(const float* offsets, int64_t blocks, float* out) {
  using Codes = CacheCodes<Block>;
  if (!Codes::has_offset && Codes::raise == 0) return;
  for (int64_t b = 0; b < blocks; ++b) {
    const VF offset = hn::Set(df, Codes::has_offset ? offsets[b] : Codes::raise * offsets[b]);
    for (int64_t i = b * kSmallBlock; i < (b + 1) * kSmallBlock; i += kLanes)
      store(hn::Add(load(out + i), offset), out + i);
  }
}

// `rows` rows as floats.
template <class Block>
void block_floats(const std::byte* from, int64_t row, int64_t rows, int64_t blocks, float* to,
                  int64_t stride) {
  using Codes = CacheCodes<Block>;
  for (int64_t r = 0; r < rows; ++r) {
    const Block* block = reinterpret_cast<const Block*>(from + r * row);
    for (int64_t b = 0; b < blocks; ++b) {
      const VF scale = half_everywhere(block[b].d);
      VF offset = hn::Mul(scale, hn::Set(df, Codes::raise));
      if constexpr (Codes::has_offset) offset = half_everywhere(block[b].m);
      for (int64_t v = 0; v < kBlockVectors; ++v)
        store(hn::MulAdd(scale, Codes::codes(block[b], v * kLanes), offset),
              to + r * stride + b * kSmallBlock + v * kLanes);
    }
  }
}
