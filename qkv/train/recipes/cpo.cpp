#include "qkv/train/recipes/cpo.h"

namespace qkv {

void add_likelihood(losses::PairLosses<float>& losses, const PairLogProbs& pairs, double weight,
                    bool averages, Metrics& metrics) {
  double sum = 0;
  for (size_t i = 0; i < losses.losses.size(); ++i) {
    const float length = averages ? 1.0f : pairs.chosen_tokens[i],
                factor = static_cast<float>(weight) / length;
    losses.losses[i] -= factor * pairs.chosen[i];
    losses.d_chosen[i] -= factor;
    sum -= static_cast<double>(pairs.chosen[i] / length);
  }
  metrics.add("nll_loss", sum, static_cast<double>(losses.losses.size()));
}

Cpo::Cpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
         std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::CpoOptions& loss, double alpha,
         const TuneConfig& config)
    : PairRecipe(model, adapter, std::move(train), std::move(valid),
                 {.batch_pairs = batch_pairs, .averages = losses::wants_average(loss.loss)}, config),
      loss_(loss),
      alpha_(alpha) {}

losses::PairLosses<float> Cpo::losses_of(const PairLogProbs& pairs, Metrics& metrics) const {
  losses::PairLosses<float> out = losses::cpo<float>({pairs.chosen, pairs.rejected}, loss_);
  add_likelihood(out, pairs, alpha_, losses::wants_average(loss_.loss), metrics);
  return out;
}

Simpo::Simpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
             std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::SimpoOptions& loss,
             double alpha, const TuneConfig& config)
    : PairRecipe(model, adapter, std::move(train), std::move(valid),
                 {.batch_pairs = batch_pairs, .averages = true}, config),
      loss_(loss),
      alpha_(alpha) {}

losses::PairLosses<float> Simpo::losses_of(const PairLogProbs& pairs, Metrics& metrics) const {
  losses::PairLosses<float> out = losses::simpo<float>({pairs.chosen, pairs.rejected}, loss_);
  add_likelihood(out, pairs, alpha_, true, metrics);
  return out;
}

}  // namespace qkv
