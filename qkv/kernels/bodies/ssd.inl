// Mamba-2 (Dao & Gu, arXiv 2405.21060, section 6). Inside a chunk the recurrence is a masked product: with
// D[t, j] the decay from token j to token t, w[t] that from before the chunk to t and r[t] that from t to its
// end,
//   Y = (D * C B^T) X' + w * (C h_before),   h_after = w[last] h_before + B^T (r * X'),   X' = dt * X.
// The products are the tiles of attention; C B^T is made once for all heads of a call.

template <typename T>
void ssd_steps(const T* x, const float* bias, bool softplus, float least, float most, float* dt, int64_t rows,
               int64_t heads) {
  const VF low = hn::Set(df, least), high = hn::Set(df, most);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; h += kLanes) {
      VF v = load_some(x + r * heads + h, heads - h);
      if (bias != nullptr) v = hn::Add(v, load_some(bias + h, heads - h));
      if (softplus) v = softplus_vector(v);
      v = hn::IfThenElse(hn::Lt(v, low), low, v);  // comparisons keep NaN
      store_some(hn::IfThenElse(hn::Gt(v, high), high, v), dt + r * heads + h, heads - h);
    }
  }
}

template <typename T>
void ssd_steps_backward(const T* x, const float* bias, bool softplus, float least, float most,
                        const float* ddt, T* dx, float* dbias, int64_t rows, int64_t heads) {
  const VF low = hn::Set(df, least), high = hn::Set(df, most);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; h += kLanes) {
      const int64_t lanes = heads - h;
      VF v = load_some(x + r * heads + h, lanes), d = load_some(ddt + r * heads + h, lanes);
      if (bias != nullptr) v = hn::Add(v, load_some(bias + h, lanes));
      if (softplus) {
        d = hn::Mul(d, sigmoid_vector(v));
        v = softplus_vector(v);
      }
      d = hn::IfThenZeroElse(hn::Or(hn::Lt(v, low), hn::Gt(v, high)), d);
      store_some(d, dx + r * heads + h, lanes);
      if (dbias != nullptr) store_some(hn::Add(load_some(dbias + h, lanes), d), dbias + h, lanes);
    }
  }
}

// Vectors of one head that stay in registers during the recurrent form.
constexpr int kSsdVectors = 4;

