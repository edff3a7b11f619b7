// GRPO and its variants, and RLOO: several answers to a prompt are each other's baseline (losses/grpo.h). The
// KL divergence from the reference is a term of GRPO's loss, and of RLOO's reward.
//
// RLOO (Ahmadian et al., arXiv 2402.14740): with R = score - beta (log pi - log pi_ref) of the whole answer
// and A = R less the mean of the prompt's other answers, the loss is the mean over answers of
//   max(-A q, -A clip(q, 1 - c, 1 + c)),  q = pi / pi_old of the whole answer
#pragma once

#include <string>

#include "qkv/train/losses/grpo.h"
#include "qkv/train/recipes/on_policy.h"

namespace qkv {

struct GrpoConfig {
  losses::GrpoOptions loss;    // beta counts in both
  bool leave_one_out = false;  // RLOO
  double clip = 0.2;           // RLOO's c
  // By what (score - mean of the group) is divided: the group's deviation, the generation's, nothing (Dr.
  // GRPO).
  std::string scale = "group";
  bool mask_truncated = false;  // answers that were cut off teach nothing (DAPO's overlong filtering)
};

class Grpo : public OnPolicy {
 public:
  Grpo(Parts parts, const OnPolicyConfig& config, const GrpoConfig& grpo);
  const char* name() const override { return grpo_.leave_one_out ? "rloo" : "grpo"; }

 protected:
  bool needs_reference() const override { return grpo_.loss.beta != 0; }
  std::vector<Rollout> prepare(std::vector<Rollout> rollouts) override;
  double count(std::span<const Rollout> rollouts) const override;
  Tensor loss_of(const Work& work, const AnswerRows& rows) override;

 private:
  Tensor leave_one_out_loss(const Work& work, const Tensor& log_probs, const std::vector<int64_t>& offsets);

  GrpoConfig grpo_;
};

}  // namespace qkv
