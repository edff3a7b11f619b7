// What policy-gradient losses share: vectors with one number per sampled token, packed, answer s being tokens
// [offsets[s], offsets[s + 1]); clipped probability ratios; statistics of a step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qkv::losses {

// A loss with its gradient by every token's log-probability.
template <typename T>
struct TokenLoss {
  double value = 0;
  std::vector<T> gradient;
};

// Mean, unbiased variance.
struct Moments {
  double mean = 0, variance = 0;
};
template <typename T>
Moments moments(std::span<const T> values);

// (x - mean) / sqrt(variance + 1e-8) over all tokens; with keep_mean the mean is added back.
template <typename T>
std::vector<T> whitened(std::span<const T> values, bool keep_mean = false);

// -sum over v of p(v) log p(v) for every row of logits (N, V), with d sum of entropies / d logits if
// `gradient` is not null.
template <typename T>
std::vector<T> entropies(std::span<const T> logits, int64_t vocabulary, std::vector<T>* gradient = nullptr);

// Error unless offsets go from 0 to `tokens` and rise, at least one answer.
void require_offsets(std::span<const int64_t> offsets, size_t tokens, const char* what);

}  // namespace qkv::losses
