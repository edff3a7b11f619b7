// The scalar functions that losses on log-probabilities are made of, each in the form that neither overflows
// nor cancels.
#pragma once

#include <cmath>

namespace qkv::losses {

// log(1 + e^x)
template <typename T>
T softplus(T x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

// log(sigmoid(x)); its derivative is sigmoid(-x).
template <typename T>
T log_sigmoid(T x) {
  return -softplus(-x);
}

template <typename T>
T sigmoid(T x) {
  if (x >= 0) return 1 / (1 + std::exp(-x));
  const T e = std::exp(x);
  return e / (1 + e);
}

// A value with its derivative.
template <typename T>
struct Slope {
  T value, derivative;
};

// -log sigmoid(x) (1 - s) - log sigmoid(-x) s: the binary cross-entropy that believes a label with
// probability 1 - s.
template <typename T>
Slope<T> smoothed_log_loss(T x, T smoothing) {
  return {-log_sigmoid(x) * (1 - smoothing) - log_sigmoid(-x) * smoothing,
          -sigmoid(-x) * (1 - smoothing) + sigmoid(x) * smoothing};
}

}  // namespace qkv::losses
