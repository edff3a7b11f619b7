// Selective scan (Gu & Dao, arXiv 2312.00752, algorithm 2), kLanes channels at a time. A chunk of tokens is
// walked once for every kScanBlock states, whose recurrences stay in registers; what a token needs of its
// channels (step, input, output) waits in L1.

constexpr int kScanBlock = 4;

// e^x for rates premultiplied by log2(e). Rates are negative in every model; a positive one saturates instead
// of wrapping.
HWY_INLINE VF scan_decay(VF delta, VF rate) {
  const VF x = hn::Mul(delta, rate), most = hn::Set(df, 127.5f);
  if constexpr (kLanes == 1) return exp2_vector(hn::IfThenElse(hn::Gt(x, most), most, x));
  return exp2_vector(hn::Min(most, x));  // x if x is NaN
}

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): nothing overflows.
HWY_INLINE VF softplus_vector(VF x) {
  const VF positive = hn::IfThenElse(hn::Lt(x, hn::Zero(df)), hn::Zero(df), x);
  return hn::Add(positive, hn::Log1p(df, exp_vector(hn::Neg(hn::Abs(x)))));
}

// Per token of a chunk, kLanes floats each unless said otherwise.
struct ScanScratch {
  float *b, *c;              // `states` floats each
  float *delta, *input, *y;  // the step; step times u; the output before the gate
  // Of the backward pass:
  float *dy, *ddelta, *dinput;
  float *decay, *h;  // a block's, kScanBlock vectors per token; h has the state before the chunk in front
  float *db, *dc;    // `states` vectors: sums of each lane's channels
  float* carry;      // (states, channels rounded up): gradient of the state at the end of the chunk
  size_t bytes;

  ScanScratch(int64_t channels, int64_t states, void* memory) {
    Scratch scratch(memory);
    b = scratch.take(kScanChunk * states);
    c = scratch.take(kScanChunk * states);
    for (float** piece : {&delta, &input, &y, &dy, &ddelta, &dinput})
      *piece = scratch.take(kScanChunk * kLanes);
    decay = scratch.take(kScanChunk * kScanBlock * kLanes);
    h = scratch.take((kScanChunk + 1) * kScanBlock * kLanes);
    db = scratch.take(kScanChunk * states * kLanes);
    dc = scratch.take(kScanChunk * states * kLanes);
    carry = scratch.take(states * round_up(channels, kLanes));
    bytes = scratch.bytes();
  }
};

inline size_t scan_scratch_bytes(int64_t channels, int64_t states) {
  return ScanScratch(channels, states, nullptr).bytes;
}

// kLanes channels from `channel` on, in tokens [first, first + n).
template <typename T>
struct ScanTile {
  const ScanSequence<T>& s;
  const ScanScratch& m;
  int64_t first, n, channel;
  int64_t lanes() const { return s.channels - channel; }
  int64_t at(int64_t t) const { return (first + t) * s.stride + channel; }
  float* boundary() const { return s.boundaries + first / kScanChunk * s.states * s.stride + channel; }
  VF step(int64_t t) const {  // before softplus
    const VF d = load_some(s.delta + at(t), lanes());
    return s.delta_bias != nullptr ? hn::Add(d, load_some(s.delta_bias + channel, lanes())) : d;
  }

  void prepare() const {
    const VF skip = s.skip != nullptr ? load_some(s.skip + channel, lanes()) : hn::Zero(df);
    for (int64_t t = 0; t < n; ++t) {
      const VF u = load_some(s.u + at(t), lanes());
      VF d = step(t);
      if (s.softplus) d = softplus_vector(d);
      store(d, m.delta + t * kLanes);
      store(hn::Mul(d, u), m.input + t * kLanes);
      store(hn::Mul(skip, u), m.y + t * kLanes);
    }
  }
};

template <typename T>
void scan_widen_states(const ScanSequence<T>& s, const ScanScratch& m, int64_t first, int64_t n) {
  const auto widened = [](VF v) { return v; };
  for (int64_t t = 0; t < n; ++t) {
    map(m.b + t * s.states, s.states, widened, s.b + (first + t) * s.bc_stride);
    map(m.c + t * s.states, s.states, widened, s.c + (first + t) * s.bc_stride);
  }
}

// States [i, i + kStates) of a tile, h from before its first to after its last token. kKeep: every decay and
// state is kept.
template <int kStates, bool kKeep>
HWY_INLINE void scan_states(const ScanScratch& m, int64_t n, int64_t states, int64_t i, const VF* rate,
                            VF* h) {
  const float *b = m.b + i, *c = m.c + i;
  for (int64_t t = 0; t < n; ++t) {
    const VF delta = load(m.delta + t * kLanes), input = load(m.input + t * kLanes);
    VF y = load(m.y + t * kLanes);
#pragma GCC unroll 4
    for (int w = 0; w < kStates; ++w) {
      const VF decay = scan_decay(delta, rate[w]);
      h[w] = hn::MulAdd(decay, h[w], hn::Mul(input, hn::Set(df, b[w])));
      y = hn::MulAdd(h[w], hn::Set(df, c[w]), y);
      if constexpr (kKeep) {
        store(decay, m.decay + (t * kStates + w) * kLanes);
        store(h[w], m.h + ((t + 1) * kStates + w) * kLanes);
      }
    }
    store(y, m.y + t * kLanes);
    b += states;
    c += states;
  }
}

