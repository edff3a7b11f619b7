// Softmax and log-softmax over rows.

template <typename T>
HWY_INLINE float log_sum_exp(const T* x, int64_t cols) {
  const float largest = reduce_max(x, cols);
  float sum = 0;
  const VF shift = hn::Set(df, largest);
  const int64_t whole = cols / kLanes * kLanes;
  sum = reduce(whole, [shift](VF v) { return exp_vector(hn::Sub(v, shift)); }, x);
  for (int64_t c = whole; c < cols; ++c) sum += std::exp(to_float(x[c]) - largest);
  return largest + std::log(sum);
}

template <typename T>
void softmax(const T* x, T* y, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const VF lse = hn::Set(df, log_sum_exp(x + r * cols, cols));
    const VF zero = hn::Sub(lse, lse);  // NaN for a row that has no softmax: the exponential of NaN is 0
    map(y + r * cols, cols, [lse, zero](VF v) { return hn::Add(exp_vector(hn::Sub(v, lse)), zero); }, x + r * cols);
  }
}

template <typename T>
void softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* p = y + r * cols;
    const T* d = dy + r * cols;
    const VF dot = hn::Set(df, reduce(cols, [](VF a, VF b) { return hn::Mul(a, b); }, p, d));
    map(dx + r * cols, cols, [dot](VF a, VF b) { return hn::Mul(a, hn::Sub(b, dot)); }, p, d);
  }
}

template <typename T>
void log_softmax(const T* x, T* y, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const VF lse = hn::Set(df, log_sum_exp(x + r * cols, cols));
    map(y + r * cols, cols, [lse](VF v) { return hn::Sub(v, lse); }, x + r * cols);
  }
}

template <typename T>
void log_softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const VF sum = hn::Set(df, reduce(cols, [](VF d) { return d; }, dy + r * cols));
    map(dx + r * cols, cols, [sum](VF v, VF d) { return hn::NegMulAdd(exp_vector(v), sum, d); }, y + r * cols,
        dy + r * cols);
  }
}
