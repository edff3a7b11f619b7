// Flash attention, backward (Dao, arXiv 2307.08691, algorithm 2): for each tile of keys over tiles of rows,
// probabilities are recomputed from the rows' log-sum-exp. With P the probabilities, D = rowsum(dout * out)
// and dP = dout V^T: dV = P^T dout, dS = P * (dP - D), dQ = scale dS K, dK = scale dS^T Q.

struct BackwardScratch {
  int64_t qk_stride, v_stride, score_stride;
  float *q, *dout, *dq;  // by row of the call; q times scale * log2(e); dq lacks scale
  float *lse, *delta;    // by row of the call; lse in base 2
  float *keys, *keys_transposed, *values_transposed;  // key tiles
  float *p, *ds;                                      // rows x keys: scores, then P; dP, then dS
  float *dk, *dv;                                     // key tiles of float sums; dk lacks a factor ln 2
  size_t bytes;

  BackwardScratch(const AttentionSpec& spec, int64_t rows, void* memory) {
    Scratch scratch(memory);
    qk_stride = tile_stride(spec.qk_dim);
    v_stride = tile_stride(spec.v_dim);
    score_stride = tile_stride(kTileKeys);
    q = scratch.take(rows * qk_stride);
    dout = scratch.take(rows * v_stride);
    dq = scratch.take(rows * qk_stride);
    lse = scratch.take(rows);
    delta = scratch.take(rows);
    keys = scratch.take(kTileKeys * qk_stride);
    keys_transposed = scratch.take(spec.qk_dim * score_stride);
    values_transposed = scratch.take(spec.v_dim * score_stride);
    p = scratch.take(kTileRows * score_stride);
    ds = scratch.take(kTileRows * score_stride);
    dk = scratch.take(kTileKeys * qk_stride);
    dv = scratch.take(kTileKeys * v_stride);
    bytes = scratch.bytes();
  }
};

// p: scores become probabilities; ds: dP becomes dS. What a row does not see becomes zero in both.
template <Shaping kShaping>
void backward_softmax(const AttentionSpec& spec, const AttentionRows& all, const ScoreTile& tile,
                      const BackwardScratch& scratch) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    float* p_row = scratch.p + r * scratch.score_stride;
    float* ds_row = scratch.ds + r * scratch.score_stride;
    const VF lse = hn::Set(df, scratch.lse[tile.first_row + r]);
    const VF delta = hn::Set(df, scratch.delta[tile.first_row + r]);
    const ScoreShape<kShaping> shape(spec, all, tile, r);
    const Extent computed = tile.computed(r);
    for (int64_t j = computed.begin; j < computed.end; j += kLanes) {
      VF s = load(p_row + j);
      VF derivative;
      if constexpr (kShaping != Shaping::none) s = shape.apply(s, j, derivative);
      const VF p = exp2_vector(hn::Sub(s, lse));
      VF ds = hn::Mul(p, hn::Sub(load(ds_row + j), delta));
      if constexpr (kShaping != Shaping::none) ds = hn::Mul(ds, derivative);
      store(p, p_row + j);
      store(ds, ds_row + j);
    }
    if (!tile.whole) {
      const Extent seen = tile.keys_of(all, r);
      for (float* row : {p_row, ds_row}) {
        fill_row(row, 0, seen.begin, 0.0f);
        fill_row(row, seen.end, tile.padded_keys(), 0.0f);
      }
    }
  }
}

