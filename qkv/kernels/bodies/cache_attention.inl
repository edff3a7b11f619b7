// Attention over a cache in pages (kernels/cache_kernels.h), off the tape.

// A pointer to the storage type, for the generic lambdas below: float, f16, bf16 or a block.
template <typename Body>
HWY_INLINE void with_cache_type(CacheType type, Body&& body) {
  switch (type) {
    case CacheType::f32:
      return body(static_cast<const float*>(nullptr));
    case CacheType::f16:
      return body(static_cast<const f16*>(nullptr));
    case CacheType::bf16:
      return body(static_cast<const bf16*>(nullptr));
    case CacheType::q8_0:
      return body(static_cast<const BlockQ8_0*>(nullptr));
    case CacheType::q5_1:
      return body(static_cast<const BlockQ5_1*>(nullptr));
    case CacheType::q4_0:
      return body(static_cast<const BlockQ4_0*>(nullptr));
  }
}
template <typename T>
constexpr bool kIsBlock = sizeof(T) > sizeof(float);
HWY_INLINE bool is_block_type(CacheType type) {
  return type >= CacheType::q8_0;
}

constexpr int64_t blocks_of(int64_t dim) {
  return (dim + kSmallBlock - 1) / kSmallBlock;
}

// Calls body(rows, n, key, ahead) for the pieces of the keys or values [begin, end) that lie together. After
// the last keys come the first values, after the last values the keys up to `ahead_end`.
template <typename Body>
HWY_INLINE void in_pages(const CachedHead& cache, bool values, int64_t begin, int64_t end, int64_t ahead_end,
                         Body&& body) {
  const auto at = [&](bool value, int64_t key) {
    return cache.pages[key / cache.page_tokens] + (value ? cache.v_offset : cache.k_offset) +
           key % cache.page_tokens * (value ? cache.v_row : cache.k_row);
  };
  const auto together = [&](int64_t key) {
    const int64_t left = cache.page_tokens - key % cache.page_tokens, until = key < end ? end : ahead_end;
    return until - key < left ? until - key : left;
  };
  for (int64_t key = begin; key < end;) {
    const int64_t n = together(key);
    RowsAhead ahead;
    ahead.rows = at(values, key);
    ahead.count = n;
    ahead.row = values ? cache.v_row : cache.k_row;
    ahead.distance = kAheadBytes / ahead.row < n ? kAheadBytes / ahead.row : n;
    const bool last = key + n == end;
    if (!last || !values || ahead_end > end) {
      const bool next_values = last ? !values : values;
      const int64_t next = last && !values ? begin : key + n;
      ahead.next = at(next_values, next);
      ahead.next_count = together(next);
      ahead.next_row = next_values ? cache.v_row : cache.k_row;
    }
    body(ahead.rows, n, key, ahead);
    key += n;
  }
}

HWY_INLINE AttentionRows cache_rows(const AttentionSpec& spec, const CacheQueries& queries, int head_begin,
                                    int head_end, int64_t q_begin, int64_t q_end) {
  AttentionRows rows;
  rows.group = head_end - head_begin;
  rows.head_begin = head_begin;
  rows.q_begin = q_begin;
  rows.count = rows.group * (q_end - q_begin);
  rows.shift = queries.position;
  rows.window = spec.window;
  rows.n_k = queries.key_end;
  rows.causal = spec.causal;
  rows.least = queries.key_begin;
  return rows;
}

struct FewScratch {
  int64_t q_stride, sums_stride, score_stride, out_stride, offset_stride;
  float *q, *sums, *scores, *out, *offsets;
  size_t bytes;

