#include "qkv/train/recipes/online_dpo.h"

#include <algorithm>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/train/losses/on_tape.h"

namespace qkv {

OnlineDpo::OnlineDpo(Parts parts, const OnPolicyConfig& config, const losses::DpoOptions& options)
    : OnPolicy(std::move(parts), config), options_(options) {
  require(config.group >= 2, "online dpo: expected at least 2 answers to a prompt, found {}", config.group);
}

std::vector<Rollout> OnlineDpo::prepare(std::vector<Rollout> rollouts) {
  std::vector<Rollout> pairs;
  const auto by_score = [](const Rollout& a, const Rollout& b) { return total_score(a) < total_score(b); };
  for (auto first = rollouts.begin(); first != rollouts.end(); first += config().group) {
    const auto [worst, best] = std::minmax_element(first, first + config().group, by_score);
    const double margin = total_score(*best) - total_score(*worst);
    metrics().add("objective/scores_margin", margin, 1);
    metrics().add("objective/pairs", margin > 0 ? 1 : 0, 1);
    for (auto rollout = first; rollout != first + config().group; ++rollout) {
      const double divergence = std::accumulate(rollout->log_probs.begin(), rollout->log_probs.end(), 0.0) -
                                std::accumulate(rollout->reference.begin(), rollout->reference.end(), 0.0);
      metrics().add("objective/kl", divergence, 1);
      metrics().add("objective/scores", total_score(*rollout), 1);
    }
    if (margin <= 0) continue;
    pairs.push_back(*best);
    pairs.push_back(*worst);
  }
  return pairs;
}

Tensor OnlineDpo::loss_of(const Work& work, const AnswerRows& rows) {
  const Tensor log_probs = log_probs_of(model(), rows, temperature());
  std::vector<float> divisors;
  if (losses::wants_average(options_.loss)) {
    for (const Rollout& rollout : work.rollouts)
      divisors.push_back(static_cast<float>(rollout.tokens.size()));
  }
  const Tensor answers = losses::segment_sums(log_probs, rows.counted.offsets, divisors);
  // Best and worst alternate.
  std::vector<float> chosen, rejected, reference_chosen, reference_rejected;
  for (size_t i = 0; i < work.rollouts.size(); ++i) {
    const Rollout& rollout = work.rollouts[i];
    double reference = std::accumulate(rollout.reference.begin(), rollout.reference.end(), 0.0);
    if (!divisors.empty()) reference /= static_cast<double>(divisors[i]);
    (i % 2 == 0 ? chosen : rejected).push_back(answers.data<float>()[i]);
    (i % 2 == 0 ? reference_chosen : reference_rejected).push_back(static_cast<float>(reference));
  }
  const losses::PairLosses<float> out =
      losses::dpo<float>({chosen, rejected, reference_chosen, reference_rejected}, options_);
  losses::TokenLoss<float> sum;
  for (size_t i = 0; i < chosen.size(); ++i) {
    sum.value += static_cast<double>(out.losses[i]);
    sum.gradient.push_back(out.d_chosen[i]);
    sum.gradient.push_back(out.d_rejected[i]);
    metrics().add("rewards/chosen", static_cast<double>(out.chosen_rewards[i]), 1);
    metrics().add("rewards/rejected", static_cast<double>(out.rejected_rewards[i]), 1);
    metrics().add("rewards/margins", static_cast<double>(out.chosen_rewards[i] - out.rejected_rewards[i]), 1);
    metrics().add("rewards/accuracies", out.chosen_rewards[i] > out.rejected_rewards[i] ? 1 : 0, 1);
  }
  return summed(sum, answers, 1);
}

}  // namespace qkv