// Channels [channel, channel + kVectors * kLanes) of one head, the last vector perhaps in part.
template <int kVectors, typename T>
HWY_INLINE void ssd_recurrent_channels(const SsdChunk<T>& s, int64_t head, int64_t channel, float* state) {
  const int64_t left = s.head_dim - channel;
  for (int64_t t = 0; t < s.tokens; ++t) {
    const float dt = s.dt[t * s.dt_stride + head];
    const VF decay = scan_decay(hn::Set(df, dt), hn::Set(df, s.a[head] * kLog2E));
    const VF skip = hn::Set(df, s.skip != nullptr ? s.skip[head] : 0.0f);
    const int64_t at = t * s.x_stride + head * s.head_dim + channel;
    const T *b = s.b + t * s.bc_stride, *c = s.c + t * s.bc_stride;
    VF x[kVectors], y[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      x[v] = load_some(s.x + at + v * kLanes, left - v * kLanes);
      y[v] = hn::Mul(skip, x[v]);
      x[v] = hn::Mul(hn::Set(df, dt), x[v]);
    }
    for (int64_t n = 0; n < s.states; ++n) {
      const VF bn = hn::Set(df, to_float(b[n])), cn = hn::Set(df, to_float(c[n]));
      float* row = state + n * s.head_dim + channel;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const VF h = hn::MulAdd(decay, load_some(row + v * kLanes, left - v * kLanes), hn::Mul(bn, x[v]));
        store_some(h, row + v * kLanes, left - v * kLanes);
        y[v] = hn::MulAdd(cn, h, y[v]);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store_some(y[v], s.y + at + v * kLanes, left - v * kLanes);
  }
}

template <typename T>
void ssd_recurrent(const SsdChunk<T>& s, float* state) {
  for (int64_t head = 0; head < s.heads; ++head) {
    float* own = state + head * s.states * s.head_dim;
    int64_t channel = 0;
    for (; channel + kSsdVectors * kLanes <= s.head_dim; channel += kSsdVectors * kLanes) {
      ssd_recurrent_channels<kSsdVectors>(s, head, channel, own);
    }
    for (; channel < s.head_dim; channel += kLanes) ssd_recurrent_channels<1>(s, head, channel, own);
  }
}

// Tiles: L tokens, N states, P channels of a head, as (rows x columns).
struct SsdScratch {
  int64_t l_stride, n_stride, p_stride;
  float *b, *c;               // L x N
  float* b_transposed;        // N x L
  float* cb;                  // L x L, lower triangle: C B^T
  float *dt, *decay, *w, *r;  // (L) of one head; decay[t] from t - 1 to t
  float* factors;             // (L): one row of D
  float* x;                   // L x P: X', or r * X'
  float* scores;              // L x L: D * cb
  float* y;                   // L x P
  float* h;                   // N x P
  // Of the backward pass:
  float* dcb;                              // L x L, summed over heads
  float* dscores;                          // L x L
  float *dy, *dx;                          // L x P; gradient of X'
  float* x_transposed;                     // P x L
  float *g, *h_transposed, *g_transposed;  // N x P, P x N, P x N
  float* product;                          // L x N
  float *db, *dc;                          // L x N, summed over heads
  float *into, *out_of;                    // (L): see ssd_exponents
  size_t bytes;

  SsdScratch(int64_t head_dim, int64_t states, void* memory) {
    constexpr int64_t tokens = kSsdChunk;
    Scratch scratch(memory);
    l_stride = tile_stride(tokens);
    n_stride = tile_stride(states);
    p_stride = tile_stride(head_dim);
    for (float** tile : {&b, &c, &product, &db, &dc}) *tile = scratch.take(tokens * n_stride);
    b_transposed = scratch.take(states * l_stride);
    for (float** tile : {&cb, &scores, &dcb, &dscores}) *tile = scratch.take(tokens * l_stride);
    for (float** row : {&dt, &decay, &w, &r, &factors, &into, &out_of})
      *row = scratch.take(round_up(tokens, kLanes));
    for (float** tile : {&x, &y, &dy, &dx}) *tile = scratch.take(tokens * p_stride);
    x_transposed = scratch.take(head_dim * l_stride);
    for (float** tile : {&h, &g}) *tile = scratch.take(states * p_stride);
    for (float** tile : {&h_transposed, &g_transposed}) *tile = scratch.take(head_dim * n_stride);
    bytes = scratch.bytes();
  }
};

inline size_t ssd_scratch_bytes(int64_t head_dim, int64_t states) {
  return SsdScratch(head_dim, states, nullptr).bytes;
}

// Which columns of a lower triangle a block of rows has, and which rows of it a block of columns.
struct Triangle {
  Extent columns[kSsdChunk / kBlockRows], rows[kSsdChunk / kBlockRows];
  explicit Triangle(int64_t n) {
    for (int64_t block = 0; block * kBlockRows < n; ++block) {
      const int64_t end = (block + 1) * kBlockRows;
      columns[block] = {0, end < n ? end : n};
      rows[block] = {block * kBlockRows, n};
    }
  }
};

// dt, decay, w and r of one head; returns the decay over the whole chunk.
template <typename T>
float ssd_decays(const SsdChunk<T>& s, int64_t head, const SsdScratch& m) {
  for (int64_t t = 0; t < s.tokens; ++t) m.dt[t] = s.dt[t * s.dt_stride + head];
  const VF rate = hn::Set(df, s.a[head] * kLog2E);
  for (int64_t t = 0; t < s.tokens; t += kLanes)
    store(scan_decay(load_some(m.dt + t, s.tokens - t), rate), m.decay + t);
  float product = 1;
  for (int64_t t = 0; t < s.tokens; ++t) m.w[t] = product *= m.decay[t];
  float rest = 1;
  for (int64_t t = s.tokens - 1; t >= 0; --t) {
    m.r[t] = rest;
    rest *= m.decay[t];
  }
  return product;
}

// The head's x, each row times factor[t] (null: 1).
template <typename T>
void ssd_copy_head(const SsdChunk<T>& s, const T* x, int64_t head, const float* factor, const SsdScratch& m,
                   float* to) {
  for (int64_t t = 0; t < s.tokens; ++t) {
    copy_row(x + t * s.x_stride + head * s.head_dim, factor == nullptr ? 1.0f : factor[t], s.head_dim,
             to + t * m.p_stride);
  }
}

template <typename T>
void ssd_copy_states(const SsdChunk<T>& s, const SsdScratch& m) {
  copy_tile(s.b, s.bc_stride, s.tokens, s.states, m.b, m.n_stride);
  copy_tile(s.c, s.bc_stride, s.tokens, s.states, m.c, m.n_stride);
}

// to (states, head_dim) = rows^T x with rows (L x N) and x (L x P).
template <typename T>
void ssd_outer_product(const SsdChunk<T>& s, const SsdScratch& m, const float* rows, float* to) {
  Prefetch none;
  tile_product<Update::overwrite, true>(rows, m.n_stride, m.x, m.p_stride, m.h, m.p_stride, s.states,
                                        round_up(s.head_dim, kLanes), s.tokens, nullptr, nullptr, none);
  for (int64_t n = 0; n < s.states; ++n)
    map(
        to + n * s.head_dim, s.head_dim, [](VF v) { return v; }, m.h + n * m.p_stride);
}

template <typename T>
void ssd_state(const SsdChunk<T>& s, float* added, float* decay, void* memory) {
  const SsdScratch m(s.head_dim, s.states, memory);
  copy_tile(s.b, s.bc_stride, s.tokens, s.states, m.b, m.n_stride);
  for (int64_t head = 0; head < s.heads; ++head) {
    decay[head] = ssd_decays(s, head, m);
    for (int64_t t = 0; t < s.tokens; ++t) m.factors[t] = m.r[t] * m.dt[t];
    ssd_copy_head(s, s.x, head, m.factors, m, m.x);
    ssd_outer_product(s, m, m.b, added + head * s.states * s.head_dim);
  }
}

template <typename T>
void ssd_state_backward(const SsdChunk<T>& s, const T* dy, float* added, float* decay, void* memory) {
  const SsdScratch m(s.head_dim, s.states, memory);
  copy_tile(s.c, s.bc_stride, s.tokens, s.states, m.c, m.n_stride);
  for (int64_t head = 0; head < s.heads; ++head) {
    decay[head] = ssd_decays(s, head, m);
    ssd_copy_head(s, dy, head, m.w, m, m.x);
    ssd_outer_product(s, m, m.c, added + head * s.states * s.head_dim);
  }
}

// cb = C B^T.
template <typename T>
void ssd_products_of_states(const SsdChunk<T>& s, const SsdScratch& m, const Triangle& triangle) {
  Prefetch none;
  transpose_tile(s.b, s.bc_stride, s.tokens, s.states, m.b_transposed, m.l_stride);
  tile_product<Update::overwrite, false>(m.c, m.n_stride, m.b_transposed, m.l_stride, m.cb, m.l_stride,
                                         s.tokens, round_up(s.tokens, kLanes), s.states, triangle.columns,
                                         nullptr, none);
}

// Walks the rows of D: body(t, j, D[t, j...]) for vectors of columns up to the diagonal, lanes beyond it
// zero. A row is the one before times the token's decay, as in the recurrence: no logarithms to take
// differences of. What is too small to matter becomes zero before it becomes denormal.
template <typename Body>
HWY_INLINE void ssd_walk_decays(const SsdScratch& m, int64_t tokens, Body body) {
  const VF least = hn::Set(df, 1e-30f);
  fill_row(m.factors, 0, round_up(tokens, kLanes), 0.0f);
  for (int64_t t = 0; t < tokens; ++t) {
    const VF decay = hn::Set(df, m.decay[t]);
    for (int64_t j = 0; j < t; j += kLanes) {
      const VF f = hn::Mul(load(m.factors + j), decay);
      store(hn::IfThenElseZero(hn::Gt(f, least), f), m.factors + j);
    }
    m.factors[t] = 1;
    for (int64_t j = 0; j <= t; j += kLanes) body(t, j, load(m.factors + j));
  }
}

template <typename T>
void ssd_output(const SsdChunk<T>& s, const float* before, void* memory) {
  const SsdScratch m(s.head_dim, s.states, memory);
  const Triangle triangle(s.tokens);
  const int64_t columns = round_up(s.head_dim, kLanes), padded = round_up(s.tokens, kLanes);
  Prefetch none;
  copy_tile(s.c, s.bc_stride, s.tokens, s.states, m.c, m.n_stride);
  ssd_products_of_states(s, m, triangle);
  for (int64_t head = 0; head < s.heads; ++head) {
    ssd_decays(s, head, m);
    ssd_copy_head(s, s.x, head, m.dt, m, m.x);
    ssd_walk_decays(m, s.tokens, [&](int64_t t, int64_t j, VF d) {
      store(hn::Mul(d, load(m.cb + t * m.l_stride + j)), m.scores + t * m.l_stride + j);
    });
    for (int64_t t = 0; t < s.tokens; ++t)
      fill_row(m.scores + t * m.l_stride, round_up(t + 1, kLanes), padded, 0.0f);
    if (before == nullptr) {
      tile_product<Update::overwrite, false>(m.scores, m.l_stride, m.x, m.p_stride, m.y, m.p_stride, s.tokens,
                                             columns, s.tokens, nullptr, triangle.columns, none);
    } else {
      copy_tile(before + head * s.states * s.head_dim, s.head_dim, s.states, s.head_dim, m.h, m.p_stride);
      tile_product<Update::overwrite, false>(m.c, m.n_stride, m.h, m.p_stride, m.y, m.p_stride, s.tokens,
                                             columns, s.states, nullptr, nullptr, none);
      tile_product<Update::rescale, false>(m.scores, m.l_stride, m.x, m.p_stride, m.y, m.p_stride, s.tokens,
                                           columns, s.tokens, nullptr, triangle.columns, none, m.w);
    }
    const VF skip = hn::Set(df, s.skip != nullptr ? s.skip[head] : 0.0f);
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int64_t at = t * s.x_stride + head * s.head_dim;
      map(
          s.y + at, s.head_dim, [skip](VF y, VF x) { return hn::MulAdd(skip, x, y); }, m.y + t * m.p_stride,
          s.x + at);
    }
  }
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  return reduce(
      n, [](VF x, VF y) { return hn::Mul(x, y); }, a, b);
}

