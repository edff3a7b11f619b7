// Every op of qkv/tensor/ops.h as plain loops on any scalar type, with its gradient where a closed form is simple, and the
// central differences that check those gradients. Run in double, this is what kernels and ops are measured against.
// Attention is in attention_reference.h. Arrays are row-major; an empty weight or bias means that there is none.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/kernels/kernels.h"

namespace qkv::test::reference {

template <typename S>
using Array = std::vector<S>;

inline size_t at(int64_t row, int64_t cols, int64_t col) { return static_cast<size_t>(row * cols + col); }

// The gradient of `f` at `x` by central differences; in double its error is about 1e-9 of the values of f.
template <typename S>
Array<S> finite_difference(const std::function<S(const Array<S>&)>& f, const Array<S>& x, S step = S(1e-5)) {
  Array<S> point = x, gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    point[i] = x[i] + step;
    const S above = f(point), width_above = point[i] - x[i];
    point[i] = x[i] - step;
    const S below = f(point), width_below = x[i] - point[i];
    point[i] = x[i];
    gradient[i] = (above - below) / (width_above + width_below);
  }
  return gradient;
}

template <typename S>
S inner(const Array<S>& a, const Array<S>& b) {
  S total = 0;
  for (size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

// ---- products ----

// (m, n) = a (m, k) b (k, n); a transposed operand is stored the other way round.
template <typename S>
Array<S> matmul(const Array<S>& a, const Array<S>& b, int64_t m, int64_t n, int64_t k, bool transpose_a = false,
                bool transpose_b = false) {
  Array<S> y(static_cast<size_t>(m * n), S(0));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      S sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += a[transpose_a ? at(l, m, i) : at(i, k, l)] * b[transpose_b ? at(j, k, l) : at(l, n, j)];
      y[at(i, n, j)] = sum;
    }
  }
  return y;
}

// x (t, k) w^T (n, k) + bias (n).
template <typename S>
Array<S> linear(const Array<S>& x, const Array<S>& w, const Array<S>& bias, int64_t t, int64_t n, int64_t k) {
  Array<S> y = matmul(x, w, t, n, k, false, true);
  if (!bias.empty()) {
    for (size_t i = 0; i < y.size(); ++i) y[i] += bias[i % static_cast<size_t>(n)];
  }
  return y;
}

template <typename S>
Array<S> sum_rows(const Array<S>& x, int64_t rows, int64_t cols) {
  Array<S> y(static_cast<size_t>(cols), S(0));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) y[static_cast<size_t>(c)] += x[at(r, cols, c)];
  }
  return y;
}

// ---- elementwise ----

template <typename S, typename F>
Array<S> map(F f, const Array<S>& a) {
  Array<S> y(a.size());
  std::transform(a.begin(), a.end(), y.begin(), f);
  return y;
}
template <typename S, typename F>
Array<S> map(F f, const Array<S>& a, const Array<S>& b) {
  Array<S> y(a.size());
  std::transform(a.begin(), a.end(), b.begin(), y.begin(), f);
  return y;
}

template <typename S>
S sigmoid(S x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

template <typename S>
S activation(Activation kind, S x) {
  const S root_2_over_pi = std::sqrt(S(2) / S(M_PI));
  switch (kind) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::gelu_erf: return x * S(0.5) * std::erfc(-x / std::sqrt(S(2)));
    case Activation::gelu_tanh: return S(0.5) * x * (1 + std::tanh(root_2_over_pi * (x + S(0.044715) * x * x * x)));
    case Activation::quick_gelu: return x * sigmoid(S(1.702) * x);
    case Activation::relu: return std::max(x, S(0));
    case Activation::relu2: return std::max(x, S(0)) * std::max(x, S(0));
    case Activation::sigmoid: return sigmoid(x);
  }
  return 0;
}

template <typename S>
S activation_slope(Activation kind, S x) {
  switch (kind) {
    case Activation::silu: return sigmoid(x) * (1 + x * sigmoid(-x));
    case Activation::gelu_erf:
      return S(0.5) * std::erfc(-x / std::sqrt(S(2))) + x * std::exp(-x * x / 2) / std::sqrt(2 * S(M_PI));
    case Activation::gelu_tanh: {
      const S a = std::sqrt(S(2) / S(M_PI)), t = std::tanh(a * (x + S(0.044715) * x * x * x));
      return S(0.5) * (1 + t) + S(0.5) * x * (1 - t * t) * a * (1 + S(3 * 0.044715) * x * x);
    }
    case Activation::quick_gelu: {
      const S k = S(1.702) * x;
      return sigmoid(k) * (1 + k * sigmoid(-k));
    }
    case Activation::relu: return x > 0 ? S(1) : S(0);
    case Activation::relu2: return x > 0 ? 2 * x : S(0);
    case Activation::sigmoid: return sigmoid(x) * sigmoid(-x);
  }
  return 0;
}

