#include "qkv/train/losses/ppo.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"

namespace qkv::losses {

template <typename T>
Advantages<T> advantages(std::span<const T> rewards, std::span<const T> values,
                         std::span<const int64_t> offsets, const GaeOptions& options) {
  require(values.size() == rewards.size(), "advantages: expected {} values, found {}", rewards.size(),
          values.size());
  require_offsets(offsets, rewards.size(), "advantages");
  const std::vector<T> r =
      options.whiten_rewards ? whitened(rewards, true) : std::vector<T>(rewards.begin(), rewards.end());
  const T gamma = static_cast<T>(options.gamma), decay = static_cast<T>(options.gamma * options.lambda);
  Advantages<T> result;
  result.raw.resize(r.size());
  result.returns.resize(r.size());
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    T next_value = 0, advantage = 0;
    for (int64_t i = offsets[s + 1]; i-- > offsets[s];) {
      const auto t = static_cast<size_t>(i);
      advantage = r[t] + gamma * next_value - values[t] + decay * advantage;
      next_value = values[t];
      result.raw[t] = advantage;
      result.returns[t] = advantage + values[t];
    }
  }
  result.whitened = whitened(std::span<const T>(result.raw));
  return result;
}

template <typename T>
TokenLoss<T> ppo_policy(std::span<const T> log_probs, std::span<const T> old_log_probs,
                        std::span<const T> advantages, double clip, PolicyStatistics* statistics) {
  const size_t n = log_probs.size();
  require(n > 0 && old_log_probs.size() == n && advantages.size() == n,
          "ppo: expected {} old log-probabilities and advantages, found {} and {}", n, old_log_probs.size(),
          advantages.size());
  TokenLoss<T> out;
  PolicyStatistics s;
  const T share = T{1} / static_cast<T>(n), low = static_cast<T>(1 - clip), high = static_cast<T>(1 + clip);
  for (size_t t = 0; t < n; ++t) {
    const T difference = log_probs[t] - old_log_probs[t], ratio = std::exp(difference);
    const T plain = -advantages[t] * ratio, clipped = -advantages[t] * std::clamp(ratio, low, high);
    out.value += static_cast<double>(std::max(plain, clipped) * share);
    out.gradient.push_back(plain >= clipped ? plain * share : T{0});
    s.clipped += clipped > plain ? static_cast<double>(share) : 0;
    s.approx_kl += static_cast<double>(difference * difference / 2 * share);
    s.policy_kl -= static_cast<double>(difference * share);
    s.mean_ratio += static_cast<double>(ratio * share);
  }
  if (statistics != nullptr) *statistics = s;
  return out;
}

template <typename T>
TokenLoss<T> ppo_value(std::span<const T> predictions, std::span<const T> old_values,
                       std::span<const T> returns, double clip, double* clipped) {
  const size_t n = predictions.size();
  require(n > 0 && old_values.size() == n && returns.size() == n,
          "ppo: expected {} old values and returns, found {} and {}", n, old_values.size(), returns.size());
  TokenLoss<T> out;
  size_t beyond = 0;
  const T share = T{1} / static_cast<T>(n), c = static_cast<T>(clip);
  for (size_t t = 0; t < n; ++t) {
    const T near = std::clamp(predictions[t], old_values[t] - c, old_values[t] + c);
    const T free_error = predictions[t] - returns[t], near_error = near - returns[t];
    const T plain = free_error * free_error, held = near_error * near_error;
    out.value += static_cast<double>(std::max(plain, held) / 2 * share);
    out.gradient.push_back(plain >= held ? free_error * share : T{0});
    beyond += held > plain ? 1 : 0;
  }
  if (clipped != nullptr) *clipped = static_cast<double>(beyond) / static_cast<double>(n);
  return out;
}

template Advantages<float> advantages(std::span<const float>, std::span<const float>,
                                      std::span<const int64_t>, const GaeOptions&);
template Advantages<double> advantages(std::span<const double>, std::span<const double>,
                                       std::span<const int64_t>, const GaeOptions&);
template TokenLoss<float> ppo_policy(std::span<const float>, std::span<const float>, std::span<const float>,
                                     double, PolicyStatistics*);
template TokenLoss<double> ppo_policy(std::span<const double>, std::span<const double>,
                                      std::span<const double>, double, PolicyStatistics*);
template TokenLoss<float> ppo_value(std::span<const float>, std::span<const float>, std::span<const float>,
                                    double, double*);
template TokenLoss<double> ppo_value(std::span<const double>, std::span<const double>,
                                     std::span<const double>, double, double*);

}  // namespace qkv::losses
