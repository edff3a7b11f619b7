#include "qkv/train/reinforce_job.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/core/parallel.h"
#include "qkv/data/chat_tokens.h"
#include "qkv/data/prompts.h"
#include "qkv/tensor/gemm.h"
#include "qkv/train/recipes/gkd.h"
#include "qkv/train/recipes/grpo.h"
#include "qkv/train/recipes/online_dpo.h"
#include "qkv/train/recipes/ppo.h"

namespace qkv {
namespace {

std::vector<Prompt> read_all(const std::vector<std::string>& files, int64_t limit) {
  std::vector<Prompt> prompts;
  for (const std::string& path : files) {
    std::vector<Prompt> more = read_prompts(path, limit);
    log_info("{}: {} prompts", path, more.size());
    prompts.insert(prompts.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  return prompts;
}

OnPolicyConfig on_policy_config(const ReinforceSettings& s) {
  OnPolicyConfig config;
  config.tune = s.tune_config();
  config.tune.batch_tokens = s.score_tokens;
  config.rollout.max_new_tokens = s.max_new_tokens;
  config.rollout.temperature = s.rollout_temperature;
  config.rollout.top_p = s.top_p;
  config.rollout.top_k = s.top_k;
  config.rollout.seed = static_cast<uint64_t>(s.seed);
  config.rollout.compute_type = config.tune.compute_type;
  config.rollout.at_a_time = s.at_a_time;
  config.rollout.stop = s.stop;
  config.prompts = s.prompts;
  config.group = s.group;
  config.minibatches = s.minibatches;
  config.iterations = s.iterations;
  config.accumulation = s.accumulation;
  config.missing_end_penalty = s.missing_end_penalty;
  if (s.dynamic_sampling) config.sampling_rounds = s.sampling_rounds;
  return config;
}

GrpoConfig grpo_config(const ReinforceSettings& s) {
  GrpoConfig config;
  config.leave_one_out = s.method == ReinforceKind::rloo;
  // The loop normalizes over the whole step, which is DAPO's way; bnpo is the same there.
  config.loss.normalization =
      losses::token_normalization_from_name(s.loss_type == "dapo" ? "bnpo" : s.loss_type);
  config.loss.beta = s.kl_beta;
  config.loss.clip_low = config.clip = s.clip_low;
  config.loss.clip_high = s.clip_high;
  if (s.clip_delta > 0) config.loss.delta = s.clip_delta;
  config.scale = s.scale_rewards;
  config.mask_truncated = s.mask_truncated;
  return config;
}

PpoConfig ppo_config(const ReinforceSettings& s) {
  PpoConfig config;
  config.clip = s.clip_low;
  config.value_clip = s.value_clip;
  config.value_coefficient = s.value_coefficient;
  config.entropy_coefficient = s.entropy_coefficient;
  config.kl_coefficient = s.kl_coefficient;
  config.kl_target = s.kl_target;
  config.kl_horizon = s.kl_horizon;
  config.gae.gamma = s.gamma;
  config.gae.lambda = s.lambda;
  config.gae.whiten_rewards = s.whiten_rewards;
  return config;
}

losses::DpoOptions dpo_options(const ReinforceSettings& s) {
  losses::DpoOptions options;
  options.loss = losses::preference_loss_from_name(s.loss);
  options.beta = s.beta;
  options.label_smoothing = s.label_smoothing;
  options.divergence = losses::divergence_from_name(s.divergence);
  options.alpha = s.divergence_alpha;
  options.reference_free = s.reference_free;
  return options;
}

losses::DistillationOptions distillation_options(const ReinforceSettings& s) {
  losses::DistillationOptions options;
  if (s.distillation == "reverse") options.kind = losses::DistillationKind::reverse;
  if (s.distillation == "js") options.kind = losses::DistillationKind::js;
  options.temperature = s.temperature;
  options.beta = s.distillation_beta;
  return options;
}

// `other`: the frozen copy of the model, or gkd's teacher.
std::unique_ptr<OnPolicy> make_recipe(const ReinforceSettings& s, OnPolicy::Parts parts, const Model* other) {
  if (s.method != ReinforceKind::gkd) parts.reference = other;
  OnPolicyConfig config = on_policy_config(s);
  config.rollout.stop_ids = answer_ends(parts.tokenizer);
  if (s.method == ReinforceKind::ppo) return std::make_unique<Ppo>(std::move(parts), config, ppo_config(s));
  if (s.method == ReinforceKind::online_dpo)
    return std::make_unique<OnlineDpo>(std::move(parts), config, dpo_options(s));
  if (s.method == ReinforceKind::gkd)
    return std::make_unique<Gkd>(std::move(parts), config, *other, distillation_options(s));
  return std::make_unique<Grpo>(std::move(parts), config, grpo_config(s));
}

bool needs_reference(const ReinforceSettings& s) {
  return s.method == ReinforceKind::ppo || s.method == ReinforceKind::online_dpo || s.kl_beta != 0;
}

// Steps that make the wanted number of epochs.
int64_t steps_of(const ReinforceSettings& s, double prompts) {
  const double generations = std::ceil(s.epochs * prompts / static_cast<double>(s.prompts));
  return std::max<int64_t>(1, static_cast<int64_t>(generations)) * s.minibatches * s.iterations;
}

}  // namespace

ReinforceSettings::ReinforceSettings(ReinforceKind kind_of_run) : method(kind_of_run) {
  optimizer.lr = 1e-4;
  schedule = "constant";
  log_interval = 1;
  eval_interval = 0;
  checkpoint_interval = 50;
  if (method == ReinforceKind::ppo) {
    prompts = 64;
    group = 1;
    minibatches = 4;
    iterations = 4;
  }
  if (method == ReinforceKind::online_dpo) {
    prompts = 32;
    group = 2;
  }
  if (method == ReinforceKind::gkd) {
    prompts = 32;
    group = 1;
  }
  if (method == ReinforceKind::rloo) {
    prompts = 16;
    group = 4;
    kl_beta = 0.05;
  }
}

void ReinforceSettings::bind(ConfigTable& t) {
  t.bind("data.train", &train_files,
         "JSON lines with a prompt (a text or messages) and what rewards read of it");
  t.bind("data.valid", &valid_files, "held-out prompts, answered and scored at evaluations");
  t.bind("data.chat", &chat,
         "prompts that are texts become turns of a chat; auto: if the model has a chat template",
         {"auto", "yes", "no"});
  t.bind("data.max_prompt_length", &max_prompt_length,
         "tokens of a prompt, longer ones are left out; 0: what the answer leaves of the context", 0,
         1 << 24);
  t.bind("data.eval_prompts", &eval_prompts, "held-out prompts at most, spread over each file; 0: all", 0,
         1e9);
  t.bind("rewards", &rewards,
         "[WEIGHT*][steps:]KIND[=ARGUMENT], kinds exact, regex, json, length, overlong, model, program; "
         "--reward "
         "TEXT adds one");
  t.bind("reward.program_timeout", &reward_options.program_timeout, "seconds for one call of a program",
         0.001, 1e6);
  t.bind("reward.step_separator", &reward_options.step_separator, "text that ends a step of an answer");
  t.bind("reward.ensemble", &reward_options.ensemble, "what the scores of several reward models become",
         {"mean", "min", "uncertainty"});
  t.bind("reward.ensemble_penalty", &reward_options.ensemble_penalty,
         "uncertainty: mean less this times the variance", 0, 1e6);
  t.bind("reward.missing_end_penalty", &missing_end_penalty,
         "taken from the score of an answer that was cut off", 0, 1e6);
  t.bind("rollout.prompts", &prompts, "prompts of one generation", 1, 1 << 20);
  t.bind("rollout.group", &group, "answers to each", 1, 1 << 16);
  t.bind("rollout.max_new_tokens", &max_new_tokens, "tokens of an answer", 1, 1 << 24);
  t.bind("rollout.temperature", &rollout_temperature, "of sampling; the losses see the same distribution",
         0.01, 100);
  t.bind("rollout.top_p", &top_p, "keep the likeliest tokens until their probability reaches this", 0.0001,
         1);
  t.bind("rollout.top_k", &top_k, "keep the k likeliest tokens; 0: all", 0, 1 << 24);
  t.bind("rollout.stop", &stop, "texts that end an answer");
  t.bind("rollout.at_a_time", &at_a_time, "answers generated together", 1, 1 << 16);
  t.bind("rollout.score_tokens", &score_tokens, "tokens per forward that only scores answers", 1, 1 << 24);
  t.bind("update.minibatches", &minibatches, "optimizer steps for one pass over a generation", 1, 1 << 16);
  t.bind("update.iterations", &iterations, "passes over a generation", 1, 1 << 16);
  switch (method) {
    case ReinforceKind::grpo:
      t.bind("grpo.loss_type", &loss_type,
             "how token losses become one: mean of answers' means, of all tokens of a step (dapo, bnpo), or "
             "over a "
             "fixed length",
             {"grpo", "bnpo", "dapo", "dr_grpo"});
      t.bind("grpo.beta", &kl_beta, "of the divergence from the reference; 0: none is needed", 0, 1e3);
      t.bind("grpo.clip_low", &clip_low, "ratios of probabilities count down to 1 - this", 0, 1);
      t.bind("grpo.clip_high", &clip_high, "ratios count up to 1 + this", 0, 100);
      t.bind("grpo.clip_delta", &clip_delta,
             "two-sided clipping: ratios of bad answers count up to this; 0: without a limit", 0, 1e6);
      t.bind("grpo.scale_rewards", &scale_rewards,
             "what rewards, less their group's mean, are divided by: the deviation of the group, of the "
             "generation, "
             "or nothing",
             {"group", "batch", "none"});
      t.bind("grpo.mask_truncated", &mask_truncated, "answers that were cut off are not learned from");
      t.bind("grpo.dynamic_sampling", &dynamic_sampling,
             "prompts whose answers all score alike are replaced by others");
      t.bind("grpo.sampling_rounds", &sampling_rounds, "rounds of that at most", 1, 64);
      break;
    case ReinforceKind::rloo:
      t.bind("rloo.beta", &kl_beta, "of the divergence from the reference, taken from rewards", 0, 1e3);
      t.bind("rloo.clip", &clip_low, "ratios of an answer's probabilities count from 1 - this to 1 + this", 0,
             100);
      break;
    case ReinforceKind::ppo:
      t.bind("ppo.clip", &clip_low, "ratios of probabilities count from 1 - this to 1 + this", 0, 100);
      t.bind("ppo.value_clip", &value_clip, "a value moves so far at most", 0, 1e9);
      t.bind("ppo.value_coefficient", &value_coefficient, "of the value loss", 0, 1e3);
      t.bind("ppo.entropy_coefficient", &entropy_coefficient, "of a bonus for entropy", 0, 1e3);
      t.bind("ppo.kl_coefficient", &kl_coefficient,
             "of the divergence from the reference, taken from rewards", 0, 1e3);
      t.bind("ppo.kl_target", &kl_target, "nats per answer that the coefficient adapts to; 0: it stays", 0,
             1e6);
      t.bind("ppo.kl_horizon", &kl_horizon, "answers in which it adapts", 1, 1e12);
      t.bind("ppo.gamma", &gamma, "discount of rewards per token", 0, 1);
      t.bind("ppo.lambda", &lambda, "of generalized advantage estimation", 0, 1);
      t.bind("ppo.whiten_rewards", &whiten_rewards, "rewards of all tokens are brought to unit variance");
      break;
    case ReinforceKind::online_dpo:
      t.bind("dpo.loss", &loss, "the loss of a pair", losses::preference_loss_names());
      t.bind("dpo.beta", &beta, "how strongly the policy is held to the reference", 1e-6, 1e3);
      t.bind("dpo.label_smoothing", &label_smoothing, "the probability that a label is wrong", 0, 0.999999);
      t.bind("dpo.divergence", &divergence, "what holds the policy to the reference",
             losses::divergence_names());
      t.bind("dpo.divergence_alpha", &divergence_alpha, "alpha of the alpha divergence", -100, 100);
      t.bind("dpo.reference_free", &reference_free, "a uniform reference");
      break;
    case ReinforceKind::gkd:
      t.bind("gkd.teacher", &teacher, "the model whose distribution is learned");
      t.bind("gkd.divergence", &distillation, "of the student's distribution from the teacher's",
             {"forward", "reverse", "js"});
      t.bind("gkd.beta", &distillation_beta, "js: 0 is near forward, 1 near reverse", 0.000001, 0.999999);
      t.bind("gkd.temperature", &temperature, "of both distributions", 0.01, 100);
      break;
  }
  bind_training(t);
}

TrainResult run_reinforcement(ReinforceSettings s) {
  if (s.dtype == "auto") s.dtype = bf16_products_are_native() ? "bf16" : "f32";
  ConfigTable table;
  s.bind(table);
  const std::string checkpoint = checkpoint_to_resume(s);
  const bool taught = s.method == ReinforceKind::gkd;
  require(taught == !s.teacher.empty(), "gkd.teacher: expected a model, found none");
  const Rewards rewards = taught && s.rewards.empty() ? Rewards() : Rewards(s.rewards, s.reward_options);

  LoadOptions load;
  load.residence = s.with_adapter() ? Residence::inference : Residence::trainable;
  Bundle bundle = load_bundle(s.model, load);
  const bool chat = s.chat == "yes" || (s.chat == "auto" && bundle.tokenizer->chat_template().has_value());
  std::vector<Prompt> train = read_all(s.train_files, 0), valid = read_all(s.valid_files, s.eval_prompts);
  if (chat || train[0].said.is_chat()) give_template(bundle);
  const int64_t positions = bundle.model->info().max_positions;
  require(s.max_new_tokens < positions,
          "rollout.max_new_tokens: expected fewer than the model's {} positions, found {}", positions,
          s.max_new_tokens);
  const int64_t room = positions - s.max_new_tokens;
  const int64_t longest = s.max_prompt_length > 0 ? std::min(s.max_prompt_length, room) : room;
  for (std::vector<Prompt>* prompts : {&train, &valid}) {
    if (prompts->empty()) continue;
    const int64_t dropped = tokenize_prompts(*prompts, *bundle.tokenizer, chat, longest);
    if (dropped > 0) log_warning("data: {} prompts of more than {} tokens are left out", dropped, longest);
  }
  if (s.steps == 0) s.steps = steps_of(s, static_cast<double>(train.size()));

  Json resolved = table.resolved();
  resolved["model"] = s.model;
  resolved["threads"] = num_threads();
  require_same_run(s, checkpoint, resolved);

  Adapter* adapter = prepare_training(bundle, s);
  Bundle other;
  if (adapter == nullptr && needs_reference(s)) other = load_bundle(s.model);
  if (taught) other = load_bundle(s.teacher);
  const std::unique_ptr<OnPolicy> recipe = make_recipe(
      s, {*bundle.model, adapter, nullptr, *bundle.tokenizer, rewards, std::move(train), std::move(valid)},
      other.model.get());
  return run_recipe(s, bundle, *recipe, resolved);
}

}  // namespace qkv