// The gradient of every token's exponent dt a, left in m.into: what flows over the token from those before it
// to itself and those after it. On entry m.dscores holds what flows from token j to token t at [t, j], m.into
// what flows from the state before the chunk to each token, m.out_of what flows from each token to the state
// after it, `through` from state to state. Everything added here carries the token's own decay: nothing
// cancels where little gets past a token.
inline void ssd_exponents(const SsdScratch& m, int64_t tokens, float through) {
  double leaving = through, entering = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const float here = m.out_of[t];
    m.out_of[t] = static_cast<float>(leaving);
    leaving += here;
  }
  float* columns = m.factors;  // sums over the rows from t on
  fill_row(columns, 0, round_up(tokens, kLanes), 0.0f);
  for (int64_t t = tokens - 1; t >= 0; --t) {
    VF past = hn::Zero(df);
    for (int64_t j = 0; j <= t; j += kLanes) {
      const VF sum = hn::Add(load(columns + j), load(m.dscores + t * m.l_stride + j));
      store(sum, columns + j);
      past = hn::Add(
          past, j + kLanes <= t ? sum : hn::IfThenElseZero(hn::FirstN(df, static_cast<size_t>(t - j)), sum));
    }
    entering += m.into[t];
    m.into[t] = static_cast<float>(hn::GetLane(hn::SumOfLanes(df, past)) + entering + m.out_of[t]);
  }
}

