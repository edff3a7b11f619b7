// RMSNorm and LayerNorm, forward and backward.

template <typename T>
void rms_norm(const T* x, const float* w, T* y, float* rstd, int64_t rows, int64_t cols, float eps) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * cols;
    const float square = reduce(cols, [](VF v) { return hn::Mul(v, v); }, row);
    const float scale_value = 1.0f / std::sqrt(square / static_cast<float>(cols) + eps);
    if (rstd != nullptr) rstd[r] = scale_value;
    const VF s = hn::Set(df, scale_value);
    if (w != nullptr) {
      map(y + r * cols, cols, [s](VF v, VF weight) { return hn::Mul(hn::Mul(v, s), weight); }, row, w);
    } else {
      map(y + r * cols, cols, [s](VF v) { return hn::Mul(v, s); }, row);
    }
  }
}

// With h = x * rstd and g = dy * w: dx = rstd * (g - h * mean(g * h)), dw += dy * h.
template <typename T>
void rms_norm_backward(const T* dy, const T* x, const float* w, const float* rstd, T* dx, float* dw, int64_t rows,
                       int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * cols;
    const T* grad = dy + r * cols;
    const float s_value = rstd[r];
    const VF s = hn::Set(df, s_value);
    const float dot = w != nullptr
                          ? reduce(cols, [](VF d, VF v, VF weight) { return hn::Mul(hn::Mul(d, v), weight); }, grad, row, w)
                          : reduce(cols, [](VF d, VF v) { return hn::Mul(d, v); }, grad, row);
    if (dw != nullptr) {
      map(dw, cols, [s](VF sum, VF d, VF v) { return hn::MulAdd(hn::Mul(d, v), s, sum); }, static_cast<const float*>(dw), grad,
          row);
    }
    const VF k = hn::Set(df, dot * s_value * s_value * s_value / static_cast<float>(cols));
    if (w != nullptr) {
      map(dx + r * cols, cols,
          [s, k](VF d, VF v, VF weight) { return hn::NegMulAdd(v, k, hn::Mul(hn::Mul(d, weight), s)); }, grad, row, w);
    } else {
      map(dx + r * cols, cols, [s, k](VF d, VF v) { return hn::NegMulAdd(v, k, hn::Mul(d, s)); }, grad, row);
    }
  }
}

template <typename T>
void layer_norm(const T* x, const float* w, const float* b, T* y, float* mean, float* rstd, int64_t rows, int64_t cols,
                float eps) {
  const VF one = hn::Set(df, 1.0f);
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * cols;
    const float m_value = reduce(cols, [](VF v) { return v; }, row) / static_cast<float>(cols);
    const VF m = hn::Set(df, m_value);
    // Two passes: the variance about the mean, without cancellation. Zero lanes of the tail would add mean^2 each, so
    // the tail is taken element by element.
    const int64_t whole = cols / kLanes * kLanes;
    float square = reduce(whole, [m](VF v) { return hn::Mul(hn::Sub(v, m), hn::Sub(v, m)); }, row);
    for (int64_t c = whole; c < cols; ++c) {
      const float d = to_float(row[c]) - m_value;
      square += d * d;
    }
    const float s_value = 1.0f / std::sqrt(square / static_cast<float>(cols) + eps);
    if (mean != nullptr) mean[r] = m_value;
    if (rstd != nullptr) rstd[r] = s_value;
    const VF s = hn::Set(df, s_value);
    T* out = y + r * cols;
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t n = cols - c;
      const bool full = n >= kLanes;
      VF v = hn::Mul(hn::Sub(full ? load(row + c) : load_n(row + c, n), m), s);
      v = hn::MulAdd(v, w == nullptr ? one : full ? load(w + c) : load_n(w + c, n),
                     b == nullptr ? hn::Zero(df) : full ? load(b + c) : load_n(b + c, n));
      if (full) {
        store(v, out + c);
      } else {
        store_n(v, out + c, n);
      }
    }
  }
}

// With h = (x - mean) * rstd and g = dy * w: dx = rstd * (g - mean(g) - h * mean(g * h)), dw += dy * h, db += dy.
template <typename T>
void layer_norm_backward(const T* dy, const T* x, const float* w, const float* mean, const float* rstd, T* dx, float* dw,
                         float* db, int64_t rows, int64_t cols) {
  const VF one = hn::Set(df, 1.0f);
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * cols;
    const T* grad = dy + r * cols;
    const VF m = hn::Set(df, mean[r]), s = hn::Set(df, rstd[r]);
    const auto normalized = [m, s](VF v) { return hn::Mul(hn::Sub(v, m), s); };
    float sum_g, sum_gh;
    if (w != nullptr) {
      sum_g = reduce(cols, [](VF d, VF weight) { return hn::Mul(d, weight); }, grad, w);
      sum_gh = reduce(cols, [&](VF d, VF v, VF weight) { return hn::Mul(hn::Mul(d, weight), normalized(v)); }, grad, row, w);
    } else {
      sum_g = reduce(cols, [](VF d) { return d; }, grad);
      sum_gh = reduce(cols, [&](VF d, VF v) { return hn::Mul(d, normalized(v)); }, grad, row);
    }
    if (dw != nullptr) {
      map(dw, cols, [&](VF sum, VF d, VF v) { return hn::MulAdd(d, normalized(v), sum); }, static_cast<const float*>(dw), grad,
          row);
    }
    if (db != nullptr) map(db, cols, [](VF sum, VF d) { return hn::Add(sum, d); }, static_cast<const float*>(db), grad);
    const VF mean_g = hn::Set(df, sum_g / static_cast<float>(cols));
    const VF mean_gh = hn::Set(df, sum_gh / static_cast<float>(cols));
    const auto input_gradient = [&](VF d, VF v, VF weight) {
      return hn::Mul(s, hn::NegMulAdd(normalized(v), mean_gh, hn::Sub(hn::Mul(d, weight), mean_g)));
    };
    if (w != nullptr) {
      map(dx + r * cols, cols, input_gradient, grad, row, w);
    } else {
      map(dx + r * cols, cols, [&](VF d, VF v) { return input_gradient(d, v, one); }, grad, row);
    }
  }
}
