// On-policy distillation (GKD: Agarwal et al., arXiv 2306.13649): the student answers, and on every token of
// its own answers its next-token distribution is drawn to the teacher's by a divergence of
// losses/distillation.h. What it learns from are the mistakes it makes. Rewards are not needed; what there
// are, is reported.
#pragma once

#include "qkv/train/losses/distillation.h"
#include "qkv/train/recipes/on_policy.h"

namespace qkv {

class Gkd : public OnPolicy {
 public:
  // `teacher` must outlive the recipe. Error if the vocabularies differ in size.
  Gkd(Parts parts, const OnPolicyConfig& config, const Model& teacher,
      const losses::DistillationOptions& options);
  const char* name() const override { return "gkd"; }

 protected:
  bool needs_reference() const override { return false; }
  std::vector<Rollout> prepare(std::vector<Rollout> rollouts) override { return rollouts; }
  double count(std::span<const Rollout> rollouts) const override;
  Tensor loss_of(const Work& work, const AnswerRows& rows) override;

 private:
  const Model& teacher_;
  losses::DistillationOptions options_;
};

}  // namespace qkv