  FewScratch(const AttentionSpec& spec, void* memory) {
    Scratch scratch(memory);
    q_stride = tile_stride(blocks_of(spec.qk_dim) * kSmallBlock);
    sums_stride = blocks_of(spec.qk_dim) * kLanes;
    score_stride = tile_stride(kCacheChunk + kFewKeys);
    out_stride = tile_stride(blocks_of(spec.v_dim) * kSmallBlock);
    q = scratch.take(kCacheFewRows * q_stride);
    sums = scratch.take(kCacheFewRows * sums_stride);
    scores = scratch.take(kCacheFewRows * score_stride);
    out = scratch.take(kCacheFewRows * out_stride);
    offset_stride = blocks_of(spec.v_dim);
    offsets = scratch.take(kCacheFewRows * offset_stride);
    bytes = scratch.bytes();
  }
};

void score_keys(const AttentionSpec& spec, const CachedHead& cache, const AttentionRows& all, Extent seen,
                const FewScratch& scratch) {
  with_cache_type(cache.k_type, [&](auto* type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    const int64_t blocks = blocks_of(spec.qk_dim);
    if constexpr (kIsBlock<T>) {
      for (int64_t r = 0; r < all.count; ++r)
        query_sums(scratch.q + r * scratch.q_stride, blocks, scratch.sums + r * scratch.sums_stride);
    }
    in_pages(cache, false, seen.begin, seen.end, seen.end,
             [&](const std::byte* keys, int64_t n, int64_t key, const RowsAhead& ahead) {
               float* scores = scratch.scores + (key - seen.begin);
               if constexpr (kIsBlock<T>) {
                 block_scores<T>(scratch.q, scratch.q_stride, scratch.sums, scratch.sums_stride, all.count,
                                 keys, cache.k_row, n, ahead, blocks, scores, scratch.score_stride);
               } else {
                 few_scores(scratch.q, scratch.q_stride, all.count, reinterpret_cast<const T*>(keys),
                            cache.k_row / static_cast<int64_t>(sizeof(T)), n, ahead, spec.qk_dim, scores,
                            scratch.score_stride);
               }
             });
  });
}

// Scores of one row become weights relative to their maximum; what the row does not see gets none.
void weigh_row(const AttentionSpec& spec, const AttentionRows& all, Extent seen, int64_t r, float* row,
               float* maximum, float* sum) {
  ScoreTile tile;
  tile.first_row = 0;
  tile.first_key = seen.begin;
  const Extent keys = all.keys_of(r);
  const int64_t padded = round_up(seen.end - seen.begin, kLanes);
  const Shaping shaping = shaping_of(spec);
  const auto shape = [&]<Shaping kShaping>() {
    const ScoreShape<kShaping> shape_of_row(spec, all, tile, r);
    VF derivative;
    for (int64_t j = 0; j < padded; j += kLanes)
      store(shape_of_row.apply(load(row + j), j, derivative), row + j);
  };
  if (shaping == Shaping::slope) shape.template operator()<Shaping::slope>();
  if (shaping == Shaping::cap_and_slope) shape.template operator()<Shaping::cap_and_slope>();
  if (keys.empty()) {
    fill_row(row, 0, padded, kMinusInfinity);
  } else {
    fill_row(row, 0, keys.begin - seen.begin, kMinusInfinity);
    fill_row(row, keys.end - seen.begin, padded, kMinusInfinity);
  }
  VF best = hn::Set(df, kMinusInfinity);
  for (int64_t j = 0; j < padded; j += kLanes) best = hn::Max(best, load(row + j));
  *maximum = hn::GetLane(hn::MaxOfLanes(df, best));
  const VF base = hn::Set(df, *maximum == kMinusInfinity ? 0.0f : *maximum);
  VF total = hn::Zero(df);
  for (int64_t j = 0; j < padded; j += kLanes) {
    const VF p = exp2_vector(hn::Sub(load(row + j), base));
    store(p, row + j);
    total = hn::Add(total, p);
  }
  *sum = hn::GetLane(hn::SumOfLanes(df, total));
}

