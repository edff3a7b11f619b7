// Attention of few rows, as decoding has them: packing a tile of keys would cost more than the products with
// it, so keys and values are read where they lie, once for all rows that share them.

// Up to so many (query, head) pairs.
constexpr int64_t kFewRows = 16;

// scores[r * stride + j] = q[r] . keys[j] for n_keys keys; q is packed, keys lie `k_stride` apart and are
// `left` in number from the first on.
template <typename T>
void few_scores(const float* q, int64_t q_stride, int64_t rows, const T* keys, int64_t k_stride,
                int64_t n_keys, int64_t left, int64_t dim, float* scores, int64_t stride) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t j = 0; j < n_keys; ++j) {
    const T* key = keys + j * k_stride;
    if (j + kPrefetchRows < left) prefetch_row(key + kPrefetchRows * k_stride, dim);
    for (int64_t r = 0; r < rows; ++r) {
      const float* query = q + r * q_stride;
      VF a = hn::Zero(df), b = a;
      int64_t i = 0;
      for (; i + 2 * kLanes <= whole; i += 2 * kLanes) {
        a = hn::MulAdd(load(query + i), load(key + i), a);
        b = hn::MulAdd(load(query + i + kLanes), load(key + i + kLanes), b);
      }
      for (; i < whole; i += kLanes) a = hn::MulAdd(load(query + i), load(key + i), a);
      if (i < dim) b = hn::MulAdd(load(query + i), load_n(key + i, dim - i), b);
      scores[r * stride + j] = hn::GetLane(hn::SumOfLanes(df, hn::Add(a, b)));
    }
  }
}

// Columns [0, vectors * kLanes) of out = rescale * out + sum over keys [begin, end) of p[j] * values[j].
template <int vectors, typename T>
HWY_INLINE void add_weighted(const float* p, int64_t begin, int64_t end, const T* values, int64_t v_stride,
                             float rescale, float* out) {
  VF sums[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = hn::Mul(hn::Set(df, rescale), load(out + v * kLanes));
  for (int64_t j = begin; j < end; ++j) {
    const VF weight = hn::Set(df, p[j]);
    for (int v = 0; v < vectors; ++v)
      sums[v] = hn::MulAdd(weight, load(values + j * v_stride + v * kLanes), sums[v]);
  }
  for (int v = 0; v < vectors; ++v) store(sums[v], out + v * kLanes);
}

// out = rescale * out + sum over keys [begin, end) of p[j] * values[j], of one row.
template <typename T>
void few_values(const float* p, int64_t begin, int64_t end, const T* values, int64_t v_stride, int64_t dim,
                float rescale, float* out) {
  int64_t i = 0;
  for (; i + 8 * kLanes <= dim; i += 8 * kLanes)
    add_weighted<8>(p, begin, end, values + i, v_stride, rescale, out + i);
  for (; i + 4 * kLanes <= dim; i += 4 * kLanes)
    add_weighted<4>(p, begin, end, values + i, v_stride, rescale, out + i);
  for (; i + kLanes <= dim; i += kLanes)
    add_weighted<1>(p, begin, end, values + i, v_stride, rescale, out + i);
  if (i == dim) return;
  VF sum = hn::Mul(hn::Set(df, rescale), load(out + i));
  for (int64_t j = begin; j < end; ++j)
    sum = hn::MulAdd(hn::Set(df, p[j]), load_n(values + j * v_stride + i, dim - i), sum);
  store(sum, out + i);
}