template <int kStates, typename T>
HWY_INLINE void scan_block(const ScanTile<T>& tile, int64_t i) {
  const ScanSequence<T>& s = tile.s;
  const VF log2e = hn::Set(df, kLog2E);
  VF rate[kStates], h[kStates];
#pragma GCC unroll 4
  for (int w = 0; w < kStates; ++w) {
    const int64_t row = (i + w) * s.stride + tile.channel;
    rate[w] = hn::Mul(log2e, load_some(s.a + row, tile.lanes()));
    h[w] = load_some(s.state + row, tile.lanes());
    if (s.boundaries != nullptr) store_some(h[w], tile.boundary() + (i + w) * s.stride, tile.lanes());
  }
  scan_states<kStates, false>(tile.m, tile.n, s.states, i, rate, h);
#pragma GCC unroll 4
  for (int w = 0; w < kStates; ++w)
    store_some(h[w], s.state + (i + w) * s.stride + tile.channel, tile.lanes());
}

template <typename T>
void scan_forward(const ScanSequence<T>& s, void* memory) {
  const ScanScratch m(s.channels, s.states, memory);
  for (int64_t first = 0; first < s.tokens; first += kScanChunk) {
    const int64_t n = s.tokens - first < kScanChunk ? s.tokens - first : kScanChunk;
    scan_widen_states(s, m, first, n);
    for (int64_t channel = 0; channel < s.channels; channel += kLanes) {
      const ScanTile<T> tile{s, m, first, n, channel};
      tile.prepare();
      int64_t i = 0;
      for (; i + kScanBlock <= s.states; i += kScanBlock) scan_block<kScanBlock>(tile, i);
      for (; i < s.states; ++i) scan_block<1>(tile, i);
      for (int64_t t = 0; t < n; ++t) {
        VF y = load(m.y + t * kLanes);
        if (s.z != nullptr) y = hn::Mul(y, Silu::at(load_some(s.z + tile.at(t), tile.lanes())).value);
        store_some(y, s.out + tile.at(t), tile.lanes());
      }
    }
  }
}

// With g[t] the gradient of h[t], walking back: g[t] = dy[t] c[t] + decay[t + 1] g[t + 1]; dc = dy h, db = g
// d u, and of the exponent d a: g[t] decay[t] h[t - 1]. m.ddelta lacks a factor ln 2, as the rates have one
// of log2(e) too many.
template <int kStates, typename T>
HWY_INLINE void scan_block_backward(const ScanTile<T>& tile, float* da, int64_t i) {
  const ScanSequence<T>& s = tile.s;
  const ScanScratch& m = tile.m;
  const VF log2e = hn::Set(df, kLog2E);
  const int64_t carry_stride = round_up(s.channels, kLanes);
  VF rate[kStates], h[kStates], carry[kStates], drate[kStates];
#pragma GCC unroll 4
  for (int w = 0; w < kStates; ++w) {
    rate[w] = hn::Mul(log2e, load_some(s.a + (i + w) * s.stride + tile.channel, tile.lanes()));
    h[w] = load_some(tile.boundary() + (i + w) * s.stride, tile.lanes());
    store(h[w], m.h + w * kLanes);
    carry[w] = load(m.carry + (i + w) * carry_stride + tile.channel);
    drate[w] = hn::Zero(df);
  }
  scan_states<kStates, true>(m, tile.n, s.states, i, rate, h);
  for (int64_t t = tile.n - 1; t >= 0; --t) {
    const VF delta = load(m.delta + t * kLanes), input = load(m.input + t * kLanes),
             dy = load(m.dy + t * kLanes);
    VF ddelta = load(m.ddelta + t * kLanes), dinput = load(m.dinput + t * kLanes);
    const float *b = m.b + t * s.states + i, *c = m.c + t * s.states + i;
    float *db = m.db + (t * s.states + i) * kLanes, *dc = m.dc + (t * s.states + i) * kLanes;
    const float *before = m.h + t * kStates * kLanes, *decay = m.decay + t * kStates * kLanes;
#pragma GCC unroll 4
    for (int w = 0; w < kStates; ++w) {
      const VF g = hn::MulAdd(dy, hn::Set(df, c[w]), carry[w]);
      store(hn::MulAdd(dy, load(before + (kStates + w) * kLanes), load(dc + w * kLanes)), dc + w * kLanes);
      store(hn::MulAdd(g, input, load(db + w * kLanes)), db + w * kLanes);
      carry[w] = hn::Mul(g, load(decay + w * kLanes));
      const VF dexponent = hn::Mul(carry[w], load(before + w * kLanes));
      drate[w] = hn::MulAdd(delta, dexponent, drate[w]);
      ddelta = hn::MulAdd(rate[w], dexponent, ddelta);
      dinput = hn::MulAdd(g, hn::Set(df, b[w]), dinput);
    }
    store(ddelta, m.ddelta + t * kLanes);
    store(dinput, m.dinput + t * kLanes);
  }
#pragma GCC unroll 4
  for (int w = 0; w < kStates; ++w) {
    store(carry[w], m.carry + (i + w) * carry_stride + tile.channel);
    float* to = da + (i + w) * s.stride + tile.channel;
    store_some(hn::Add(load_some(to, tile.lanes()), drate[w]), to, tile.lanes());
  }
}