void weigh_values(const AttentionSpec& spec, const CachedHead& cache, const AttentionRows& all, Extent seen,
                  int64_t ahead_end, const FewScratch& scratch) {
  with_cache_type(cache.v_type, [&](auto* type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    in_pages(cache, true, seen.begin, seen.end, ahead_end,
             [&](const std::byte* values, int64_t n, int64_t key, const RowsAhead& ahead) {
               const float* p = scratch.scores + (key - seen.begin);
               if constexpr (kIsBlock<T>) {
                 block_values<T>(p, scratch.score_stride, all.count, values, cache.v_row, n,
                                 blocks_of(spec.v_dim), scratch.out, scratch.out_stride, scratch.offsets,
                                 scratch.offset_stride, ahead);
               } else {
                 for (int64_t r = 0; r < all.count; ++r) {
                   const Extent keys = all.keys_of(r);
                   const int64_t begin = keys.begin > key ? keys.begin - key : 0;
                   const int64_t end = keys.end - key < n ? keys.end - key : n;
                   if (begin >= end) continue;
                   few_values(p + r * scratch.score_stride, begin, end, reinterpret_cast<const T*>(values),
                              cache.v_row / static_cast<int64_t>(sizeof(T)), spec.v_dim, 1.0f,
                              scratch.out + r * scratch.out_stride, r == 0 ? ahead : RowsAhead{});
                 }
               }
             });
    if constexpr (kIsBlock<T>) {
      for (int64_t r = 0; r < all.count; ++r)
        add_offsets<T>(scratch.offsets + r * scratch.offset_stride, blocks_of(spec.v_dim),
                       scratch.out + r * scratch.out_stride);
    }
  });
}

void attend_few(const AttentionSpec& spec, const CachedHead& cache, const CacheQueries& queries,
                int head_begin, int head_end, const CachePart& part, void* memory) {
  const AttentionRows all = cache_rows(spec, queries, head_begin, head_end, 0, queries.count);
  const FewScratch scratch(spec, memory);
  for (int64_t r = 0; r < all.count; ++r)
    fill_row(scratch.q + r * scratch.q_stride, spec.qk_dim, blocks_of(spec.qk_dim) * kSmallBlock, 0.0f);
  copy_attention_rows(all, queries.q, queries.q_stride, spec.qk_dim, 0, all.count, spec.scale * kLog2E,
                      scratch.q, scratch.q_stride);
  fill_row(scratch.out, 0, all.count * scratch.out_stride, 0.0f);
  fill_row(scratch.offsets, 0, all.count * scratch.offset_stride, 0.0f);
  const Extent seen = {all.keys_of(0).begin, all.keys_of(all.count - 1).end};
  if (!seen.empty()) score_keys(spec, cache, all, seen, scratch);
  for (int64_t r = 0; r < all.count; ++r) {
    part.maximum[r] = kMinusInfinity;
    part.sum[r] = 0;
    if (!seen.empty())
      weigh_row(spec, all, seen, r, scratch.scores + r * scratch.score_stride, part.maximum + r,
                part.sum + r);
  }
  if (!seen.empty()) weigh_values(spec, cache, all, seen, queries.ahead_end, scratch);
  for (int64_t r = 0; r < all.count; ++r)
    std::memcpy(part.weighted + r * spec.v_dim, scratch.out + r * scratch.out_stride,
                static_cast<size_t>(spec.v_dim) * sizeof(float));
}

// A tile's worth of rows as floats.
HWY_INLINE void cache_floats(CacheType cache_type, const std::byte* from, int64_t row, int64_t rows,
                             int64_t dim, float* to, int64_t stride) {
  with_cache_type(cache_type, [&](auto* type) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(type)>>;
    if constexpr (kIsBlock<T>) {
      block_floats<T>(from, row, rows, blocks_of(dim), to, stride);
    } else {
      copy_tile(reinterpret_cast<const T*>(from), row / static_cast<int64_t>(sizeof(T)), rows, dim, to,
                stride);
    }
  });
}

