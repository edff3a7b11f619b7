// Flash attention, forward (Dao, arXiv 2307.08691): for each tile of rows a running maximum and sum over
// tiles of keys.

// Rows that share one packing of a key tile: as many row tiles as keep q and out within most of a 512 KB
// cache.
constexpr int64_t kForwardElements = 96 * 1024;
constexpr int64_t kForwardTiles = 6;

struct ForwardScratch {
  int64_t qk_stride, v_stride, score_stride, max_rows;
  float *q, *keys, *values, *scores, *out;  // keys is transposed: (qk_dim, kTileKeys)
  float *maximum, *sum;                     // by row: running maximum; kLanes partial sums
  float *next_maximum, *base, *rescale;     // by row of a tile
  size_t bytes;

  ForwardScratch(const AttentionSpec& spec, void* memory) {
    Scratch scratch(memory);
    qk_stride = tile_stride(spec.qk_dim);
    v_stride = tile_stride(spec.v_dim);
    score_stride = tile_stride(kTileKeys);
    const int64_t tiles = kForwardElements / (qk_stride + v_stride) / kTileRows;
    max_rows = kTileRows * (tiles < 1 ? 1 : tiles > kForwardTiles ? kForwardTiles : tiles);
    q = scratch.take(max_rows * qk_stride);
    keys = scratch.take(spec.qk_dim * score_stride);
    values = scratch.take(kTileKeys * v_stride);
    scores = scratch.take(kTileRows * score_stride);
    out = scratch.take(max_rows * v_stride);
    maximum = scratch.take(max_rows);
    sum = scratch.take(max_rows * kLanes);
    next_maximum = scratch.take(kTileRows);
    base = scratch.take(kTileRows);
    rescale = scratch.take(kTileRows);
    bytes = scratch.bytes();
  }
};

// Softcap and ALiBi on the scores of one row of a tile.
template <Shaping kShaping>
void shape_scores(const AttentionSpec& spec, const AttentionRows& all, const ScoreTile& tile, int64_t r, float* row) {
  const ScoreShape<kShaping> shape(spec, all, tile, r);
  const Extent computed = tile.computed(r);
  VF derivative;
  for (int64_t j = computed.begin; j < computed.end; j += kLanes) store(shape.apply(load(row + j), j, derivative), row + j);
}

// Scores of one tile become probabilities relative to the rows' new maxima; maximum, sum and rescale follow.
void forward_softmax(const AttentionSpec& spec, const AttentionRows& all, const ScoreTile& tile,
                     const ForwardScratch& scratch, float* maximum, float* sum) {
  const Shaping shaping = shaping_of(spec);
  for (int64_t r = 0; r < tile.rows; ++r) {
    float* row = scratch.scores + r * scratch.score_stride;
    const Extent computed = tile.computed(r);
    if (shaping == Shaping::slope) shape_scores<Shaping::slope>(spec, all, tile, r, row);
    if (shaping == Shaping::cap_and_slope) shape_scores<Shaping::cap_and_slope>(spec, all, tile, r, row);
    if (!tile.whole) {
      const Extent seen = tile.keys_of(all, r);
      fill_row(row, computed.begin, seen.empty() ? computed.end : seen.begin, kMinusInfinity);
      fill_row(row, seen.empty() ? computed.end : seen.end, computed.end, kMinusInfinity);
    }
    VF best = hn::Set(df, maximum[r]);
    for (int64_t j = computed.begin; j < computed.end; j += kLanes) best = hn::Max(best, load(row + j));
    scratch.next_maximum[r] = hn::GetLane(hn::MaxOfLanes(df, best));
  }
  const VF minus_infinity = hn::Set(df, kMinusInfinity);
  for (int64_t r = 0; r < tile.rows; r += kLanes) {
    const VF next = load(scratch.next_maximum + r);
    // A row that has seen nothing yet: any finite base makes 2^(-inf - base) zero.
    const VF base = hn::IfThenElse(hn::Eq(next, minus_infinity), hn::Zero(df), next);
    store(base, scratch.base + r);
    store(exp2_vector(hn::Sub(load(maximum + r), base)), scratch.rescale + r);
    store(next, maximum + r);
  }
  for (int64_t r = 0; r < tile.rows; ++r) {
    float* row = scratch.scores + r * scratch.score_stride;
    const Extent computed = tile.computed(r);
    const VF base = hn::Set(df, scratch.base[r]);
    VF total = hn::Mul(load(sum + r * kLanes), hn::Set(df, scratch.rescale[r]));
    for (int64_t j = computed.begin; j < computed.end; j += kLanes) {
      const VF p = exp2_vector(hn::Sub(load(row + j), base));
      store(p, row + j);
      total = hn::Add(total, p);
    }
    store(total, sum + r * kLanes);
  }
}

// The accumulators of `rows` rows from `first` on, before any key.
template <typename T>
void begin_rows(const AttentionSpec& spec, const AttentionRows& all, const T* q, int64_t q_stride,
                int64_t first, int64_t rows, const ForwardScratch& scratch) {
  copy_attention_rows(all, q, q_stride, spec.qk_dim, first, rows, spec.scale * kLog2E, scratch.q,
                      scratch.qk_stride);
  fill_row(scratch.out, 0, rows * scratch.v_stride, 0.0f);
  fill_row(scratch.sum, 0, rows * kLanes, 0.0f);
  fill_row(scratch.maximum, 0, scratch.max_rows, kMinusInfinity);
}