// The gradients of u, delta, z, skip and the bias from what the blocks summed up.
template <typename T>
void scan_finish_backward(const ScanTile<T>& tile, const ScanGradients<T>& g) {
  const ScanSequence<T>& s = tile.s;
  const ScanScratch& m = tile.m;
  const int64_t channel = tile.channel, lanes = tile.lanes();
  const VF ln2 = hn::Set(df, kLn2),
           skip = s.skip != nullptr ? load_some(s.skip + channel, lanes) : hn::Zero(df);
  VF dskip = hn::Zero(df), dbias = hn::Zero(df);
  for (int64_t t = 0; t < tile.n; ++t) {
    const VF u = load_some(s.u + tile.at(t), lanes), dy = load(m.dy + t * kLanes),
             dinput = load(m.dinput + t * kLanes);
    store_some(hn::MulAdd(dinput, load(m.delta + t * kLanes), hn::Mul(skip, dy)), g.du + tile.at(t), lanes);
    VF ddelta = hn::MulAdd(ln2, load(m.ddelta + t * kLanes), hn::Mul(dinput, u));
    if (s.softplus) ddelta = hn::Mul(ddelta, sigmoid_vector(tile.step(t)));
    store_some(ddelta, g.ddelta + tile.at(t), lanes);
    dbias = hn::Add(dbias, ddelta);
    dskip = hn::MulAdd(dy, u, dskip);
    if (s.z != nullptr) {
      const VF slope = Silu::at(load_some(s.z + tile.at(t), lanes)).slope;
      const VF dout = load_some(g.dout + tile.at(t), lanes);
      store_some(hn::Mul(hn::Mul(dout, load(m.y + t * kLanes)), slope), g.dz + tile.at(t), lanes);
    }
  }
  if (g.dskip != nullptr)
    store_some(hn::Add(load_some(g.dskip + channel, lanes), dskip), g.dskip + channel, lanes);
  if (g.ddelta_bias != nullptr) {
    store_some(hn::Add(load_some(g.ddelta_bias + channel, lanes), dbias), g.ddelta_bias + channel, lanes);
  }
}

template <typename T>
void scan_backward(const ScanSequence<T>& s, const ScanGradients<T>& g, void* memory) {
  const ScanScratch m(s.channels, s.states, memory);
  if (s.tokens == 0) return;
  fill_row(m.carry, 0, s.states * round_up(s.channels, kLanes), 0.0f);
  for (int64_t first = (s.tokens - 1) / kScanChunk * kScanChunk; first >= 0; first -= kScanChunk) {
    const int64_t n = s.tokens - first < kScanChunk ? s.tokens - first : kScanChunk;
    scan_widen_states(s, m, first, n);
    fill_row(m.db, 0, n * s.states * kLanes, 0.0f);
    fill_row(m.dc, 0, n * s.states * kLanes, 0.0f);
    for (int64_t channel = 0; channel < s.channels; channel += kLanes) {
      const ScanTile<T> tile{s, m, first, n, channel};
      tile.prepare();
      for (int64_t t = 0; t < n; ++t) {
        VF dy = load_some(g.dout + tile.at(t), tile.lanes());
        if (s.z != nullptr) dy = hn::Mul(dy, Silu::at(load_some(s.z + tile.at(t), tile.lanes())).value);
        store(dy, m.dy + t * kLanes);
      }
      fill_row(m.ddelta, 0, n * kLanes, 0.0f);
      fill_row(m.dinput, 0, n * kLanes, 0.0f);
      int64_t i = 0;
      for (; i + kScanBlock <= s.states; i += kScanBlock) scan_block_backward<kScanBlock>(tile, g.da, i);
      for (; i < s.states; ++i) scan_block_backward<1>(tile, g.da, i);
      scan_finish_backward(tile, g);
    }
    for (int64_t t = 0; t < n; ++t) {
      float *db = g.db + (first + t) * s.bc_stride, *dc = g.dc + (first + t) * s.bc_stride;
      for (int64_t i = 0; i < s.states; ++i) {
        db[i] = hn::GetLane(hn::SumOfLanes(df, load(m.db + (t * s.states + i) * kLanes)));
        dc[i] = hn::GetLane(hn::SumOfLanes(df, load(m.dc + (t * s.states + i) * kLanes)));
      }
    }
  }
}
