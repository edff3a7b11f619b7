// Attention by its formula, with the full matrix of scores, on any scalar: what the tiled kernels are
// measured against. Layouts are those of AttentionSequence with no padding between tokens: q (n_q, n_heads,
// qk_dim), k (n_k, n_kv_heads, qk_dim), v (n_k, n_kv_heads, v_dim), out and dout (n_q, n_heads, v_dim), lse
// (n_heads, n_q).
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "qkv/kernels/kernels.h"

namespace qkv::test {

template <typename S>
struct AttentionReference {
  AttentionSpec spec;
  int64_t n_q = 0, n_k = 0;
  std::vector<S> q, k, v, dout;
  std::vector<S> out, lse, dq, dk, dv;

  const S* query(int64_t i, int h) const {
    return &q[static_cast<size_t>((i * spec.n_heads + h) * spec.qk_dim)];
  }
  const S* key(int64_t j, int h) const {
    return &k[static_cast<size_t>((j * spec.n_kv_heads + kv(h)) * spec.qk_dim)];
  }
  const S* value(int64_t j, int h) const {
    return &v[static_cast<size_t>((j * spec.n_kv_heads + kv(h)) * spec.v_dim)];
  }
  int kv(int h) const { return h / (spec.n_heads / spec.n_kv_heads); }
  size_t out_at(int64_t i, int h) const { return static_cast<size_t>((i * spec.n_heads + h) * spec.v_dim); }
  size_t lse_at(int64_t i, int h) const { return static_cast<size_t>(h * n_q + i); }

  bool visible(int64_t i, int64_t j) const {
    const int64_t position = i + n_k - n_q;
    return (!spec.causal || j <= position) && (spec.window == 0 || j > position - spec.window);
  }

  static S dot(const S* a, const S* b, int n) {
    S sum = 0;
    for (int c = 0; c < n; ++c) sum += a[c] * b[c];
    return sum;
  }

  // Score of query i and key j in head h; derivative is d score / d (q.k).
  S score(int64_t i, int64_t j, int h, S* derivative) const {
    S s = dot(query(i, h), key(j, h), spec.qk_dim) * static_cast<S>(spec.scale);
    *derivative = static_cast<S>(spec.scale);
    if (spec.softcap > 0) {
      const S cap = static_cast<S>(spec.softcap);
      const S t = std::tanh(s / cap);
      s = cap * t;
      *derivative *= 1 - t * t;
    }
    if (spec.alibi_slopes != nullptr)
      s -= static_cast<S>(spec.alibi_slopes[h]) * static_cast<S>(i + n_k - n_q - j);
    return s;
  }

  void forward() {
    out.assign(static_cast<size_t>(n_q * spec.n_heads * spec.v_dim), S(0));
    lse.assign(static_cast<size_t>(n_q * spec.n_heads), -std::numeric_limits<S>::infinity());
    S unused;
    for (int h = 0; h < spec.n_heads; ++h) {
      for (int64_t i = 0; i < n_q; ++i) {
        S largest = -std::numeric_limits<S>::infinity();
        for (int64_t j = 0; j < n_k; ++j) {
          if (visible(i, j)) largest = std::max(largest, score(i, j, h, &unused));
        }
        if (largest == -std::numeric_limits<S>::infinity()) continue;
        S sum = 0;
        for (int64_t j = 0; j < n_k; ++j) {
          if (!visible(i, j)) continue;
          const S p = std::exp(score(i, j, h, &unused) - largest);
          sum += p;
          for (int c = 0; c < spec.v_dim; ++c)
            out[out_at(i, h) + static_cast<size_t>(c)] += p * value(j, h)[c];
        }
        for (int c = 0; c < spec.v_dim; ++c) out[out_at(i, h) + static_cast<size_t>(c)] /= sum;
        lse[lse_at(i, h)] = largest + std::log(sum);
      }
    }
  }

  // After forward(): dq, dk and dv of sum(dout * out).
  void backward() {
    dq.assign(q.size(), S(0));
    dk.assign(k.size(), S(0));
    dv.assign(v.size(), S(0));
    for (int h = 0; h < spec.n_heads; ++h) {
      for (int64_t i = 0; i < n_q; ++i) {
        const S* g = &dout[out_at(i, h)];
        const S delta = dot(g, &out[out_at(i, h)], spec.v_dim);
        for (int64_t j = 0; j < n_k; ++j) {
          if (!visible(i, j)) continue;
          S derivative;
          const S p = std::exp(score(i, j, h, &derivative) - lse[lse_at(i, h)]);
          const S ds = p * (dot(g, value(j, h), spec.v_dim) - delta) * derivative;
          const size_t k_at = static_cast<size_t>(key(j, h) - k.data()),
                       v_at = static_cast<size_t>(value(j, h) - v.data());
          const size_t q_at = static_cast<size_t>(query(i, h) - q.data());
          for (int c = 0; c < spec.v_dim; ++c) dv[v_at + static_cast<size_t>(c)] += p * g[c];
          for (int c = 0; c < spec.qk_dim; ++c) {
            dq[q_at + static_cast<size_t>(c)] += ds * key(j, h)[c];
            dk[k_at + static_cast<size_t>(c)] += ds * query(i, h)[c];
          }
        }
      }
    }
  }

  // sum(dout * out): the function that backward() differentiates.
  S loss() {
    forward();
    S sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * dout[i];
    return sum;
  }
};

}  // namespace qkv::test