template <typename T>
void attention_backward(const AttentionSpec& spec, const AttentionSequence<T>& sequence,
                        const AttentionGradients<T>& gradients, int head_begin, int head_end, int64_t q_begin,
                        int64_t q_end, void* memory) {
  const AttentionRows all = attention_rows(spec, sequence, head_begin, head_end, q_begin, q_end);
  if (all.count == 0) return;
  const BackwardScratch scratch(spec, all.count, memory);
  const int64_t kv_head = head_begin / (spec.n_heads / spec.n_kv_heads);
  const T* keys = sequence.k + kv_head * spec.qk_dim;
  const T* values = sequence.v + kv_head * spec.v_dim;
  const int64_t qk_columns = round_up(spec.qk_dim, kLanes), v_columns = round_up(spec.v_dim, kLanes);
  const Shaping shaping = shaping_of(spec);
  Prefetch ahead;

  copy_attention_rows(all, sequence.q, sequence.q_stride, spec.qk_dim, 0, all.count, spec.scale * kLog2E,
                      scratch.q, scratch.qk_stride);
  copy_attention_rows(all, gradients.dout, sequence.out_stride, spec.v_dim, 0, all.count, 1.0f, scratch.dout,
                      scratch.v_stride);
  fill_row(scratch.dq, 0, all.count * scratch.qk_stride, 0.0f);
  for (int64_t r = 0; r < all.count; ++r) {
    const int64_t query = all.query(r), head = all.head(r);
    const int64_t at = query * sequence.out_stride + head * spec.v_dim;
    scratch.lse[r] = sequence.lse[head * sequence.n_q + query] * kLog2E;
    scratch.delta[r] = reduce(
        spec.v_dim, [](VF a, VF b) { return hn::Mul(a, b); }, gradients.dout + at, sequence.out + at);
  }

  const Extent seen = {all.keys_of(0).begin, all.keys_of(all.count - 1).end};
  for (int64_t key = seen.begin; key < seen.end; key += kTileKeys) {
    const int64_t n_keys = seen.end - key < kTileKeys ? seen.end - key : kTileKeys;
    const T* key_tile = keys + key * sequence.k_stride;
    copy_tile(key_tile, sequence.k_stride, n_keys, spec.qk_dim, scratch.keys, scratch.qk_stride);
    transpose_tile(key_tile, sequence.k_stride, n_keys, spec.qk_dim, scratch.keys_transposed,
                   scratch.score_stride);
    transpose_tile(values + key * sequence.v_stride, sequence.v_stride, n_keys, spec.v_dim,
                   scratch.values_transposed, scratch.score_stride);
    fill_row(scratch.dk, 0, n_keys * scratch.qk_stride, 0.0f);
    fill_row(scratch.dv, 0, n_keys * scratch.v_stride, 0.0f);

    const Extent seeing = all.rows_of(key, key + n_keys);
    for (int64_t row = seeing.begin; row < seeing.end; row += kTileRows) {
      const int64_t n_rows = seeing.end - row < kTileRows ? seeing.end - row : kTileRows;
      const ScoreTile tile = score_tile(all, row, n_rows, key, n_keys);
      const float* q = scratch.q + row * scratch.qk_stride;
      const float* dout = scratch.dout + row * scratch.v_stride;
      float* dq = scratch.dq + row * scratch.qk_stride;
      const int64_t next = row + n_rows,
                    n_next = seeing.end - next < kTileRows ? seeing.end - next : kTileRows;
      ahead.clear();
      ahead.add(q + n_rows * scratch.qk_stride, scratch.qk_stride, n_next, scratch.qk_stride);
      ahead.add(dout + n_rows * scratch.v_stride, scratch.v_stride, n_next, scratch.v_stride);
      if (n_next <= 0) {
        const int64_t next_key = key + n_keys,
                      n_next_keys = seen.end - next_key < kTileKeys ? seen.end - next_key : kTileKeys;
        ahead.add(keys + next_key * sequence.k_stride, sequence.k_stride, n_next_keys, spec.qk_dim);
        ahead.add(values + next_key * sequence.v_stride, sequence.v_stride, n_next_keys, spec.v_dim);
        ahead.add(gradients.dk + key * gradients.dk_stride, gradients.dk_stride, n_keys, spec.qk_dim);
        ahead.add(gradients.dv + key * gradients.dv_stride, gradients.dv_stride, n_keys, spec.v_dim);
      }
      ahead.add(dq, scratch.qk_stride, n_rows, scratch.qk_stride);
      tile_product<Update::overwrite, false>(
          q, scratch.qk_stride, scratch.keys_transposed, scratch.score_stride, scratch.p,
          scratch.score_stride, n_rows, tile.padded_keys(), spec.qk_dim, tile.keys_of_rows, nullptr, ahead);
      tile_product<Update::overwrite, false>(
          dout, scratch.v_stride, scratch.values_transposed, scratch.score_stride, scratch.ds,
          scratch.score_stride, n_rows, tile.padded_keys(), spec.v_dim, tile.keys_of_rows, nullptr, ahead);
      if (shaping == Shaping::none) backward_softmax<Shaping::none>(spec, all, tile, scratch);
      if (shaping == Shaping::slope) backward_softmax<Shaping::slope>(spec, all, tile, scratch);
      if (shaping == Shaping::cap_and_slope) backward_softmax<Shaping::cap_and_slope>(spec, all, tile, scratch);
      tile_product<Update::accumulate, true>(scratch.p, scratch.score_stride, dout, scratch.v_stride,
                                             scratch.dv, scratch.v_stride, n_keys, v_columns, n_rows, nullptr,
                                             tile.rows_of_keys, ahead);
      tile_product<Update::accumulate, true>(scratch.ds, scratch.score_stride, q, scratch.qk_stride,
                                             scratch.dk, scratch.qk_stride, n_keys, qk_columns, n_rows,
                                             nullptr, tile.rows_of_keys, ahead);
      tile_product<Update::accumulate, false>(scratch.ds, scratch.score_stride, scratch.keys,
                                              scratch.qk_stride, dq, scratch.qk_stride, n_rows, qk_columns,
                                              n_keys, nullptr, tile.keys_of_rows, ahead);
    }

    const VF ln2 = hn::Set(df, kLn2);
    for (int64_t j = 0; j < n_keys; ++j) {
      float* dk = gradients.dk + (key + j) * gradients.dk_stride;
      float* dv = gradients.dv + (key + j) * gradients.dv_stride;
      map(
          dk, spec.qk_dim, [ln2](VF sum, VF v) { return hn::MulAdd(ln2, v, sum); }, dk,
          scratch.dk + j * scratch.qk_stride);
      map(
          dv, spec.v_dim, [](VF sum, VF v) { return hn::Add(sum, v); }, dv,
          scratch.dv + j * scratch.v_stride);
    }
  }

  const VF factor = hn::Set(df, spec.scale);
  for (int64_t r = 0; r < all.count; ++r) {
    T* dq = gradients.dq + all.query(r) * sequence.q_stride + all.head(r) * spec.qk_dim;
    map(
        dq, spec.qk_dim, [factor](VF v) { return hn::Mul(v, factor); }, scratch.dq + r * scratch.qk_stride);
  }
}

size_t attention_scratch_bytes(const AttentionSpec& spec, int64_t rows) {
  const size_t forward = ForwardScratch(spec, nullptr).bytes;
  const size_t backward = rows > 0 ? BackwardScratch(spec, rows, nullptr).bytes : 0;
  return forward > backward ? forward : backward;
}
