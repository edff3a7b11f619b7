// Causal depthwise convolution of few taps, forward and backward. Rows are walked in order and channels lie
// in lanes: the last `taps` rows are in cache, and memory is read once.

// Input row t - taps + 1 + k at channel c, or zeros where there is none.
template <typename T>
HWY_INLINE VF conv_input(const CausalConvSequence<T>& s, int64_t row, int64_t c, int64_t lanes) {
  if (row >= 0) return load_some(s.x + row * s.channels + c, lanes);
  if (s.past != nullptr) return load_some(s.past + (s.taps - 1 + row) * s.channels + c, lanes);
  return hn::Zero(df);
}

// Output t before the activation.
template <typename T>
HWY_INLINE VF conv_output(const CausalConvSequence<T>& s, int64_t t, int64_t c, int64_t lanes) {
  VF sum = s.bias != nullptr ? load_some(s.bias + c, lanes) : hn::Zero(df);
  for (int64_t k = 0; k < s.taps; ++k) {
    sum = hn::MulAdd(conv_input(s, t - s.taps + 1 + k, c, lanes), load_some(s.w + k * s.channels + c, lanes),
                     sum);
  }
  return sum;
}

template <typename T>
void causal_conv(const CausalConvSequence<T>& s, T* y, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t c = 0; c < s.channels; c += kLanes) {
      const int64_t lanes = s.channels - c;
      const VF sum = conv_output(s, t, c, lanes);
      store_some(s.silu ? Silu::at(sum).value : sum, y + t * s.channels + c, lanes);
    }
  }
}

// Row t of the ring (at t % taps) is the gradient of output t before its activation; dx[t] needs rows t to t
// + taps - 1.
template <typename T>
void causal_conv_backward(const CausalConvSequence<T>& s, const T* dy, T* dx, float* dw, float* dbias,
                          int64_t begin, int64_t end, float* ring) {
  const auto ring_row = [&](int64_t t) { return ring + t % s.taps * s.channels; };
  const auto make_row = [&](int64_t t) {
    if (t >= s.tokens) return;
    float* row = ring_row(t);
    for (int64_t c = 0; c < s.channels; c += kLanes) {
      const int64_t lanes = s.channels - c;
      VF d = load_some(dy + t * s.channels + c, lanes);
      if (s.silu) d = hn::Mul(d, Silu::at(conv_output(s, t, c, lanes)).slope);
      store_some(d, row + c, lanes);
    }
  };
  for (int64_t t = begin; t < begin + s.taps - 1; ++t) make_row(t);
  for (int64_t t = begin; t < end; ++t) {
    make_row(t + s.taps - 1);
    const int64_t later = s.tokens - t < s.taps ? s.tokens - t : s.taps;
    for (int64_t c = 0; c < s.channels; c += kLanes) {
      const int64_t lanes = s.channels - c;
      VF sum = hn::Zero(df);
      for (int64_t j = 0; j < later; ++j) {
        sum = hn::MulAdd(load_some(ring_row(t + j) + c, lanes),
                         load_some(s.w + (s.taps - 1 - j) * s.channels + c, lanes), sum);
      }
      store_some(sum, dx + t * s.channels + c, lanes);
      const VF d = load_some(ring_row(t) + c, lanes);
      for (int64_t k = 0; k < s.taps; ++k) {
        float* to = dw + k * s.channels + c;
        store_some(hn::MulAdd(d, conv_input(s, t - s.taps + 1 + k, c, lanes), load_some(to, lanes)), to,
                   lanes);
      }
      if (dbias != nullptr) store_some(hn::Add(load_some(dbias + c, lanes), d), dbias + c, lanes);
    }
  }
}