template <typename S>
Array<S> gated(Activation kind, const Array<S>& gate, const Array<S>& up) {
  return map<S>([kind](S g, S u) { return activation(kind, g) * u; }, gate, up);
}

// What dropout multiplies element `i` by: 0 or 1 / (1 - p).
inline double dropout_factor(float p, uint64_t seed, uint64_t stream, uint64_t i) {
  const auto threshold = static_cast<uint32_t>(static_cast<double>(p) * 4294967296.0);
  return philox4x32(seed, stream, i / 4)[i % 4] >= threshold ? 1.0 / (1.0 - static_cast<double>(p)) : 0.0;
}

// ---- norms ----

template <typename S>
struct NormGradients {
  Array<S> dx, dw, db;
};

template <typename S>
Array<S> rms_norm(const Array<S>& x, const Array<S>& w, int64_t rows, int64_t cols, S eps, Array<S>* rstd = nullptr) {
  Array<S> y(x.size());
  if (rstd != nullptr) rstd->assign(static_cast<size_t>(rows), S(0));
  for (int64_t r = 0; r < rows; ++r) {
    S square = 0;
    for (int64_t c = 0; c < cols; ++c) square += x[at(r, cols, c)] * x[at(r, cols, c)];
    const S s = 1 / std::sqrt(square / static_cast<S>(cols) + eps);
    if (rstd != nullptr) (*rstd)[static_cast<size_t>(r)] = s;
    for (int64_t c = 0; c < cols; ++c) y[at(r, cols, c)] = x[at(r, cols, c)] * s * (w.empty() ? S(1) : w[static_cast<size_t>(c)]);
  }
  return y;
}

template <typename S>
NormGradients<S> rms_norm_gradients(const Array<S>& dy, const Array<S>& x, const Array<S>& w, int64_t rows, int64_t cols, S eps) {
  Array<S> rstd;
  rms_norm(x, {}, rows, cols, eps, &rstd);
  NormGradients<S> g{Array<S>(x.size()), Array<S>(static_cast<size_t>(cols), S(0)), {}};
  for (int64_t r = 0; r < rows; ++r) {
    const S s = rstd[static_cast<size_t>(r)];
    S mean = 0;
    for (int64_t c = 0; c < cols; ++c) {
      const S h = x[at(r, cols, c)] * s, d = dy[at(r, cols, c)];
      mean += d * (w.empty() ? S(1) : w[static_cast<size_t>(c)]) * h / static_cast<S>(cols);
      g.dw[static_cast<size_t>(c)] += d * h;
    }
    for (int64_t c = 0; c < cols; ++c) {
      const S weighted = dy[at(r, cols, c)] * (w.empty() ? S(1) : w[static_cast<size_t>(c)]);
      g.dx[at(r, cols, c)] = s * (weighted - x[at(r, cols, c)] * s * mean);
    }
  }
  return g;
}

template <typename S>
Array<S> layer_norm(const Array<S>& x, const Array<S>& w, const Array<S>& b, int64_t rows, int64_t cols, S eps,
                    Array<S>* mean_out = nullptr, Array<S>* rstd_out = nullptr) {
  Array<S> y(x.size());
  if (mean_out != nullptr) mean_out->assign(static_cast<size_t>(rows), S(0));
  if (rstd_out != nullptr) rstd_out->assign(static_cast<size_t>(rows), S(0));
  for (int64_t r = 0; r < rows; ++r) {
    S mean = 0, square = 0;
    for (int64_t c = 0; c < cols; ++c) mean += x[at(r, cols, c)] / static_cast<S>(cols);
    for (int64_t c = 0; c < cols; ++c) square += (x[at(r, cols, c)] - mean) * (x[at(r, cols, c)] - mean);
    const S s = 1 / std::sqrt(square / static_cast<S>(cols) + eps);
    if (mean_out != nullptr) (*mean_out)[static_cast<size_t>(r)] = mean;
    if (rstd_out != nullptr) (*rstd_out)[static_cast<size_t>(r)] = s;
    for (int64_t c = 0; c < cols; ++c) {
      const auto i = static_cast<size_t>(c);
      y[at(r, cols, c)] = (x[at(r, cols, c)] - mean) * s * (w.empty() ? S(1) : w[i]) + (b.empty() ? S(0) : b[i]);
    }
  }
  return y;
}

