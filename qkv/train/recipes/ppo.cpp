#include "qkv/train/recipes/ppo.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/losses/on_tape.h"

namespace qkv {

void KlController::update(double divergence, double answers) {
  if (target_ == 0) return;
  coefficient_ *= 1 + std::clamp(divergence / target_ - 1, -0.2, 0.2) * answers / horizon_;
}

ValueHead::ValueHead(int64_t channels) : weight_(Tensor::zeros({1, channels})), bias_(Tensor::zeros({1})) {
  weight_.set_requires_grad(true);
  bias_.set_requires_grad(true);
}

void ValueHead::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  visitor(prefix + "value.weight", weight_);
  visitor(prefix + "value.bias", bias_);
}

Tensor ValueHead::forward(const Tensor& hidden) const {
  const Tensor values = ops::linear(ops::cast(hidden, DType::f32), weight_, bias_);
  return ops::reshape(values, {values.rows()});
}

Ppo::Ppo(Parts parts, const OnPolicyConfig& config, const PpoConfig& ppo)
    : OnPolicy(std::move(parts), config),
      ppo_(ppo),
      controller_(ppo.kl_coefficient, ppo.kl_target, ppo.kl_horizon),
      head_(model().info().channels) {}

void Ppo::scored(std::span<Rollout> rollouts, const AnswerRows& rows) {
  const std::vector<float> values = head_.forward(rows.hidden).to_floats();
  size_t at = 0;
  for (Rollout& rollout : rollouts) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(at);
    rollout.values.assign(begin, begin + static_cast<std::ptrdiff_t>(rollout.tokens.size()));
    at += rollout.tokens.size();
  }
}

std::vector<Rollout> Ppo::prepare(std::vector<Rollout> rollouts) {
  std::vector<float> rewards;
  std::vector<int64_t> offsets = {0};
  double divergence = 0, penalties = 0, scores = 0;
  for (const Rollout& rollout : rollouts) {
    const size_t begin = rewards.size();
    for (size_t t = 0; t < rollout.tokens.size(); ++t) {
      const double apart =
          static_cast<double>(rollout.log_probs[t]) - static_cast<double>(rollout.reference[t]);
      divergence += apart;
      penalties -= controller_.coefficient() * apart;
      rewards.push_back(static_cast<float>(-controller_.coefficient() * apart));
    }
    rewards.back() += static_cast<float>(rollout.score);
    for (const auto& [token, score] : rollout.step_scores)
      rewards[begin + static_cast<size_t>(token)] += static_cast<float>(score);
    scores += total_score(rollout);
    offsets.push_back(static_cast<int64_t>(rewards.size()));
  }
  const auto n = static_cast<double>(rollouts.size());
  metrics().add("objective/kl", divergence, n);
  metrics().add("objective/kl_coef", controller_.coefficient(), 1);
  metrics().add("objective/non_score_reward", penalties, n);
  metrics().add("objective/scores", scores, n);
  metrics().add("objective/rlhf_reward", scores + penalties, n);
  const std::vector<float> values = all(rollouts, &Rollout::values);
  const losses::Advantages<float> advantages = losses::advantages<float>(rewards, values, offsets, ppo_.gae);
  for (size_t i = 0; i < rollouts.size(); ++i) {
    const auto begin = static_cast<std::ptrdiff_t>(offsets[i]),
               end = static_cast<std::ptrdiff_t>(offsets[i + 1]);
    rollouts[i].advantages.assign(advantages.whitened.begin() + begin, advantages.whitened.begin() + end);
    rollouts[i].returns.assign(advantages.returns.begin() + begin, advantages.returns.begin() + end);
  }
  controller_.update(divergence / n, n);
  return rollouts;
}

double Ppo::count(std::span<const Rollout> rollouts) const {
  double tokens = 0;
  for (const Rollout& rollout : rollouts) tokens += static_cast<double>(rollout.tokens.size());
  return tokens;
}

// -c times the sum of the rows' entropies.
Tensor Ppo::entropy_loss(const AnswerRows& rows) const {
  Tensor logits = model().logits(rows.hidden);
  if (temperature() != 0 && temperature() != 1)
    logits = ops::scale(logits, static_cast<float>(1 / temperature()));
  std::vector<float> slopes;
  const std::vector<float> entropies = losses::entropies<float>(logits.span<float>(), logits.cols(), &slopes);
  losses::TokenLoss<float> sum;
  for (const float entropy : entropies) sum.value += static_cast<double>(entropy);
  sum.gradient = std::move(slopes);
  return summed(sum, logits, -ppo_.entropy_coefficient);
}

Tensor Ppo::loss_of(const Work& work, const AnswerRows& rows) {
  const Tensor log_probs = log_probs_of(model(), rows, temperature()), values = head_.forward(rows.hidden);
  const std::vector<float> old_values = all(work.rollouts, &Rollout::values);
  losses::PolicyStatistics statistics;
  const losses::TokenLoss<float> policy =
      losses::ppo_policy<float>(log_probs.span<float>(), all(work.rollouts, &Rollout::log_probs),
                                all(work.rollouts, &Rollout::advantages), ppo_.clip, &statistics);
  double values_clipped = 0;
  const losses::TokenLoss<float> value =
      losses::ppo_value<float>(values.span<float>(), old_values, all(work.rollouts, &Rollout::returns),
                               ppo_.value_clip, &values_clipped);
  const double n = work.counted;
  metrics().add("loss/policy_avg", policy.value * n, n);
  metrics().add("loss/value_avg", value.value * n, n);
  metrics().add("policy/approxkl_avg", statistics.approx_kl * n, n);
  metrics().add("policy/clipfrac_avg", statistics.clipped * n, n);
  metrics().add("val/clipfrac_avg", values_clipped * n, n);
  metrics().add("val/ratio", statistics.mean_ratio * n, n);
  Tensor total = ops::add(summed(policy, log_probs, n), summed(value, values, n * ppo_.value_coefficient));
  if (ppo_.entropy_coefficient > 0) total = ops::add(total, entropy_loss(rows));
  return total;
}

Json Ppo::own_state() const {
  return {{"kl_coefficient", controller_.coefficient()}};
}

void Ppo::restore_own(const JsonView& state) {
  controller_.set(state.number("kl_coefficient"));
}

}  // namespace qkv