// Their outputs, after all keys; lse is (n_heads, n_q).
template <typename T>
void end_rows(const AttentionSpec& spec, const AttentionRows& all, int64_t first, int64_t rows,
              const ForwardScratch& scratch, T* outputs, int64_t out_stride, float* lse, int64_t n_q) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t query = all.query(first + r), head = all.head(first + r);
    const float total = hn::GetLane(hn::SumOfLanes(df, load(scratch.sum + r * kLanes)));
    const VF inverse = hn::Set(df, total == 0.0f ? 0.0f : 1.0f / total);
    lse[head * n_q + query] = total == 0.0f ? kMinusInfinity : scratch.maximum[r] * kLn2 + std::log(total);
    T* out = outputs + query * out_stride + head * spec.v_dim;
    map(
        out, spec.v_dim, [inverse](VF v) { return hn::Mul(v, inverse); }, scratch.out + r * scratch.v_stride);
  }
}

// Rows [first, first + rows) meet a packed tile of keys.
HWY_INLINE void meet_tile(const AttentionSpec& spec, const AttentionRows& all, int64_t first, int64_t rows,
                      int64_t key, int64_t n_keys, const ForwardScratch& scratch, Prefetch& ahead) {
  const int64_t v_columns = round_up(spec.v_dim, kLanes);
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const int64_t n_rows = rows - r < kTileRows ? rows - r : kTileRows;
    const Extent seen = {all.keys_of(first + r).begin, all.keys_of(first + r + n_rows - 1).end};
    if (seen.begin >= key + n_keys || seen.end <= key) continue;
    const ScoreTile tile = score_tile(all, first + r, n_rows, key, n_keys);
    tile_product<Update::overwrite, false>(scratch.q + r * scratch.qk_stride, scratch.qk_stride, scratch.keys,
                                           scratch.score_stride, scratch.scores, scratch.score_stride, n_rows,
                                           tile.padded_keys(), spec.qk_dim, tile.keys_of_rows, nullptr,
                                           ahead);
    forward_softmax(spec, all, tile, scratch, scratch.maximum + r, scratch.sum + r * kLanes);
    tile_product<Update::rescale, false>(scratch.scores, scratch.score_stride, scratch.values,
                                         scratch.v_stride, scratch.out + r * scratch.v_stride,
                                         scratch.v_stride, n_rows, v_columns, n_keys, nullptr,
                                         tile.keys_of_rows, ahead, scratch.rescale);
  }
}

// One tile of keys for all of the few rows there are.
template <typename T>
void few_rows(const AttentionSpec& spec, const AttentionRows& all, const ForwardScratch& scratch, const T* keys, int64_t k_stride,
              const T* values, int64_t v_stride, int64_t rows, int64_t key, int64_t n_keys) {
  const ScoreTile tile = score_tile(all, 0, rows, key, n_keys);
  few_scores<T>(scratch.q, scratch.qk_stride, rows, keys, k_stride, n_keys, RowsAhead{}, spec.qk_dim, scratch.scores,
                scratch.score_stride);
  forward_softmax(spec, all, tile, scratch, scratch.maximum, scratch.sum);
  for (int64_t r = 0; r < rows; ++r) {
    const Extent computed = tile.computed(r);
    few_values(scratch.scores + r * scratch.score_stride, computed.begin, computed.end < n_keys ? computed.end : n_keys, values,
               v_stride, spec.v_dim, scratch.rescale[r], scratch.out + r * scratch.v_stride, RowsAhead{});
  }
}

template <typename T>
void attention_forward(const AttentionSpec& spec, const AttentionSequence<T>& sequence, int head_begin,
                       int head_end, int64_t q_begin, int64_t q_end, void* memory) {
  const AttentionRows all = attention_rows(spec, sequence, head_begin, head_end, q_begin, q_end);
  const ForwardScratch scratch(spec, memory);
  const int64_t kv_head = head_begin / (spec.n_heads / spec.n_kv_heads);
  const T* keys = sequence.k + kv_head * spec.qk_dim;
  const T* values = sequence.v + kv_head * spec.v_dim;
  Prefetch ahead;

  for (int64_t first = 0; first < all.count; first += scratch.max_rows) {
    const int64_t rows = all.count - first < scratch.max_rows ? all.count - first : scratch.max_rows;
    begin_rows(spec, all, sequence.q, sequence.q_stride, first, rows, scratch);
    const Extent seen = {all.keys_of(first).begin, all.keys_of(first + rows - 1).end};
    for (int64_t key = seen.begin; key < seen.end; key += kTileKeys) {
      const int64_t n_keys = seen.end - key < kTileKeys ? seen.end - key : kTileKeys;
      if (all.count <= kFewRows) {
        few_rows(spec, all, scratch, keys + key * sequence.k_stride, sequence.k_stride, values + key * sequence.v_stride,
                 sequence.v_stride, rows, key, n_keys);
        continue;
      }
      transpose_tile(keys + key * sequence.k_stride, sequence.k_stride, n_keys, spec.qk_dim, scratch.keys,
                     scratch.score_stride);
      copy_tile(values + key * sequence.v_stride, sequence.v_stride, n_keys, spec.v_dim, scratch.values,
                scratch.v_stride);
      const int64_t next = key + n_keys, n_next = seen.end - next < kTileKeys ? seen.end - next : kTileKeys;
      ahead.clear();
      ahead.add(keys + next * sequence.k_stride, sequence.k_stride, n_next, spec.qk_dim);
      ahead.add(values + next * sequence.v_stride, sequence.v_stride, n_next, spec.v_dim);
      meet_tile(spec, all, first, rows, key, n_keys, scratch, ahead);
    }
    end_rows(spec, all, first, rows, scratch, sequence.out, sequence.out_stride, sequence.lse, sequence.n_q);
  }
}
