#include "qkv/train/recipes/grpo.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/train/losses/on_tape.h"
#include "qkv/train/losses/ppo.h"

namespace qkv {

Grpo::Grpo(Parts parts, const OnPolicyConfig& config, const GrpoConfig& grpo)
    : OnPolicy(std::move(parts), config), grpo_(grpo) {
  grpo_.loss.max_length = config.rollout.max_new_tokens;
  require(config.group >= 2, "{}: expected groups of at least 2 answers, found {}", name(), config.group);
}

std::vector<Rollout> Grpo::prepare(std::vector<Rollout> rollouts) {
  std::vector<double> scores;
  for (const Rollout& rollout : rollouts) {
    double score = total_score(rollout);
    if (grpo_.leave_one_out && needs_reference()) {
      double divergence = 0;
      for (size_t t = 0; t < rollout.tokens.size(); ++t)
        divergence += static_cast<double>(rollout.log_probs[t]) - static_cast<double>(rollout.reference[t]);
      metrics().add("kl", divergence, 1);
      score -= grpo_.loss.beta * divergence;
    }
    scores.push_back(score);
  }
  losses::GroupBaseline baseline = losses::GroupBaseline::centered;
  if (grpo_.scale == "group") baseline = losses::GroupBaseline::standardized;
  if (grpo_.leave_one_out) baseline = losses::GroupBaseline::leave_one_out;
  std::vector<double> advantages = losses::group_advantages<double>(scores, config().group, baseline);
  if (!grpo_.leave_one_out && grpo_.scale == "batch") {
    const double deviation = std::sqrt(losses::moments<double>(scores).variance);
    for (double& advantage : advantages) advantage /= deviation + 1e-4;
  }
  for (size_t i = 0; i < rollouts.size(); ++i) rollouts[i].advantage = advantages[i];
  if (grpo_.mask_truncated) std::erase_if(rollouts, [](const Rollout& rollout) { return !rollout.ended; });
  return rollouts;
}

double Grpo::count(std::span<const Rollout> rollouts) const {
  if (grpo_.leave_one_out || grpo_.loss.normalization != losses::TokenNormalization::bnpo)
    return static_cast<double>(rollouts.size());
  return std::accumulate(rollouts.begin(), rollouts.end(), 0.0, [](double sum, const Rollout& rollout) {
    return sum + static_cast<double>(rollout.tokens.size());
  });
}

Tensor Grpo::loss_of(const Work& work, const AnswerRows& rows) {
  const Tensor log_probs = log_probs_of(model(), rows, temperature());
  const std::vector<int64_t>& offsets = rows.counted.offsets;
  if (grpo_.leave_one_out) return leave_one_out_loss(work, log_probs, offsets);
  std::vector<float> advantages, old, reference;
  for (const Rollout& rollout : work.rollouts) advantages.push_back(static_cast<float>(rollout.advantage));
  // The weights are those that sampled: the ratio is 1, and not what another packing rounds it to.
  if (!work.fresh) old = all(work.rollouts, &Rollout::log_probs);
  if (needs_reference()) reference = all(work.rollouts, &Rollout::reference);
  losses::GrpoStatistics statistics;
  const losses::TokenLoss<float> out = losses::grpo<float>(log_probs.span<float>(), old, reference, offsets,
                                                           advantages, grpo_.loss, &statistics);
  const double tokens = static_cast<double>(log_probs.elements());
  if (needs_reference()) metrics().add("kl", statistics.kl * tokens, tokens);
  metrics().add("clip_ratio/low_mean", statistics.clipped_low * tokens, tokens);
  metrics().add("clip_ratio/high_mean", statistics.clipped_high * tokens, tokens);
  metrics().add("clip_ratio/region_mean", (statistics.clipped_low + statistics.clipped_high) * tokens,
                tokens);
  return summed(out, log_probs, work.counted);
}

Tensor Grpo::leave_one_out_loss(const Work& work, const Tensor& log_probs,
                                const std::vector<int64_t>& offsets) {
  const Tensor answers = losses::segment_sums(log_probs, offsets);
  std::vector<float> old, advantages;
  for (size_t i = 0; i < work.rollouts.size(); ++i) {
    const Rollout& rollout = work.rollouts[i];
    const double sum = std::accumulate(rollout.log_probs.begin(), rollout.log_probs.end(), 0.0);
    old.push_back(work.fresh ? answers.data<float>()[i] : static_cast<float>(sum));
    advantages.push_back(static_cast<float>(rollout.advantage));
  }
  losses::PolicyStatistics statistics;
  const losses::TokenLoss<float> out =
      losses::ppo_policy<float>(answers.span<float>(), old, advantages, grpo_.clip, &statistics);
  metrics().add("clip_ratio/region_mean", statistics.clipped * work.counted, work.counted);
  return summed(out, answers, work.counted);
}

}  // namespace qkv
