#include "qkv/train/losses/grpo.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/json.h"

namespace qkv::losses {
namespace {

const std::vector<std::string> kNames = {"grpo", "bnpo", "dr_grpo"};  // in the order of the enumeration

}  // namespace

std::vector<std::string> token_normalization_names() {
  return kNames;
}

TokenNormalization token_normalization_from_name(const std::string& name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end())
    fail("grpo: normalization: expected one of {}, found '{}'{}", fmt::join(kNames, ", "), name,
         suggestion(name, kNames));
  return static_cast<TokenNormalization>(found - kNames.begin());
}

template <typename T>
std::vector<T> group_advantages(std::span<const T> rewards, int64_t group, GroupBaseline baseline) {
  const auto g = static_cast<size_t>(group);
  require(group > 1 && rewards.size() % g == 0,
          "grpo: expected groups of {} rewards (at least 2), found {} rewards", group, rewards.size());
  std::vector<T> result;
  result.reserve(rewards.size());
  for (size_t begin = 0; begin < rewards.size(); begin += g) {
    const auto ours = rewards.subspan(begin, g);
    const Moments m = moments(ours);
    double scale = 1;
    if (baseline == GroupBaseline::standardized) scale = 1 / (std::sqrt(m.variance) + 1e-4);
    // r - (n mean - r) / (n - 1) = (r - mean) n / (n - 1)
    if (baseline == GroupBaseline::leave_one_out) scale = static_cast<double>(g) / static_cast<double>(g - 1);
    for (T reward : ours) result.push_back(static_cast<T>((static_cast<double>(reward) - m.mean) * scale));
  }
  return result;
}

template <typename T>
TokenLoss<T> grpo(std::span<const T> log_probs, std::span<const T> old_log_probs,
                  std::span<const T> reference_log_probs, std::span<const int64_t> offsets,
                  std::span<const T> advantages, const GrpoOptions& options, GrpoStatistics* statistics) {
  const size_t n = log_probs.size();
  require_offsets(offsets, n, "grpo");
  const size_t answers = offsets.size() - 1;
  require(advantages.size() == answers, "grpo: expected {} advantages, found {}", answers, advantages.size());
  require(old_log_probs.empty() || old_log_probs.size() == n,
          "grpo: expected {} old log-probabilities or none, found {}", n, old_log_probs.size());
  const bool anchored = options.beta != 0;
  require(reference_log_probs.size() == n || (!anchored && reference_log_probs.empty()),
          "grpo: expected {} reference log-probabilities, found {}", n, reference_log_probs.size());
  require(options.normalization != TokenNormalization::dr_grpo || options.max_length > 0,
          "grpo: dr_grpo needs max_length above 0");
  const T low = static_cast<T>(1 - options.clip_low), high = static_cast<T>(1 + options.clip_high),
          beta = static_cast<T>(options.beta);
  TokenLoss<T> out;
  out.gradient.resize(n);
  double kl = 0, below = 0, above = 0;
  for (size_t s = 0; s < answers; ++s) {
    const auto length = static_cast<double>(offsets[s + 1] - offsets[s]);
    double parts = static_cast<double>(std::max<size_t>(1, n));
    if (options.normalization == TokenNormalization::grpo)
      parts = std::max(1.0, length) * static_cast<double>(answers);
    if (options.normalization == TokenNormalization::dr_grpo)
      parts = static_cast<double>(answers) * static_cast<double>(options.max_length);
    const T share = static_cast<T>(1 / parts), advantage = advantages[s];
    for (auto t = static_cast<size_t>(offsets[s]); t < static_cast<size_t>(offsets[s + 1]); ++t) {
      const T ratio = old_log_probs.empty() ? T{1} : std::exp(log_probs[t] - old_log_probs[t]);
      const bool bounded = options.delta && ratio > static_cast<T>(*options.delta);
      const T plain = (bounded ? static_cast<T>(*options.delta) : ratio) * advantage;
      const T clipped = std::clamp(ratio, low, high) * advantage;
      T loss = -std::min(plain, clipped);
      // Inside the clip range both are the same function of the ratio.
      const bool moves = plain < clipped ? !bounded
                                         : (plain == clipped ? !bounded && ratio >= low && ratio <= high
                                                             : ratio >= low && ratio <= high);
      T slope = moves ? -ratio * advantage : T{0};
      if (!reference_log_probs.empty()) {
        const T d = reference_log_probs[t] - log_probs[t];
        kl += static_cast<double>(std::expm1(d) - d) / static_cast<double>(n);
        loss += beta * (std::expm1(d) - d);
        slope -= beta * std::expm1(d);
      }
      out.value += static_cast<double>(loss * share);
      out.gradient[t] = slope * share;
      if (ratio < low && advantage < 0) below += 1 / static_cast<double>(n);
      if (ratio > high && advantage > 0) above += 1 / static_cast<double>(n);
    }
  }
  if (statistics != nullptr) *statistics = {kl, below, above};
  return out;
}

template std::vector<float> group_advantages(std::span<const float>, int64_t, GroupBaseline);
template std::vector<double> group_advantages(std::span<const double>, int64_t, GroupBaseline);
template TokenLoss<float> grpo(std::span<const float>, std::span<const float>, std::span<const float>,
                               std::span<const int64_t>, std::span<const float>, const GrpoOptions&,
                               GrpoStatistics*);
template TokenLoss<double> grpo(std::span<const double>, std::span<const double>, std::span<const double>,
                                std::span<const int64_t>, std::span<const double>, const GrpoOptions&,
                                GrpoStatistics*);

}  // namespace qkv::losses
