// On-policy recipes: rewards rise, resumed runs end with the same bits, advantages are those of plain
// formulas.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "qkv/train/recipes/grpo.h"
#include "qkv/train/recipes/online_dpo.h"
#include "qkv/train/recipes/ppo.h"
#include "qkv/train/trainer.h"
#include "tests/engine/engine_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

enum class Method { grpo, rloo, ppo, online_dpo };

const test::ByteTokenizer& tokenizer() {
  static const test::ByteTokenizer instance;
  return instance;
}

std::vector<Prompt> letters(const std::string& which) {
  std::string lines;
  for (const char letter : which) lines += std::string("{\"prompt\": \"") + letter + letter + "\"}\n";
  std::vector<Prompt> prompts = parse_prompts(lines, "letters");
  tokenize_prompts(prompts, tokenizer(), false, 90);
  return prompts;
}

// A small model, with all its parameters trained or an adapter; the reference of the former is a copy.
struct Toy {
  Bundle bundle;
  std::unique_ptr<Model> reference = test::small_llama();
  Rewards rewards{{"regex=^[A-Z]"}, {}};

  explicit Toy(bool adapted) {
    bundle.model = test::small_llama();
    bundle.model->set_trainable(!adapted);
    if (!adapted) return;
    AdapterConfig config;
    config.rank = 4;
    config.targets = {"all-linear"};
    config.dropout = 0.1;
    bundle.adapters.push_back(Adapter::create(*bundle.model, config, 7));
  }
  Adapter* adapter() const { return bundle.adapters.empty() ? nullptr : bundle.adapters[0].get(); }
  OnPolicy::Parts parts() const {
    return {*bundle.model,
            adapter(),
            reference.get(),
            tokenizer(),
            rewards,
            letters("abcdefgh"),
            letters("abcdefghabcdefgh")};
  }
};

OnPolicyConfig config_of(int64_t group) {
  OnPolicyConfig config;
  config.tune.seed = 5;
  config.tune.batch_tokens = 64;
  config.rollout.max_new_tokens = 3;
  config.rollout.seed = 5;
  config.prompts = 8;
  config.group = group;
  config.accumulation = 2;
  return config;
}

std::unique_ptr<OnPolicy> make_recipe(const Toy& toy, Method method, OnPolicyConfig config) {
  if (method == Method::ppo) {
    PpoConfig ppo;
    ppo.kl_target = 1;
    ppo.kl_horizon = 100;
    ppo.entropy_coefficient = 0.001;
    return std::make_unique<Ppo>(toy.parts(), config, ppo);
  }
  if (method == Method::online_dpo)
    return std::make_unique<OnlineDpo>(toy.parts(), config, losses::DpoOptions{});
  GrpoConfig grpo;
  grpo.leave_one_out = method == Method::rloo;
  grpo.loss.beta = 0.02;
  grpo.loss.normalization = losses::TokenNormalization::bnpo;
  return std::make_unique<Grpo>(toy.parts(), config, grpo);
}

TrainerConfig trainer_config(int64_t steps, double lr) {
  TrainerConfig config;
  config.steps = steps;
  config.optimizer.lr = lr;
  config.optimizer.beta2 = 0.99;
  config.optimizer.weight_decay = 0;
  config.schedule.kind = "constant";
  config.schedule.total_steps = 100;
  config.accumulation = 2;
  config.eval_interval = 0;
  return config;
}

std::vector<std::vector<float>> trained_values(Toy& toy, Recipe& recipe) {
  std::vector<std::vector<float>> values;
  const auto add = [&](const std::string&, Tensor& tensor) { values.push_back(tensor.to_floats()); };
  if (toy.adapter() == nullptr) {
    toy.bundle.model->visit("", add);
  } else {
    toy.adapter()->visit("", add);
  }
  if (recipe.own_parameters() != nullptr) recipe.own_parameters()->visit("", add);
  return values;
}

const char* name_of(Method method) {
  constexpr const char* kNames[] = {"grpo", "rloo", "ppo", "online_dpo"};
  return kNames[static_cast<int>(method)];
}

class Reinforcement : public testing::TestWithParam<std::tuple<Method, bool>> {};

