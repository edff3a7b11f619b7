// Direct preference optimization and its family: the loss of a pair is that of losses/dpo.h, of the summed
// (for ipo averaged) log-probabilities of both answers by the policy and by a frozen reference.
#pragma once

#include "qkv/train/recipes/pairs.h"
#include "qkv/train/recipes/running_mean.h"

namespace qkv {

class Dpo : public PairRecipe {
 public:
  // `keep_reference`: take the reference's log-probabilities of all pairs once, at the start.
  Dpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
      std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::DpoOptions& loss,
      const TuneConfig& config, bool keep_reference = false);
  const char* name() const override { return "dpo"; }
  Json state() const override;
  void restore(const Json& state) override;

 protected:
  losses::PairLosses<float> losses_of(const PairLogProbs& pairs, Metrics& metrics) const override;
  void observe(const PairLogProbs& pairs) override;

 private:
  losses::DpoOptions loss_;
  RunningMean rewards_;  // bco_pair's baseline
};

}  // namespace qkv
