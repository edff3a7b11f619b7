#include "qkv/train/recipes/dpo.h"

#include <nlohmann/json.hpp>

namespace qkv {

Dpo::Dpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
         std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::DpoOptions& loss,
         const TuneConfig& config, bool keep_reference)
    : PairRecipe(model, adapter, std::move(train), std::move(valid),
                 {.batch_pairs = batch_pairs,
                  .averages = losses::wants_average(loss.loss),
                  .reference = true,
                  .keep_reference = keep_reference},
                 config),
      loss_(loss) {}

losses::PairLosses<float> Dpo::losses_of(const PairLogProbs& pairs, Metrics&) const {
  losses::DpoOptions options = loss_;
  if (loss_.loss == losses::PreferenceLoss::bco_pair && rewards_.count > 0) options.baseline = rewards_.mean;
  return losses::dpo<float>({pairs.chosen, pairs.rejected, pairs.reference_chosen, pairs.reference_rejected},
                            options);
}

// The mean reward of all answers so far, this batch's included.
void Dpo::observe(const PairLogProbs& pairs) {
  if (loss_.loss != losses::PreferenceLoss::bco_pair) return;
  double sum = 0;
  for (size_t i = 0; i < pairs.chosen.size(); ++i) {
    sum += static_cast<double>(pairs.chosen[i] - pairs.reference_chosen[i]) +
           static_cast<double>(pairs.rejected[i] - pairs.reference_rejected[i]);
  }
  rewards_.add(loss_.beta * sum, 2 * static_cast<double>(pairs.chosen.size()));
}

Json Dpo::state() const {
  Json json = PairRecipe::state();
  if (loss_.loss == losses::PreferenceLoss::bco_pair) json["rewards"] = rewards_.state();
  return json;
}

void Dpo::restore(const Json& state) {
  PairRecipe::restore(state);
  if (loss_.loss == losses::PreferenceLoss::bco_pair)
    rewards_.restore(JsonView(state, "dpo state").object("rewards"));
}

}  // namespace qkv