// Stopped in the middle of a generation: what was sampled with the weights of then is kept.
TEST_P(Reinforcement, AResumedRunEndsWithTheSameBits) {
  const auto [method, adapted] = GetParam();
  OnPolicyConfig config = config_of(2);
  config.minibatches = 2;
  config.iterations = 2;
  test::TemporaryDirectory whole, halves;
  Toy straight(adapted), first(adapted), second(adapted);
  const auto straight_recipe = make_recipe(straight, method, config);
  Trainer(straight.bundle, *straight_recipe, trainer_config(9, 3e-3), whole.path(), Json::object()).run();
  {
    const auto recipe = make_recipe(first, method, config);
    Trainer(first.bundle, *recipe, trainer_config(6, 3e-3), halves.path(), Json::object()).run();
  }
  const auto recipe = make_recipe(second, method, config);
  Trainer trainer(second.bundle, *recipe, trainer_config(9, 3e-3), halves.path(), Json::object());
  ASSERT_TRUE(trainer.resume());
  trainer.run();
  EXPECT_EQ(trained_values(straight, *straight_recipe), trained_values(second, *recipe));
  EXPECT_NE(trained_values(first, *recipe), trained_values(second, *recipe));
}

// A bandit: answers that begin with a capital letter are rewarded, of 257 tokens 26 do.
TEST_P(Reinforcement, RewardsRise) {
  const auto [method, adapted] = GetParam();
  test::TemporaryDirectory directory;
  Toy toy(adapted);
  OnPolicyConfig config = config_of(method == Method::ppo ? 4 : 8);
  config.rollout.max_new_tokens = 1;
  config.iterations = 2;
  const auto recipe = make_recipe(toy, method, config);
  recipe->evaluate();
  const double before = recipe->valid_score();
  Trainer(toy.bundle, *recipe, trainer_config(40, adapted ? 2e-2 : 5e-3), directory.path(), Json::object())
      .run();
  EXPECT_LT(before, 0.3);
  EXPECT_GE(recipe->valid_score(), 0.6) << "before: " << before;
}

INSTANTIATE_TEST_SUITE_P(Methods, Reinforcement,
                         testing::Combine(testing::Values(Method::grpo, Method::rloo, Method::ppo,
                                                          Method::online_dpo),
                                          testing::Bool()),
                         [](const auto& info) {
                           return std::string(name_of(std::get<0>(info.param))) +
                                  (std::get<1>(info.param) ? "_lora" : "_full");
                         });

TEST(Rollouts, TrainingSeesWhatTheSamplerSaw) {
  const Toy toy(true);
  const std::vector<Prompt> prompts = letters("abc");
  RolloutOptions options;
  options.max_new_tokens = 12;
  const auto sample = [&](uint64_t stream) {
    return sample_rollouts(*toy.bundle.model, tokenizer(),
                           {&prompts[0].tokens, &prompts[1].tokens, &prompts[2].tokens}, 4, options, stream);
  };
  std::vector<Rollout> rollouts = sample(1);
  ASSERT_EQ(rollouts.size(), 12u);
  EXPECT_EQ(rollouts[5].prompt, 1u);
  Metrics metrics;
  score_rollouts(*toy.bundle.model, rollouts, 1, DType::f32, 50, &metrics);
  score_reference(*toy.bundle.model, toy.adapter(), rollouts, 1, DType::f32, 1000);
  for (const Rollout& rollout : rollouts) {
    ASSERT_EQ(rollout.log_probs.size(), rollout.tokens.size());
    for (size_t t = 0; t < rollout.tokens.size(); ++t) {
      // Both in f32, summed in other orders.
      EXPECT_NEAR(rollout.log_probs[t], rollout.sampled[t], 2e-4);
      EXPECT_NEAR(rollout.log_probs[t], rollout.reference[t], 2e-4);
    }
  }
  const auto means = metrics.means();
  EXPECT_NEAR(means.at("sampling/importance_sampling_ratio/mean"), 1, 1e-4);
  EXPECT_LT(means.at("sampling/sampling_logp_difference/max"), 2e-4);
  EXPECT_GT(means.at("entropy"), 0);
  EXPECT_LT(means.at("entropy"), std::log(257.0));
  // The same stream draws the same, another one something else.
  EXPECT_EQ(sample(1)[7].tokens, rollouts[7].tokens);
  EXPECT_NE(sample(2)[7].tokens, rollouts[7].tokens);

  const Rollout back = rollout_from_json(parse_json(dump_json(to_json(rollouts[3])), "test"), "test");
  EXPECT_EQ(back.log_probs, rollouts[3].log_probs);
  EXPECT_EQ(back.tokens, rollouts[3].tokens);
  EXPECT_EQ(back.text, rollouts[3].text);
  EXPECT_NE(
      test::error_of([] { rollout_from_json(Json::object(), "state"); }).find("state: expected a rollout"),
      std::string::npos);
}

