// Odds ratio preference optimization (Hong et al., arXiv 2403.07691): fine-tuning on the chosen answer and a
// preference for it in one loss, without a reference. Per pair, with c and r the answers' log-probabilities
// per token and odds(p) = p / (1 - p):
//   -c - beta log sigmoid(log odds(e^c) - log odds(e^r))
#pragma once

#include "qkv/train/recipes/pairs.h"

namespace qkv {

class Orpo : public PairRecipe {
 public:
  Orpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
       std::vector<PreferencePair> valid, int64_t batch_pairs, double beta, const TuneConfig& config);
  const char* name() const override { return "orpo"; }

 protected:
  losses::PairLosses<float> losses_of(const PairLogProbs& pairs, Metrics& metrics) const override;

 private:
  double beta_;
};

}  // namespace qkv
