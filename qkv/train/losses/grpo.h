// Group-relative policy optimization and its variants: no value network, the baseline of an answer is its
// group, several answers to the same prompt (Shao et al., arXiv 2402.03300).
//
// Per token, with A the answer's advantage, q = exp(log pi - log pi_old), d = log pi_ref - log pi:
//   l = -min(min(q, delta) A, clip(q, 1 - low, 1 + high) A) + beta (e^d - d - 1)
// delta bounds the ratio where A < 0 as well (two-sided clipping: INTELLECT-2, arXiv 2505.07291); high > low
// is DAPO's clip-higher (Yu et al., arXiv 2503.14476). The token losses become one by `normalization`:
//   grpo     mean over answers of the mean over their tokens
//   bnpo     mean over all tokens (DAPO's token-level loss)
//   dr_grpo  sum over all tokens / (answers x max_length): no bias towards short answers (Liu et al., arXiv
//   2503.20783)
#pragma once

#include <optional>
#include <string>

#include "qkv/train/losses/policy.h"

namespace qkv::losses {

// Of the rewards of one group after the other, `group` answers each.
enum class GroupBaseline {
  standardized,   // (r - mean) / (unbiased standard deviation + 1e-4): GRPO
  centered,       // r - mean: Dr. GRPO
  leave_one_out,  // r - mean of the others: RLOO (Ahmadian et al., arXiv 2402.14740)
};
template <typename T>
std::vector<T> group_advantages(std::span<const T> rewards, int64_t group,
                                GroupBaseline baseline = GroupBaseline::standardized);

enum class TokenNormalization { grpo, bnpo, dr_grpo };
std::vector<std::string> token_normalization_names();
TokenNormalization token_normalization_from_name(const std::string& name);

struct GrpoOptions {
  TokenNormalization normalization = TokenNormalization::grpo;
  double beta = 0;  // of the divergence from the reference; 0: none is needed
  double clip_low = 0.2, clip_high = 0.2;
  std::optional<double> delta;
  int64_t max_length = 0;  // dr_grpo: the longest answer that could be sampled
};

struct GrpoStatistics {
  double kl = 0;                             // mean over tokens of e^d - d - 1, if there is a reference
  double clipped_low = 0, clipped_high = 0;  // shares of tokens cut at either end
};

// advantages: one per answer. old_log_probs may be empty: the policy sampled with is the policy (on-policy, q
// = 1). reference_log_probs may be empty if beta is 0.
template <typename T>
TokenLoss<T> grpo(std::span<const T> log_probs, std::span<const T> old_log_probs,
                  std::span<const T> reference_log_probs, std::span<const int64_t> offsets,
                  std::span<const T> advantages, const GrpoOptions& options,
                  GrpoStatistics* statistics = nullptr);

}  // namespace qkv::losses
