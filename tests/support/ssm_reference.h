// The state-space ops as plain recurrences on any scalar type, in the layout of qkv/tensor/ops.h: tokens
// packed over sequences, sequence s being rows [offsets[s], offsets[s + 1]).
#pragma once

#include "tests/support/reference_ops.h"

namespace qkv::test::reference {

template <typename S>
S softplus(S x) {
  return std::max(x, S(0)) + std::log1p(std::exp(-std::abs(x)));
}

// x (T, channels), w (channels, taps); past (taps - 1, channels): what came before the first token of every
// sequence.
template <typename S>
Array<S> causal_conv1d(const Array<S>& x, const Array<S>& w, const Array<S>& bias,
                       const std::vector<int64_t>& offsets, int64_t channels, int64_t taps, bool silu,
                       const Array<S>& past = {}) {
  Array<S> y(x.size());
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t t = offsets[s]; t < offsets[s + 1]; ++t) {
      for (int64_t c = 0; c < channels; ++c) {
        S sum = bias.empty() ? S(0) : bias[static_cast<size_t>(c)];
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t row = t - taps + 1 + k;
          if (row >= offsets[s]) {
            sum += w[at(c, taps, k)] * x[at(row, channels, c)];
          } else if (!past.empty()) {
            sum += w[at(c, taps, k)] * past[at(taps - 1 + row - offsets[s], channels, c)];
          }
        }
        y[at(t, channels, c)] = silu ? activation(Activation::silu, sum) : sum;
      }
    }
  }
  return y;
}

template <typename S>
struct Scan {
  Array<S> u, delta;       // (T, channels)
  Array<S> a;              // (channels, states)
  Array<S> b, c;           // (T, groups * states)
  Array<S> skip, z, bias;  // (channels), (T, channels), (channels); each may be empty
  int64_t channels = 0, states = 0, groups = 1;
  bool softplus = true;
};

// h (sequences, channels, states): the states before the first tokens (or empty), and after the last.
template <typename S>
Array<S> selective_scan(const Scan<S>& in, const std::vector<int64_t>& offsets, Array<S>* h = nullptr) {
  Array<S> y(in.u.size()), own;
  Array<S>& state = h != nullptr ? *h : own;
  state.resize((offsets.size() - 1) * static_cast<size_t>(in.channels * in.states), S(0));
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t d = 0; d < in.channels; ++d) {
      const int64_t group = d / (in.channels / in.groups);
      S* row = &state[(s * static_cast<size_t>(in.channels) + static_cast<size_t>(d)) *
                      static_cast<size_t>(in.states)];
      for (int64_t t = offsets[s]; t < offsets[s + 1]; ++t) {
        const size_t i = at(t, in.channels, d);
        S step = in.delta[i] + (in.bias.empty() ? S(0) : in.bias[static_cast<size_t>(d)]);
        if (in.softplus) step = softplus(step);
        S sum = in.skip.empty() ? S(0) : in.skip[static_cast<size_t>(d)] * in.u[i];
        for (int64_t n = 0; n < in.states; ++n) {
          const size_t j = at(t, in.groups * in.states, group * in.states + n);
          row[n] = std::exp(step * in.a[at(d, in.states, n)]) * row[n] + step * in.u[i] * in.b[j];
          sum += row[n] * in.c[j];
        }
        y[i] = in.z.empty() ? sum : sum * activation(Activation::silu, in.z[i]);
      }
    }
  }
  return y;
}

template <typename S>
struct ScanGradients {
  Array<S> du, ddelta, da, db, dc, dskip, dz, dbias;  // as the inputs
};

// The scan walked back, from the upstream gradient dout.
template <typename S>
ScanGradients<S> selective_scan_gradients(const Scan<S>& in, const std::vector<int64_t>& offsets,
                                          const Array<S>& dout) {
  ScanGradients<S> g;
  const auto zeros = [](const Array<S>& like) { return Array<S>(like.size(), S(0)); };
  g.du = zeros(in.u);
  g.ddelta = zeros(in.delta);
  g.da = zeros(in.a);
  g.db = zeros(in.b);
  g.dc = zeros(in.c);
  g.dskip = zeros(in.skip);
  g.dz = zeros(in.z);
  g.dbias = zeros(in.bias);
  const auto states = static_cast<size_t>(in.states);
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t d = 0; d < in.channels; ++d) {
      const int64_t group = d / (in.channels / in.groups), n_tokens = offsets[s + 1] - offsets[s];
      const auto channel = static_cast<size_t>(d);
      Array<S> h(static_cast<size_t>(n_tokens + 1) * states, S(0)), carry(states, S(0));
      const auto step_of = [&](int64_t t, S& slope) {
        const S raw = in.delta[at(t, in.channels, d)] + (in.bias.empty() ? S(0) : in.bias[channel]);
        slope = in.softplus ? sigmoid(raw) : S(1);
        return in.softplus ? softplus(raw) : raw;
      };
      S slope = 1;
      for (int64_t t = 0; t < n_tokens; ++t) {
        const S step = step_of(offsets[s] + t, slope), u = in.u[at(offsets[s] + t, in.channels, d)];
        for (int64_t n = 0; n < in.states; ++n) {
          h[at(t + 1, in.states, n)] =
              std::exp(step * in.a[at(d, in.states, n)]) * h[at(t, in.states, n)] +
              step * u * in.b[at(offsets[s] + t, in.groups * in.states, group * in.states + n)];
        }
      }
      for (int64_t t = n_tokens - 1; t >= 0; --t) {
        const size_t i = at(offsets[s] + t, in.channels, d);
        const S step = step_of(offsets[s] + t, slope), skip = in.skip.empty() ? S(0) : in.skip[channel];
        S y = skip * in.u[i], dstep = 0;
        for (int64_t n = 0; n < in.states; ++n) {
          y += h[at(t + 1, in.states, n)] *
               in.c[at(offsets[s] + t, in.groups * in.states, group * in.states + n)];
        }
        S dy = dout[i];
        if (!in.z.empty()) {
          g.dz[i] = dy * y * activation_slope(Activation::silu, in.z[i]);
          dy *= activation(Activation::silu, in.z[i]);
        }
        if (!in.skip.empty()) g.dskip[channel] += dy * in.u[i];
        g.du[i] = skip * dy;
        for (int64_t n = 0; n < in.states; ++n) {
          const size_t j = at(offsets[s] + t, in.groups * in.states, group * in.states + n),
                       k = at(d, in.states, n);
          const S before = h[at(t, in.states, n)], decay = std::exp(step * in.a[k]);
          const S gradient = carry[static_cast<size_t>(n)] + dy * in.c[j];
          g.dc[j] += dy * h[at(t + 1, in.states, n)];
          g.db[j] += gradient * step * in.u[i];
          g.du[i] += gradient * step * in.b[j];
          g.da[k] += gradient * decay * before * step;
          dstep += gradient * (in.u[i] * in.b[j] + in.a[k] * decay * before);
          carry[static_cast<size_t>(n)] = gradient * decay;
        }
        g.ddelta[i] = dstep * slope;
        if (!in.bias.empty()) g.dbias[channel] += dstep * slope;
      }
    }
  }
  return g;
}

}  // namespace qkv::test::reference