// Forward's scratch, and behind it room for keys of a type that is not transposed where it lies.
struct ManyScratch {
  ForwardScratch forward;
  int64_t stride;
  float* rows;
  size_t bytes;

  ManyScratch(const AttentionSpec& spec, void* memory) : forward(wide(spec), memory) {
    Scratch scratch(memory == nullptr ? nullptr : static_cast<char*>(memory) + forward.bytes);
    stride = tile_stride(blocks_of(spec.qk_dim) * kSmallBlock);
    rows = scratch.take(kTileKeys * stride);
    bytes = forward.bytes + scratch.bytes();
  }
  // Values unpack to whole blocks.
  static AttentionSpec wide(AttentionSpec spec) {
    spec.v_dim = static_cast<int>(blocks_of(spec.v_dim) * kSmallBlock);
    return spec;
  }
};

void pack_keys(const AttentionSpec& spec, const CachedHead& cache, int64_t key, int64_t n,
               const ManyScratch& scratch) {
  const int64_t stride = scratch.forward.score_stride;
  in_pages(cache, false, key, key + n, key + n,
           [&](const std::byte* rows, int64_t count, int64_t first, const RowsAhead&) {
             float* to = scratch.forward.keys + (first - key);
             if (cache.k_type == CacheType::f32) {
               transpose_tile(reinterpret_cast<const float*>(rows), cache.k_row / 4, count, spec.qk_dim, to,
                              stride);
             } else if (cache.k_type == CacheType::bf16) {
               transpose_tile(reinterpret_cast<const bf16*>(rows), cache.k_row / 2, count, spec.qk_dim, to,
                              stride);
             } else {
               cache_floats(cache.k_type, rows, cache.k_row, count, spec.qk_dim, scratch.rows,
                            scratch.stride);
               transpose_tile(scratch.rows, scratch.stride, count, spec.qk_dim, to, stride);
             }
           });
}

void attend_many(const AttentionSpec& spec, const CachedHead& cache, const CacheQueries& queries,
                 int head_begin, int head_end, int64_t q_begin, int64_t q_end, float* out, int64_t out_stride,
                 float* lse, void* memory) {
  const AttentionRows all = cache_rows(spec, queries, head_begin, head_end, q_begin, q_end);
  const ManyScratch scratch(spec, memory);
  const ForwardScratch& forward = scratch.forward;
  Prefetch ahead;
  for (int64_t first = 0; first < all.count; first += forward.max_rows) {
    const int64_t rows = all.count - first < forward.max_rows ? all.count - first : forward.max_rows;
    begin_rows(spec, all, queries.q, queries.q_stride, first, rows, forward);
    const Extent seen = {all.keys_of(first).begin, all.keys_of(first + rows - 1).end};
    // Pieces of a tile then begin at whole vectors, but for a page's end that is the tile's.
    const int64_t begin = seen.begin / kCacheAlignment * kCacheAlignment;
    for (int64_t key = begin; key < seen.end; key += kTileKeys) {
      const int64_t n_keys = seen.end - key < kTileKeys ? seen.end - key : kTileKeys;
      pack_keys(spec, cache, key, n_keys, scratch);
      in_pages(cache, true, key, key + n_keys, key + n_keys,
               [&](const std::byte* from, int64_t count, int64_t piece, const RowsAhead&) {
                 cache_floats(cache.v_type, from, cache.v_row, count, spec.v_dim,
                              forward.values + (piece - key) * forward.v_stride, forward.v_stride);
               });
      meet_tile(spec, all, first, rows, key, n_keys, forward, ahead);
    }
    end_rows(spec, all, first, rows, forward, out, out_stride, lse, queries.count);
  }
}

size_t cache_scratch_bytes(const AttentionSpec& spec) {
  const size_t few = FewScratch(spec, nullptr).bytes, many = ManyScratch(spec, nullptr).bytes;
  return few > many ? few : many;
}
