// Rotary position embedding of packed heads.

template <typename T>
void rope(const T* x, T* y, const float* cos, const float* sin, int64_t rows, int64_t heads, int64_t head_dim,
          int64_t rotary_dim, int64_t x_stride, int64_t y_stride, bool interleaved, float direction) {
  const int64_t half = rotary_dim / 2;
  const VF sign = hn::Set(df, direction);
  for (int64_t r = 0; r < rows; ++r) {
    const float* c = cos + r * half;
    const float* s = sin + r * half;
    for (int64_t h = 0; h < heads; ++h) {
      const T* in = x + r * x_stride + h * head_dim;
      T* out = y + r * y_stride + h * head_dim;
      if (interleaved) {
        for (int64_t i = 0; i < half; ++i) {
          const float a = to_float(in[2 * i]), b = to_float(in[2 * i + 1]);
          const float sine = s[i] * direction;
          out[2 * i] = from_float<T>(a * c[i] - b * sine);
          out[2 * i + 1] = from_float<T>(a * sine + b * c[i]);
        }
      } else {
        int64_t i = 0;
        for (; i + kLanes <= half; i += kLanes) {
          const VF a = load(in + i), b = load(in + half + i);
          const VF cosine = load(c + i), sine = hn::Mul(load(s + i), sign);
          store(hn::NegMulAdd(b, sine, hn::Mul(a, cosine)), out + i);
          store(hn::MulAdd(a, sine, hn::Mul(b, cosine)), out + half + i);
        }
        for (; i < half; ++i) {
          const float a = to_float(in[i]), b = to_float(in[half + i]);
          const float sine = s[i] * direction;
          out[i] = from_float<T>(a * c[i] - b * sine);
          out[half + i] = from_float<T>(a * sine + b * c[i]);
        }
      }
      if (in != out && rotary_dim < head_dim) {
        std::memcpy(out + rotary_dim, in + rotary_dim, static_cast<size_t>(head_dim - rotary_dim) * sizeof(T));
      }
    }
  }
}
