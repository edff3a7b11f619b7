// Preference tuning without a reference, as contrastive learning beside likelihood. Per pair, with c and r
// the policy's log-probabilities of the chosen and the rejected answer and |c| the chosen answer's tokens:
//   CPO    -log sigmoid(beta (c - r)) - alpha c / |c|, or hinge's or IPO's loss of c - r
//          Xu et al., arXiv 2401.08417
//   SimPO  -log sigmoid(beta (c / |c| - r / |r|) - gamma) - alpha c / |c|, alpha 0 in the paper
//          Meng et al., arXiv 2405.14734
#pragma once

#include "qkv/train/losses/monolithic.h"
#include "qkv/train/recipes/pairs.h"

namespace qkv {

class Cpo : public PairRecipe {
 public:
  // `alpha`: of the chosen answer's negative log-likelihood.
  Cpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
      std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::CpoOptions& loss, double alpha,
      const TuneConfig& config);
  const char* name() const override { return "cpo"; }

 protected:
  losses::PairLosses<float> losses_of(const PairLogProbs& pairs, Metrics& metrics) const override;

 private:
  losses::CpoOptions loss_;
  double alpha_;
};

class Simpo : public PairRecipe {
 public:
  Simpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
        std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::SimpoOptions& loss,
        double alpha, const TuneConfig& config);
  const char* name() const override { return "simpo"; }

 protected:
  losses::PairLosses<float> losses_of(const PairLogProbs& pairs, Metrics& metrics) const override;

 private:
  losses::SimpoOptions loss_;
  double alpha_;
};

// Adds weight times the chosen answers' negative log-likelihood per token to the losses of pairs. `averages`:
// the log-probabilities are per token already.
void add_likelihood(losses::PairLosses<float>& losses, const PairLogProbs& pairs, double weight,
                    bool averages, Metrics& metrics);

}  // namespace qkv