template <typename S>
NormGradients<S> layer_norm_gradients(const Array<S>& dy, const Array<S>& x, const Array<S>& w, int64_t rows, int64_t cols, S eps) {
  Array<S> rstd;
  const Array<S> h = layer_norm(x, {}, {}, rows, cols, eps, static_cast<Array<S>*>(nullptr), &rstd);
  NormGradients<S> g{Array<S>(x.size()), Array<S>(static_cast<size_t>(cols), S(0)), Array<S>(static_cast<size_t>(cols), S(0))};
  for (int64_t r = 0; r < rows; ++r) {
    S mean_g = 0, mean_gh = 0;
    for (int64_t c = 0; c < cols; ++c) {
      const size_t i = at(r, cols, c);
      const S weighted = dy[i] * (w.empty() ? S(1) : w[static_cast<size_t>(c)]);
      mean_g += weighted / static_cast<S>(cols);
      mean_gh += weighted * h[i] / static_cast<S>(cols);
      g.dw[static_cast<size_t>(c)] += dy[i] * h[i];
      g.db[static_cast<size_t>(c)] += dy[i];
    }
    for (int64_t c = 0; c < cols; ++c) {
      const size_t i = at(r, cols, c);
      const S weighted = dy[i] * (w.empty() ? S(1) : w[static_cast<size_t>(c)]);
      g.dx[i] = rstd[static_cast<size_t>(r)] * (weighted - mean_g - h[i] * mean_gh);
    }
  }
  return g;
}

// ---- position ----

// direction -1 is the gradient.
template <typename S>
Array<S> rope(const Array<S>& x, const Array<S>& cos, const Array<S>& sin, int64_t rows, int64_t heads, int64_t head_dim,
              int64_t rotary_dim, bool interleaved, S direction = S(1)) {
  Array<S> y = x;
  const int64_t half = rotary_dim / 2;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const size_t first = at(r, heads * head_dim, h * head_dim + (interleaved ? 2 * i : i));
        const size_t second = first + static_cast<size_t>(interleaved ? 1 : half);
        const S c = cos[at(r, half, i)], s = direction * sin[at(r, half, i)];
        y[first] = x[first] * c - x[second] * s;
        y[second] = x[first] * s + x[second] * c;
      }
    }
  }
  return y;
}

// ---- rows ----

template <typename S>
S log_sum_exp(const S* x, int64_t cols) {
  const S largest = *std::max_element(x, x + cols);
  S sum = 0;
  for (int64_t c = 0; c < cols; ++c) sum += std::exp(x[c] - largest);
  return largest + std::log(sum);
}

template <typename S>
Array<S> log_softmax(const Array<S>& x, int64_t rows, int64_t cols) {
  Array<S> y(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    const S lse = log_sum_exp(&x[at(r, cols, 0)], cols);
    for (int64_t c = 0; c < cols; ++c) y[at(r, cols, c)] = x[at(r, cols, c)] - lse;
  }
  return y;
}

template <typename S>
Array<S> softmax(const Array<S>& x, int64_t rows, int64_t cols) {
  return map<S>([](S v) { return std::exp(v); }, log_softmax(x, rows, cols));
}

// From y = softmax(x).
template <typename S>
Array<S> softmax_gradient(const Array<S>& y, const Array<S>& dy, int64_t rows, int64_t cols) {
  Array<S> dx(y.size());
  for (int64_t r = 0; r < rows; ++r) {
    S dot = 0;
    for (int64_t c = 0; c < cols; ++c) dot += y[at(r, cols, c)] * dy[at(r, cols, c)];
    for (int64_t c = 0; c < cols; ++c) dx[at(r, cols, c)] = y[at(r, cols, c)] * (dy[at(r, cols, c)] - dot);
  }
  return dx;
}

// From y = log_softmax(x).
template <typename S>
Array<S> log_softmax_gradient(const Array<S>& y, const Array<S>& dy, int64_t rows, int64_t cols) {
  Array<S> dx(y.size());
  for (int64_t r = 0; r < rows; ++r) {
    S sum = 0;
    for (int64_t c = 0; c < cols; ++c) sum += dy[at(r, cols, c)];
    for (int64_t c = 0; c < cols; ++c) dx[at(r, cols, c)] = dy[at(r, cols, c)] - std::exp(y[at(r, cols, c)]) * sum;
  }
  return dx;
}

