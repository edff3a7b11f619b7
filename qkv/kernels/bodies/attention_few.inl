// Attention of few rows, as decoding has them: packing a tile of keys would cost more than the products with
// it, so keys and values are read where they lie, once for all rows that share them.

// Up to so many (query, head) pairs.
constexpr int64_t kFewRows = 16;
// Keys whose products are summed across lanes together. Room for as many scores is behind the last.
constexpr int64_t kFewKeys = 4;
// Rows that meet a key while it is in registers.
constexpr int64_t kFewGroup = 4;

// to[k] = sum of the lanes of v[k].
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void store_lane_sums(const VF (&v)[kFewKeys], float* to) {
  for (int64_t k = 0; k < kFewKeys; ++k) to[k] = hn::GetLane(v[k]);
}
#else
HWY_INLINE void store_lane_sums(const VF (&v)[kFewKeys], float* to) {
  const auto fold = [](VF a, VF b) {
    return hn::Add(hn::InterleaveLower(df, a, b), hn::InterleaveUpper(df, a, b));
  };
  const hn::RepartitionToWide<DF> pairs;
  const auto ab = hn::BitCast(pairs, fold(v[0], v[1])), cd = hn::BitCast(pairs, fold(v[2], v[3]));
  // Four sums in every block of 128 bits.
  const VF blocks = hn::Add(hn::BitCast(df, hn::InterleaveLower(pairs, ab, cd)),
                            hn::BitCast(df, hn::InterleaveUpper(pairs, ab, cd)));
  if constexpr (kLanes == 4) {
    hn::StoreU(blocks, df, to);
  } else {
    const hn::Half<DF> half;
    const auto eight = hn::Add(hn::LowerHalf(half, blocks), hn::UpperHalf(half, blocks));
    if constexpr (kLanes == 8) {
      hn::StoreU(eight, half, to);
    } else {
      const hn::Half<hn::Half<DF> > quarter;
      hn::StoreU(hn::Add(hn::LowerHalf(quarter, eight), hn::UpperHalf(quarter, eight)), quarter, to);
    }
  }
}
#endif

// Rows that are read one after the other, and what is read after them: fetched so many bytes ahead, which
// hardware does not do across pages of memory and from one piece to the next.
constexpr int64_t kAheadBytes = 4096;

struct RowsAhead {
  const std::byte *rows = nullptr, *next = nullptr;
  int64_t count = 0, row = 0;  // of rows, 0: nothing is fetched; bytes
  int64_t next_count = 0, next_row = 0;
  int64_t distance = 0;  // rows: at most the whole piece

  HWY_INLINE void fetch(int64_t j) const {
    const int64_t at = j + distance;
    if (at < count) {
      prefetch_row(rows + at * row, row);
    } else if (at - count < next_count) {
      prefetch_row(next + (at - count) * next_row, next_row);
    }
  }
};

// Calls body.operator()<n>(r) for rows [r, r + n), n up to kFewGroup, until all are done.
template <typename Body>
HWY_INLINE void in_row_groups(int64_t rows, Body&& body) {
  int64_t r = 0;
  for (; r + kFewGroup <= rows; r += kFewGroup) body.template operator()<kFewGroup>(r);
  for (; r + 2 <= rows; r += 2) body.template operator()<2>(r);
  if (r < rows) body.template operator()<1>(r);
}

template <int64_t kRows, typename T>
HWY_INLINE void few_scores_of(const float* q, int64_t q_stride, const T* (&key)[kFewKeys], int64_t dim,
                              float* scores, int64_t stride) {
  const int64_t whole = dim / kLanes * kLanes;
  VF sums[kRows][kFewKeys];
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < kFewKeys; ++k) sums[r][k] = hn::Zero(df);
  }
  const auto add = [&](int64_t i, auto&& read) {
    VF x[kFewKeys];
#pragma GCC unroll 4
    for (int64_t k = 0; k < kFewKeys; ++k) x[k] = read(key[k] + i);
#pragma GCC unroll 4
    for (int64_t r = 0; r < kRows; ++r) {
      const VF query = load(q + r * q_stride + i);
#pragma GCC unroll 4
      for (int64_t k = 0; k < kFewKeys; ++k) sums[r][k] = hn::MulAdd(query, x[k], sums[r][k]);
    }
  };
  for (int64_t i = 0; i < whole; i += kLanes) add(i, [](const T* p) { return load(p); });
  if (whole < dim) add(whole, [=](const T* p) { return load_n(p, dim - whole); });
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRows; ++r) store_lane_sums(sums[r], scores + r * stride);
}

// scores[r * stride + j] = q[r] . keys[j] for n_keys keys, and something in the kFewKeys - 1 places behind.
// q is packed, keys lie `k_stride` apart.
template <typename T>
void few_scores(const float* q, int64_t q_stride, int64_t rows, const T* keys, int64_t k_stride,
                int64_t n_keys, const RowsAhead& ahead, int64_t dim, float* scores, int64_t stride) {
  for (int64_t j = 0; j < n_keys; j += kFewKeys) {
    const T* key[kFewKeys];
    for (int64_t k = 0; k < kFewKeys; ++k) {
      key[k] = keys + (j + k < n_keys ? j + k : n_keys - 1) * k_stride;
      ahead.fetch(j + k);
    }
    in_row_groups(rows, [&]<int64_t kRows>(int64_t r) {
      few_scores_of<kRows>(q + r * q_stride, q_stride, key, dim, scores + r * stride + j, stride);
    });
  }
}

// Columns [0, vectors * kLanes) of out = rescale * out + sum over keys [begin, end) of p[j] * values[j].
template <int vectors, typename T>
HWY_INLINE void add_weighted(const float* p, int64_t begin, int64_t end, const T* values, int64_t v_stride,
                             float rescale, float* out, const RowsAhead& ahead) {
  VF sums[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = hn::Mul(hn::Set(df, rescale), load(out + v * kLanes));
  for (int64_t j = begin; j < end; ++j) {
    const VF weight = hn::Set(df, p[j]);
    ahead.fetch(j);
    for (int v = 0; v < vectors; ++v)
      sums[v] = hn::MulAdd(weight, load(values + j * v_stride + v * kLanes), sums[v]);
  }
  for (int v = 0; v < vectors; ++v) store(sums[v], out + v * kLanes);
}

// out = rescale * out + sum over keys [begin, end) of p[j] * values[j], of one row.
template <typename T>
void few_values(const float* p, int64_t begin, int64_t end, const T* values, int64_t v_stride, int64_t dim,
                float rescale, float* out, const RowsAhead& ahead) {
  const RowsAhead none;
  int64_t i = 0;
  for (; i + 8 * kLanes <= dim; i += 8 * kLanes)
    add_weighted<8>(p, begin, end, values + i, v_stride, rescale, out + i, i == 0 ? ahead : none);
  for (; i + 4 * kLanes <= dim; i += 4 * kLanes)
    add_weighted<4>(p, begin, end, values + i, v_stride, rescale, out + i, i == 0 ? ahead : none);
  for (; i + kLanes <= dim; i += kLanes)
    add_weighted<1>(p, begin, end, values + i, v_stride, rescale, out + i, i == 0 ? ahead : none);
  if (i == dim) return;
  VF sum = hn::Mul(hn::Set(df, rescale), load(out + i));
  for (int64_t j = begin; j < end; ++j)
    sum = hn::MulAdd(hn::Set(df, p[j]), load_n(values + j * v_stride + i, dim - i), sum);
  store(sum, out + i);
}
