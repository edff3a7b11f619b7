// Proximal policy optimization (Schulman et al., arXiv 1707.06347) with generalized advantage estimation
// (arXiv 1506.02438), as it is done for language models (Ziegler et al., arXiv 1909.08593).
//
// Per token t of an answer, with rewards r, values V of the time of sampling, new values v, ratio q = exp(log
// pi - log pi_old):
//   advantages  d[t] = r[t] + gamma V[t + 1] - V[t],  A[t] = d[t] + gamma lambda A[t + 1],  V behind the end
//   0;
//               returns R = A + V; A is whitened over the batch, R keeps the raw A
//   policy      mean of max(-A q, -A clip(q, 1 - c, 1 + c))
//   value       mean of max((v - R)^2, (clip(v, V - cv, V + cv) - R)^2) / 2
#pragma once

#include "qkv/train/losses/policy.h"

namespace qkv::losses {

template <typename T>
struct Advantages {
  std::vector<T> raw, whitened, returns;
};

struct GaeOptions {
  double gamma = 1, lambda = 0.95;
  bool whiten_rewards = false;  // keeps their mean
};

template <typename T>
Advantages<T> advantages(std::span<const T> rewards, std::span<const T> values,
                         std::span<const int64_t> offsets, const GaeOptions& options);

struct PolicyStatistics {
  double clipped = 0;    // the share of tokens whose clipped loss is the larger one
  double approx_kl = 0;  // mean of (log pi - log pi_old)^2 / 2
  double policy_kl = 0;  // mean of log pi_old - log pi
  double mean_ratio = 0;
};

// `clip`: c. The mean is over all tokens.
template <typename T>
TokenLoss<T> ppo_policy(std::span<const T> log_probs, std::span<const T> old_log_probs,
                        std::span<const T> advantages, double clip, PolicyStatistics* statistics = nullptr);

// `clipped`, if not null: the share of tokens whose clipped loss is the larger one.
template <typename T>
TokenLoss<T> ppo_value(std::span<const T> predictions, std::span<const T> old_values,
                       std::span<const T> returns, double clip, double* clipped = nullptr);

}  // namespace qkv::losses