TEST(Rollouts, TheTemperatureIsThatOfTheLoss) {
  const Toy toy(false);
  std::vector<Rollout> rollouts(1);
  rollouts[0].prompt_tokens = test::bytes("ab");
  rollouts[0].tokens = test::bytes("cd");
  score_rollouts(*toy.bundle.model, rollouts, 0.5, DType::f32, 100, nullptr);
  const Batch batch = rollout_batch(rollouts);
  const NoGrad off;
  const AnswerRows rows = answer_rows(*toy.bundle.model, batch, batch.pass);
  const std::vector<float> logits = toy.bundle.model->logits(rows.hidden).to_floats();
  for (size_t t = 0; t < 2; ++t) {
    double total = 0;
    for (size_t v = 0; v < 257; ++v) total += std::exp(2.0 * static_cast<double>(logits[t * 257 + v]));
    const auto token = static_cast<size_t>(rollouts[0].tokens[t]);
    EXPECT_NEAR(rollouts[0].log_probs[t],
                2.0 * static_cast<double>(logits[t * 257 + token]) - std::log(total), 1e-4);
  }
}

struct ExposedGrpo : Grpo {
  using Grpo::count;
  using Grpo::Grpo;
  using Grpo::prepare;
};
struct ExposedPpo : Ppo {
  using Ppo::Ppo;
  using Ppo::prepare;
};

std::vector<Rollout> scored(const std::vector<double>& scores) {
  std::vector<Rollout> rollouts;
  for (const double score : scores) {
    Rollout rollout;
    rollout.tokens = {1, 2};
    rollout.log_probs = {-1, -2};
    rollout.reference = {-1.5f, -2.25f};
    rollout.score = score;
    rollout.ended = score != 9;
    rollouts.push_back(rollout);
  }
  return rollouts;
}

TEST(GroupRelative, Advantages) {
  const Toy toy(true);
  OnPolicyConfig config = config_of(2);
  const auto advantages = [&](GrpoConfig grpo, const std::vector<double>& scores) {
    std::vector<double> result;
    for (const Rollout& rollout : ExposedGrpo(toy.parts(), config, grpo).prepare(scored(scores)))
      result.push_back(rollout.advantage);
    return result;
  };
  const auto near = [](const std::vector<double>& found, const std::vector<double>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-12);
  };
  const double deviation = std::sqrt(0.5) + 1e-4;
  GrpoConfig plain, whole_batch, masked, left_out, by_token;
  plain.scale = masked.scale = "none";
  whole_batch.scale = "batch";
  masked.mask_truncated = true;
  left_out.loss.beta = 0.1;
  left_out.leave_one_out = true;
  by_token.loss.normalization = losses::TokenNormalization::bnpo;
  near(advantages({}, {1, 0, 3, 3}), {0.5 / deviation, -0.5 / deviation, 0, 0});
  near(advantages(plain, {1, 0, 3, 3}), {0.5, -0.5, 0, 0});
  const double whole = std::sqrt((0.5625 + 3.0625 + 1.5625 + 1.5625) / 3) + 1e-4;
  near(advantages(whole_batch, {1, 0, 3, 3}), {0.5 / whole, -0.5 / whole, 0, 0});
  near(advantages(masked, {1, 0, 9, 3}), {0.5, -0.5, -3});
  // RLOO: the other's score is the baseline; each answer's divergence, 0.75, is the same here.
  near(advantages(left_out, {1, 0, 3, 5}), {1, -1, -2, 2});
  EXPECT_EQ(ExposedGrpo(toy.parts(), config, {}).count(scored({1, 2})), 2);
  EXPECT_EQ(ExposedGrpo(toy.parts(), config, by_token).count(scored({1, 2})), 4);
}

