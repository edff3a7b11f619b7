// On-policy tuning from prompts to an exported adapter or model: what `qkv train grpo`, `rloo`, `ppo`,
// `online-dpo` and `gkd` run, as library calls.
#pragma once

#include "qkv/train/rewards.h"
#include "qkv/train/tune_job.h"

namespace qkv {

enum class ReinforceKind { grpo, rloo, ppo, online_dpo, gkd };

// The settings of tuning, and those of rollouts, rewards and the kind's own. Keys, limits and help are in
// bind().
struct ReinforceSettings : TuneSettings {
  ReinforceKind method = ReinforceKind::grpo;
  int64_t max_prompt_length = 0, eval_prompts = 200;

  std::vector<std::string> rewards;
  JudgeOptions reward_options;
  double missing_end_penalty = 0;

  int64_t prompts = 8, group = 8, max_new_tokens = 128, top_k = 0, at_a_time = 32;
  double rollout_temperature = 1, top_p = 1;
  std::vector<std::string> stop;
  int64_t minibatches = 1, iterations = 1, score_tokens = 4096;

  // grpo and rloo
  std::string loss_type = "dapo", scale_rewards = "group";
  double kl_beta = 0, clip_low = 0.2, clip_high = 0.2, clip_delta = 0;
  bool mask_truncated = false, dynamic_sampling = false;
  int64_t sampling_rounds = 4;

  // ppo
  double value_clip = 0.2, value_coefficient = 0.1, entropy_coefficient = 0, kl_coefficient = 0.05,
         kl_target = 0, kl_horizon = 10000, gamma = 1, lambda = 0.95;
  bool whiten_rewards = false;

  // gkd, beside teacher and temperature
  std::string distillation = "js";
  double distillation_beta = 0.5;

  explicit ReinforceSettings(ReinforceKind kind_of_run = ReinforceKind::grpo);
  // Every key but model, output and resume, which are arguments only.
  void bind(ConfigTable& table);
};

// Runs it; says what the data hold first. Errors leave no checkpoint half-written.
TrainResult run_reinforcement(ReinforceSettings settings);

}  // namespace qkv
