// Elementwise arithmetic, bias, dropout, matrix x vector, and the bursts that measure the machine.

template <typename T>
void add(const T* a, const T* b, T* y, int64_t n) {
  map(y, n, [](VF x, VF z) { return hn::Add(x, z); }, a, b);
}

template <typename T>
void multiply(const T* a, const T* b, T* y, int64_t n) {
  map(y, n, [](VF x, VF z) { return hn::Mul(x, z); }, a, b);
}

template <typename T>
void scale(const T* x, float s, T* y, int64_t n) {
  const VF factor = hn::Set(df, s);
  map(y, n, [factor](VF v) { return hn::Mul(v, factor); }, x);
}

template <typename T>
void sum_rows(const T* x, float* out, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    map(out, cols, [](VF sum, VF v) { return hn::Add(sum, v); }, out, x + r * cols);
  }
}

template <typename T>
void add_bias(const T* x, const float* bias, T* y, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    map(y + r * cols, cols, [](VF v, VF b) { return hn::Add(v, b); }, x + r * cols, bias);
  }
}

void axpy(float s, const float* x, float* y, int64_t n) {
  const VF factor = hn::Set(df, s);
  map(y, n, [factor](VF v, VF sum) { return hn::MulAdd(factor, v, sum); }, x, y);
}

template <typename T>
void dropout(const T* x, T* y, int64_t n, float p, uint64_t seed, uint64_t stream, uint64_t first) {
  const float keep_scale = 1.0f / (1.0f - p);
  const uint32_t threshold = static_cast<uint32_t>(static_cast<double>(p) * 4294967296.0);
  for (int64_t i = 0; i < n; i += 4) {
    const auto words = philox4x32(seed, stream, (first + static_cast<uint64_t>(i)) / 4);
    const int64_t count = n - i < 4 ? n - i : 4;
    for (int64_t j = 0; j < count; ++j) {
      const float kept = words[static_cast<size_t>(j)] >= threshold ? to_float(x[i + j]) * keep_scale : 0.0f;
      y[i + j] = from_float<T>(kept);
    }
  }
}

// Bound by reading w, one row after the other: a single stream of whole lines, which the hardware fetches ahead by itself. Four rows
// at a time, or fetching by instruction, read a third less per second.
template <typename T>
void matvec(const T* w, const float* x, float* y, int64_t rows, int64_t cols) {
  constexpr int64_t step = 4 * kLanes;
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = w + r * cols;
    VF sum[4] = {hn::Zero(df), hn::Zero(df), hn::Zero(df), hn::Zero(df)};
    int64_t c = 0;
    for (; c + step <= cols; c += step) {
      for (int64_t j = 0; j < 4; ++j) sum[j] = hn::MulAdd(load(row + c + j * kLanes), load(x + c + j * kLanes), sum[j]);
    }
    for (; c + kLanes <= cols; c += kLanes) sum[0] = hn::MulAdd(load(row + c), load(x + c), sum[0]);
    if (c < cols) sum[1] = hn::MulAdd(load_n(row + c, cols - c), load_n(x + c, cols - c), sum[1]);
    y[r] = hn::GetLane(hn::SumOfLanes(df, hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]))));
  }
}

double fma_burst(int64_t iterations, float* sink) {
  constexpr int chains = 12;  // latency 4-5 cycles x 2 ports, with room
  VF sum[chains];
  for (int j = 0; j < chains; ++j) sum[j] = hn::Set(df, static_cast<float>(j));
  const VF a = hn::Set(df, 0.999f), b = hn::Set(df, 0.001f);
  for (int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < chains; ++j) sum[j] = hn::MulAdd(sum[j], a, b);
  }
  VF total = sum[0];
  for (int j = 1; j < chains; ++j) total = hn::Add(total, sum[j]);
  *sink = hn::GetLane(hn::SumOfLanes(df, total));
  return 2.0 * static_cast<double>(iterations) * chains * static_cast<double>(kLanes);
}

double int8_burst(int64_t iterations, int32_t* sink) {
  // The widest int8 path every set has: 16-bit multiply-add of pairs on widened bytes. Counted per int8 product and add.
  constexpr int chains = 8;
  const hn::ScalableTag<int16_t> d16;
  const hn::ScalableTag<int32_t> d32;
  using V32 = hn::Vec<decltype(d32)>;
  V32 even[chains], odd[chains];
  for (int j = 0; j < chains; ++j) even[j] = odd[j] = hn::Zero(d32);
  auto a = hn::Set(d16, 3);
  const auto b = hn::Set(d16, -2);
  for (int64_t i = 0; i < iterations; ++i) {
    for (int j = 0; j < chains; ++j) {
      V32 unused = hn::Zero(d32);
      even[j] = hn::Add(even[j], hn::ReorderWidenMulAccumulate(d32, a, b, hn::Zero(d32), unused));
      odd[j] = hn::Add(odd[j], unused);
    }
    a = hn::Xor(a, hn::Set(d16, 1));
  }
  V32 total = hn::Zero(d32);
  for (int j = 0; j < chains; ++j) total = hn::Add(total, hn::Add(even[j], odd[j]));
  *sink = hn::GetLane(hn::SumOfLanes(d32, total));
  return 2.0 * static_cast<double>(iterations) * chains * static_cast<double>(hn::Lanes(d16));
}