// Rows of a (v, cols) table; also select_rows.
template <typename S, typename Index>
Array<S> embedding(const std::vector<Index>& ids, const Array<S>& table, int64_t cols) {
  Array<S> y;
  for (Index id : ids) y.insert(y.end(), table.begin() + id * cols, table.begin() + (id + 1) * cols);
  return y;
}

// Columns [begin, end).
template <typename S>
Array<S> slice_cols(const Array<S>& x, int64_t rows, int64_t cols, int64_t begin, int64_t end) {
  Array<S> y;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = begin; c < end; ++c) y.push_back(x[at(r, cols, c)]);
  }
  return y;
}

// a (rows, a_cols) beside b (rows, b_cols).
template <typename S>
Array<S> concat_cols(const Array<S>& a, int64_t a_cols, const Array<S>& b, int64_t b_cols, int64_t rows) {
  Array<S> y;
  for (int64_t r = 0; r < rows; ++r) {
    y.insert(y.end(), a.begin() + r * a_cols, a.begin() + (r + 1) * a_cols);
    y.insert(y.end(), b.begin() + r * b_cols, b.begin() + (r + 1) * b_cols);
  }
  return y;
}

// ---- losses ----

template <typename S>
struct LossOptions {
  S label_smoothing = 0, z_loss = 0, softcap = 0, logit_scale = 1;
};

// One row's loss of raw logits z; `gradient`, if not null, receives d loss / d z.
template <typename S>
S cross_entropy_row(const S* z, int64_t vocabulary, int64_t target, const LossOptions<S>& options, S* gradient = nullptr) {
  Array<S> t(static_cast<size_t>(vocabulary)), slope(t.size());
  for (size_t i = 0; i < t.size(); ++i) {
    t[i] = z[i] * options.logit_scale;
    slope[i] = options.logit_scale;
    if (options.softcap > 0) {
      const S bent = std::tanh(t[i] / options.softcap);
      t[i] = options.softcap * bent;
      slope[i] *= 1 - bent * bent;
    }
  }
  const S lse = log_sum_exp(t.data(), vocabulary), n = static_cast<S>(vocabulary), eps = options.label_smoothing;
  S mean = 0;
  for (S v : t) mean += v / n;
  S loss = (1 - eps) * (lse - t[static_cast<size_t>(target)]) + options.z_loss * lse * lse;
  if (eps > 0) loss += eps * (lse - mean);
  if (gradient != nullptr) {
    for (size_t i = 0; i < t.size(); ++i) {
      const S p = std::exp(t[i] - lse);
      gradient[i] = slope[i] * ((1 + 2 * options.z_loss * lse) * p - eps / n - (static_cast<int64_t>(i) == target ? 1 - eps : S(0)));
    }
  }
  return loss;
}

// The weighted sum over rows whose target is not `ignore`; `gradient` (rows, vocabulary) as above.
template <typename S>
S cross_entropy(const Array<S>& logits, int64_t vocabulary, const std::vector<int32_t>& targets, const LossOptions<S>& options,
                const Array<S>& weights = {}, Array<S>* gradient = nullptr, int32_t ignore = -100) {
  if (gradient != nullptr) gradient->assign(logits.size(), S(0));
  S total = 0;
  for (size_t r = 0; r < targets.size(); ++r) {
    if (targets[r] == ignore) continue;
    const size_t row = r * static_cast<size_t>(vocabulary);
    const S weight = weights.empty() ? S(1) : weights[r];
    total += weight * cross_entropy_row(&logits[row], vocabulary, targets[r], options, gradient == nullptr ? nullptr : &(*gradient)[row]);
    if (gradient != nullptr) {
      for (int64_t i = 0; i < vocabulary; ++i) (*gradient)[row + static_cast<size_t>(i)] *= weight;
    }
  }
  return total;
}

// ---- optimizer ----

template <typename S>
struct AdamW {
  S lr, beta1, beta2, eps, weight_decay;
  Array<S> m, v;
  int64_t t = 0;

  void step(Array<S>& p, const Array<S>& g) {
    m.resize(p.size(), S(0));
    v.resize(p.size(), S(0));
    ++t;
    for (size_t i = 0; i < p.size(); ++i) {
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
      const S m_hat = m[i] / (1 - std::pow(beta1, static_cast<S>(t))), v_hat = v[i] / (1 - std::pow(beta2, static_cast<S>(t)));
      p[i] -= lr * (weight_decay * p[i] + m_hat / (std::sqrt(v_hat) + eps));
    }
  }
};

}  // namespace qkv::test::reference
