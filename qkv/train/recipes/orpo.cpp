#include "qkv/train/recipes/orpo.h"

#include "qkv/train/losses/monolithic.h"
#include "qkv/train/recipes/cpo.h"

namespace qkv {

Orpo::Orpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
           std::vector<PreferencePair> valid, int64_t batch_pairs, double beta, const TuneConfig& config)
    : PairRecipe(model, adapter, std::move(train), std::move(valid),
                 {.batch_pairs = batch_pairs, .averages = true}, config),
      beta_(beta) {}

losses::PairLosses<float> Orpo::losses_of(const PairLogProbs& pairs, Metrics& metrics) const {
  losses::PairLosses<float> out = losses::orpo<float>({pairs.chosen, pairs.rejected}, beta_);
  add_likelihood(out, pairs, 1, true, metrics);
  return out;
}

}  // namespace qkv