// A[t] = sum over k of (gamma lambda)^k d[t + k], written out.
TEST(Ppo, AdvantagesOfStepAndFinalRewards) {
  const Toy toy(true);
  PpoConfig ppo;
  ppo.kl_coefficient = 0.2;
  ppo.gae.gamma = 0.9;
  ppo.gae.lambda = 0.8;
  std::vector<Rollout> rollouts(2);
  rollouts[0].tokens = {1, 2, 3};
  rollouts[0].log_probs = {-1, -2, -0.5f};
  rollouts[0].reference = {-1.5f, -1.5f, -0.5f};
  rollouts[0].values = {0.1f, 0.3f, -0.2f};
  rollouts[0].score = 2;
  rollouts[0].step_scores = {{1, 0.5}, {2, -1}};
  rollouts[1].tokens = {4};
  rollouts[1].log_probs = {-1};
  rollouts[1].reference = {-3};
  rollouts[1].values = {0.7f};
  rollouts[1].score = 1;
  const std::vector<std::vector<double>> rewards = {{-0.1, 0.1 + 0.5, 0 + 2 - 1}, {-0.4 + 1}};
  ExposedPpo recipe(toy.parts(), config_of(1), ppo);
  const std::vector<Rollout> prepared = recipe.prepare(rollouts);
  std::vector<double> raw, found;
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<float>& values = rollouts[i].values;
    const size_t n = values.size();
    for (size_t t = 0; t < n; ++t) {
      double advantage = 0;
      for (size_t k = t; k < n; ++k) {
        const double next = k + 1 < n ? static_cast<double>(values[k + 1]) : 0;
        const double delta = rewards[i][k] + 0.9 * next - static_cast<double>(values[k]);
        advantage += std::pow(0.9 * 0.8, static_cast<double>(k - t)) * delta;
      }
      raw.push_back(advantage);
      found.push_back(static_cast<double>(prepared[i].advantages[t]));
      EXPECT_NEAR(prepared[i].returns[t], advantage + static_cast<double>(values[t]), 1e-5);
    }
  }
  const double mean = std::accumulate(raw.begin(), raw.end(), 0.0) / 4;
  double variance = 0;
  for (const double a : raw) variance += (a - mean) * (a - mean) / 3;
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(found[i], (raw[i] - mean) / std::sqrt(variance + 1e-8), 1e-4);
}

TEST(Ppo, TheCoefficientFollowsItsTarget) {
  KlController fixed(0.1, 0, 100), adaptive(0.1, 2, 100);
  fixed.update(50, 10);
  EXPECT_EQ(fixed.coefficient(), 0.1);
  adaptive.update(50, 10);  // far above: at most 0.2 times the answers' share of the horizon
  EXPECT_DOUBLE_EQ(adaptive.coefficient(), 0.1 * (1 + 0.2 * 0.1));
  adaptive.set(0.1);
  adaptive.update(1.9, 20);
  EXPECT_DOUBLE_EQ(adaptive.coefficient(), 0.1 * (1 + (1.9 / 2 - 1) * 0.2));
}

TEST(GroupRelative, PromptsThatTeachNothingAreReplaced) {
  Toy toy(true);
  toy.rewards = Rewards({"regex=^$"}, {});  // hardly ever
  OnPolicyConfig config = config_of(2);
  config.sampling_rounds = 3;
  config.rollout.max_new_tokens = 2;
  GrpoConfig grpo;
  Grpo recipe(toy.parts(), config, grpo);
  double items = 0;
  for (int i = 0; i < 2; ++i) items += recipe.next()->counted;
  // Whatever is left has answers that differ; the rest of the step is empty and its loss 0.
  const auto metrics = recipe.take_metrics();
  EXPECT_LE(items, 16);
  EXPECT_NEAR(items, 3 * 8 * 2 * (1 - metrics.at("frac_reward_zero_std")), 1e-9);
}

}  // namespace
}  // namespace qkv
