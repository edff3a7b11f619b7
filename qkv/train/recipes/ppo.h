// PPO for language models (losses/ppo.h): every token is an action; its reward is -b (log pi - log pi_ref),
// with the score of the answer added at its last token and those of its steps where they end. The value of a
// token is read by a linear head off the policy's own last hidden state. b is fixed, or follows a target
// divergence (Ziegler et al., arXiv 1909.08593): b *= 1 + clip(KL / target - 1, -0.2, 0.2) answers / horizon.
#pragma once

#include "qkv/train/losses/ppo.h"
#include "qkv/train/recipes/on_policy.h"

namespace qkv {

struct PpoConfig {
  double clip = 0.2, value_clip = 0.2;
  double value_coefficient = 0.1, entropy_coefficient = 0;
  double kl_coefficient = 0.05;  // b, or where it begins
  double kl_target = 0;          // nats per answer; 0: b is fixed
  double kl_horizon = 10000;     // answers
  losses::GaeOptions gae;
};

// b and its rule.
class KlController {
 public:
  KlController(double coefficient, double target, double horizon)
      : coefficient_(coefficient), target_(target), horizon_(horizon) {}
  double coefficient() const { return coefficient_; }
  void set(double coefficient) { coefficient_ = coefficient; }
  // After a generation of so many answers with this mean divergence.
  void update(double divergence, double answers);

 private:
  double coefficient_, target_, horizon_;
};

// v (N) = h (N, C) w^T + b, in f32.
class ValueHead : public Module {
 public:
  explicit ValueHead(int64_t channels);
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  Tensor forward(const Tensor& hidden) const;

 private:
  Tensor weight_, bias_;  // (1, C), (1): zeros at first
};

class Ppo : public OnPolicy {
 public:
  Ppo(Parts parts, const OnPolicyConfig& config, const PpoConfig& ppo);
  const char* name() const override { return "ppo"; }
  Module* own_parameters() override { return &head_; }
  double kl_coefficient() const { return controller_.coefficient(); }

 protected:
  bool needs_reference() const override { return true; }
  std::vector<Rollout> prepare(std::vector<Rollout> rollouts) override;
  double count(std::span<const Rollout> rollouts) const override;
  Tensor loss_of(const Work& work, const AnswerRows& rows) override;
  void scored(std::span<Rollout> rollouts, const AnswerRows& rows) override;
  Json own_state() const override;
  void restore_own(const JsonView& state) override;

 private:
  Tensor entropy_loss(const AnswerRows& rows) const;

  PpoConfig ppo_;
  KlController controller_;
  ValueHead head_;
};

}  // namespace qkv