template <typename T>
void ssd_backward(const SsdChunk<T>& s, const SsdGradients<T>& g, const float* before, const float* dafter,
                  void* memory) {
  const SsdScratch m(s.head_dim, s.states, memory);
  const Triangle triangle(s.tokens);
  const int64_t columns = round_up(s.head_dim, kLanes), padded = round_up(s.tokens, kLanes);
  const int64_t state_columns = round_up(s.states, kLanes), state_size = s.states * s.head_dim;
  Prefetch none;
  ssd_copy_states(s, m);
  ssd_products_of_states(s, m, triangle);
  fill_row(m.dcb, 0, s.tokens * m.l_stride, 0.0f);
  fill_row(m.db, 0, s.tokens * m.n_stride, 0.0f);
  fill_row(m.dc, 0, s.tokens * m.n_stride, 0.0f);

  for (int64_t head = 0; head < s.heads; ++head) {
    const float over_all = ssd_decays(s, head, m);
    const float a = s.a[head], skip = s.skip != nullptr ? s.skip[head] : 0.0f;
    ssd_copy_head(s, s.x, head, m.dt, m, m.x);
    ssd_copy_head<T>(s, g.dy, head, nullptr, m, m.dy);
    transpose_tile(m.x, m.p_stride, s.tokens, s.head_dim, m.x_transposed, m.l_stride);
    tile_product<Update::overwrite, false>(m.dy, m.p_stride, m.x_transposed, m.l_stride, m.dscores,
                                           m.l_stride, s.tokens, padded, s.head_dim, triangle.columns,
                                           nullptr, none);
    fill_row(m.into, 0, padded, 0.0f);
    fill_row(m.out_of, 0, padded, 0.0f);
    ssd_walk_decays(m, s.tokens, [&](int64_t t, int64_t j, VF d) {
      const int64_t at = t * m.l_stride + j;
      const VF score = hn::Mul(d, load(m.cb + at)), dscore = load(m.dscores + at);
      store(score, m.scores + at);
      store(hn::MulAdd(dscore, d, load(m.dcb + at)), m.dcb + at);
      store(hn::Mul(score, dscore), m.dscores + at);
    });
    for (int64_t t = 0; t < s.tokens; ++t)
      fill_row(m.scores + t * m.l_stride, round_up(t + 1, kLanes), padded, 0.0f);

    float through = 0;  // what flows through the whole chunk
    if (dafter != nullptr) {
      const float* after = dafter + head * state_size;
      copy_tile(after, s.head_dim, s.states, s.head_dim, m.g, m.p_stride);
      transpose_tile(after, s.head_dim, s.states, s.head_dim, m.g_transposed, m.n_stride);
      tile_product<Update::overwrite, false>(m.x, m.p_stride, m.g_transposed, m.n_stride, m.product,
                                             m.n_stride, s.tokens, state_columns, s.head_dim, nullptr,
                                             nullptr, none);
      for (int64_t t = 0; t < s.tokens; ++t) {
        const float* row = m.product + t * m.n_stride;
        const VF r = hn::Set(df, m.r[t]);
        float* db = m.db + t * m.n_stride;
        map(
            db, s.states, [r](VF sum, VF v) { return hn::MulAdd(r, v, sum); }, static_cast<const float*>(db),
            row);
        m.out_of[t] = m.r[t] * dot(m.b + t * m.n_stride, row, s.states);
      }
      if (before != nullptr) through = over_all * dot(after, before + head * state_size, state_size);
      tile_product<Update::overwrite, false>(m.b, m.n_stride, m.g, m.p_stride, m.dx, m.p_stride, s.tokens,
                                             columns, s.states, nullptr, nullptr, none);
      tile_product<Update::rescale, true>(m.scores, m.l_stride, m.dy, m.p_stride, m.dx, m.p_stride, s.tokens,
                                          columns, s.tokens, nullptr, triangle.rows, none, m.r);
    } else {
      tile_product<Update::overwrite, true>(m.scores, m.l_stride, m.dy, m.p_stride, m.dx, m.p_stride,
                                            s.tokens, columns, s.tokens, nullptr, triangle.rows, none);
    }
    if (before != nullptr) {
      transpose_tile(before + head * state_size, s.head_dim, s.states, s.head_dim, m.h_transposed,
                     m.n_stride);
      tile_product<Update::overwrite, false>(m.dy, m.p_stride, m.h_transposed, m.n_stride, m.product,
                                             m.n_stride, s.tokens, state_columns, s.head_dim, nullptr,
                                             nullptr, none);
      for (int64_t t = 0; t < s.tokens; ++t) {
        const float* row = m.product + t * m.n_stride;
        const VF w = hn::Set(df, m.w[t]);
        float* dc = m.dc + t * m.n_stride;
        map(
            dc, s.states, [w](VF sum, VF v) { return hn::MulAdd(w, v, sum); }, static_cast<const float*>(dc),
            row);
        m.into[t] = m.w[t] * dot(m.c + t * m.n_stride, row, s.states);
      }
    }

    ssd_exponents(m, s.tokens, through);
    double da = 0, dskip = 0;
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int64_t at = t * s.x_stride + head * s.head_dim;
      const float *dx = m.dx + t * m.p_stride, *dy = m.dy + t * m.p_stride;
      const T* x = s.x + at;
      const float along = reduce(
          s.head_dim, [](VF u, VF v) { return hn::Mul(u, v); }, x, dx);  // of dt, through X'
      g.ddt[t * s.dt_stride + head] = a * m.into[t] + along;
      da += static_cast<double>(m.dt[t]) * m.into[t];
      if (g.dskip != nullptr)
        dskip += reduce(
            s.head_dim, [](VF u, VF v) { return hn::Mul(u, v); }, x, dy);
      const VF dt = hn::Set(df, m.dt[t]), skips = hn::Set(df, skip);
      map(
          g.dx + at, s.head_dim, [dt, skips](VF d, VF up) { return hn::MulAdd(dt, d, hn::Mul(skips, up)); },
          dx, dy);
    }
    g.da[head] = static_cast<float>(da);
    if (g.dskip != nullptr) g.dskip[head] = static_cast<float>(dskip);
  }

  tile_product<Update::accumulate, false>(m.dcb, m.l_stride, m.b, m.n_stride, m.dc, m.n_stride, s.tokens,
                                          state_columns, s.tokens, nullptr, triangle.columns, none);
  tile_product<Update::accumulate, true>(m.dcb, m.l_stride, m.c, m.n_stride, m.db, m.n_stride, s.tokens,
                                         state_columns, s.tokens, nullptr, triangle.rows, none);
  for (int64_t t = 0; t < s.tokens; ++t) {
    map(
        g.db + t * s.bc_stride, s.states, [](VF v) { return v; }, m.db + t * m.n_stride);
    map(
        g.dc + t * s.bc_stride, s.states, [](VF v) { return v; }, m.dc + t * m.n_stride);
  }
}
