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

template <typename S>
struct Ssd {
  Array<S> x, dt;       // (T, heads * head_dim), (T, heads)
  Array<S> a;           // (heads)
  Array<S> b, c;        // (T, groups * states)
  Array<S> skip, bias;  // (heads); each may be empty
  int64_t heads = 0, head_dim = 0, states = 0, groups = 1;
  bool softplus = true;
  S least = 0, most = std::numeric_limits<S>::infinity();

  // The step of token t and its slope.
  S step(int64_t t, int64_t head, S* slope = nullptr) const {
    const S raw = dt[at(t, heads, head)] + (bias.empty() ? S(0) : bias[static_cast<size_t>(head)]);
    const S free = softplus ? reference::softplus(raw) : raw;
    const bool limited = free < least || free > most;
    if (slope != nullptr) *slope = limited ? S(0) : softplus ? sigmoid(raw) : S(1);
    return std::min(std::max(free, least), most);
  }
};

// h (sequences, heads, states, head_dim): the states before the first tokens (or empty), and after the last.
template <typename S>
Array<S> ssd(const Ssd<S>& in, const std::vector<int64_t>& offsets, Array<S>* h = nullptr) {
  Array<S> y(in.x.size()), own;
  Array<S>& all = h != nullptr ? *h : own;
  all.resize((offsets.size() - 1) * static_cast<size_t>(in.heads * in.states * in.head_dim), S(0));
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t head = 0; head < in.heads; ++head) {
      const int64_t group = head / (in.heads / in.groups);
      S* state = &all[(s * static_cast<size_t>(in.heads) + static_cast<size_t>(head)) *
                      static_cast<size_t>(in.states * in.head_dim)];
      for (int64_t t = offsets[s]; t < offsets[s + 1]; ++t) {
        const S step = in.step(t, head), decay = std::exp(step * in.a[static_cast<size_t>(head)]);
        for (int64_t p = 0; p < in.head_dim; ++p) {
          const size_t i = at(t, in.heads * in.head_dim, head * in.head_dim + p);
          S sum = in.skip.empty() ? S(0) : in.skip[static_cast<size_t>(head)] * in.x[i];
          for (int64_t n = 0; n < in.states; ++n) {
            const size_t j = at(t, in.groups * in.states, group * in.states + n);
            S& value = state[at(n, in.head_dim, p)];
            value = decay * value + step * in.x[i] * in.b[j];
            sum += value * in.c[j];
          }
          y[i] = sum;
        }
      }
    }
  }
  return y;
}

template <typename S>
struct SsdGradients {
  Array<S> dx, ddt, da, db, dc, dskip, dbias;  // as the inputs; ddt of the raw dt
  Array<S> dsteps;                             // as dt, of the steps
  Array<S> dh;                                 // of the states before the first tokens
};

// The recurrence of one sequence walked back: the upstream gradients are dy and, of the last states, dh_last
// (or empty); h are the states before the first token (or empty).
template <typename S>
SsdGradients<S> ssd_gradients(const Ssd<S>& in, const Array<S>& dy, Array<S> h = {}, Array<S> dh_last = {}) {
  const int64_t tokens = static_cast<int64_t>(in.dt.size()) / in.heads, size = in.states * in.head_dim;
  const auto zeros = [](const Array<S>& like) { return Array<S>(like.size(), S(0)); };
  SsdGradients<S> g{zeros(in.x),    zeros(in.dt),   zeros(in.a),  zeros(in.b), zeros(in.c),
                    zeros(in.skip), zeros(in.bias), zeros(in.dt), {}};
  h.resize(static_cast<size_t>(in.heads * size), S(0));
  dh_last.resize(h.size(), S(0));
  g.dh = dh_last;
  for (int64_t head = 0; head < in.heads; ++head) {
    const int64_t group = head / (in.heads / in.groups);
    const auto head_index = static_cast<size_t>(head);
    Array<S> states(h.begin() + head * size, h.begin() + (head + 1) * size);  // before every token
    for (int64_t t = 0; t < tokens; ++t) {
      const S step = in.step(t, head), decay = std::exp(step * in.a[head_index]);
      for (int64_t i = 0; i < size; ++i) {
        const size_t j = at(t, in.groups * in.states, group * in.states + i / in.head_dim);
        const S x = in.x[at(t, in.heads * in.head_dim, head * in.head_dim + i % in.head_dim)];
        states.push_back(decay * states[at(t, size, i)] + step * x * in.b[j]);
      }
    }
    for (int64_t t = tokens - 1; t >= 0; --t) {
      S slope = 0;
      const S step = in.step(t, head, &slope), decay = std::exp(step * in.a[head_index]);
      S dstep = 0;
      for (int64_t i = 0; i < size; ++i) {
        const size_t j = at(t, in.groups * in.states, group * in.states + i / in.head_dim);
        const size_t k = at(t, in.heads * in.head_dim, head * in.head_dim + i % in.head_dim);
        S& carry = g.dh[at(head, size, i)];
        carry += dy[k] * in.c[j];
        g.dc[j] += dy[k] * states[at(t + 1, size, i)];
        g.db[j] += carry * step * in.x[k];
        g.dx[k] += carry * step * in.b[j];
        const S dexponent = carry * decay * states[at(t, size, i)];
        dstep += carry * in.x[k] * in.b[j] + in.a[head_index] * dexponent;
        g.da[head_index] += step * dexponent;
        carry *= decay;
      }
      for (int64_t p = 0; p < in.head_dim && !in.skip.empty(); ++p) {
        const size_t k = at(t, in.heads * in.head_dim, head * in.head_dim + p);
        g.dx[k] += in.skip[head_index] * dy[k];
        g.dskip[head_index] += dy[k] * in.x[k];
      }
      g.dsteps[at(t, in.heads, head)] = dstep;
      g.ddt[at(t, in.heads, head)] = dstep * slope;
      if (!in.bias.empty()) g.dbias[head_index] += dstep * slope;
    }
  }
  return g;
}

}  // namespace qkv::test::reference
