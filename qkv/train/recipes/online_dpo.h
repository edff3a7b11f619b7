// Online DPO (Guo et al., arXiv 2402.04792) and, with more steps to a generation, iterative DPO: of the
// answers to a prompt the one with the highest score is preferred to the one with the lowest, and
// losses/dpo.h does the rest. Prompts whose answers all score alike give no pair.
#pragma once

#include "qkv/train/losses/dpo.h"
#include "qkv/train/recipes/on_policy.h"

namespace qkv {

class OnlineDpo : public OnPolicy {
 public:
  OnlineDpo(Parts parts, const OnPolicyConfig& config, const losses::DpoOptions& options);
  const char* name() const override { return "online dpo"; }

 protected:
  bool needs_reference() const override { return true; }
  std::vector<Rollout> prepare(std::vector<Rollout> rollouts) override;
  size_t item_size() const override { return 2; }
  double count(std::span<const Rollout> rollouts) const override {
    return static_cast<double>(rollouts.size()) / 2;
  }
  Tensor loss_of(const Work& work, const AnswerRows& rows) override;

 private:
  losses::DpoOptions options_;
};

}  // namespace qkv
