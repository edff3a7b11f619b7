// Fine-tuning recipes: resumed runs end with the same bits, packing and accumulation change nothing,
// preferences are learned.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/rng.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/recipes/dpo.h"
#include "qkv/train/recipes/sft.h"
#include "qkv/train/trainer.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

constexpr const char* kLlama =
    R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 40, "max_position_embeddings": 64})";

Bundle small_bundle(bool adapted) {
  Bundle bundle;
  bundle.model = make_model(parse_json(kLlama, "test"), "test");
  initialize_weights(*bundle.model, 1, 0.1f);
  bundle.model->set_trainable(!adapted);
  if (adapted) {
    AdapterConfig config;
    config.rank = 4;
    config.targets = {"all-linear"};
    config.dropout = 0.1;
    bundle.adapters.push_back(Adapter::create(*bundle.model, config, 7));
  }
  return bundle;
}

Adapter* adapter_of(const Bundle& bundle) {
  return bundle.adapters.empty() ? nullptr : bundle.adapters[0].get();
}

// A prompt of three tokens and an answer that repeats one of them, or with `other` a fixed one.
TokenSample sample_of(uint64_t index, bool other) {
  Rng rng(3, index);
  TokenSample sample;
  for (int i = 0; i < 3; ++i) sample.tokens.push_back(static_cast<int32_t>(2 + rng.below(30)));
  const int32_t said = other ? 35 : sample.tokens[1];
  for (uint64_t i = 0; i < 2 + index % 4; ++i) sample.tokens.push_back(said);
  sample.tokens.push_back(1);
  sample.learned.assign(sample.tokens.size(), 1);
  std::fill_n(sample.learned.begin(), 3, 0);
  return sample;
}

std::vector<TokenSample> samples_of(size_t n, uint64_t first = 0) {
  std::vector<TokenSample> samples;
  for (size_t i = 0; i < n; ++i) samples.push_back(sample_of(first + i, false));
  return samples;
}

std::vector<PreferencePair> pairs_of(size_t n, uint64_t first = 0) {
  std::vector<PreferencePair> pairs;
  for (size_t i = 0; i < n; ++i) pairs.push_back({sample_of(first + i, false), sample_of(first + i, true)});
  return pairs;
}

std::unique_ptr<Recipe> make_recipe(const Bundle& bundle, bool dpo) {
  TuneConfig config;
  config.batch_tokens = 40;
  config.dropout = 0.05f;
  config.seed = 5;
  if (dpo)
    return std::make_unique<Dpo>(*bundle.model, adapter_of(bundle), pairs_of(30), pairs_of(10, 100), 6,
                                 losses::DpoOptions{}, config);
  return std::make_unique<Sft>(*bundle.model, adapter_of(bundle), samples_of(40), samples_of(10, 100),
                               config);
}

TrainerConfig trainer_config(int64_t steps) {
  TrainerConfig config;
  config.steps = steps;
  config.optimizer.lr = 1e-2;
  config.optimizer.kind = "adamw";
  config.schedule.kind = "constant";
  config.schedule.total_steps = 8;
  config.accumulation = 2;
  config.eval_interval = 0;
  return config;
}

std::vector<std::vector<float>> trained_values(Bundle& bundle) {
  std::vector<std::vector<float>> values;
  const auto add = [&](const std::string&, Tensor& tensor) { values.push_back(tensor.to_floats()); };
  if (bundle.adapters.empty()) {
    bundle.model->visit("", add);
  } else {
    bundle.adapters[0]->visit("", add);
  }
  return values;
}

class Tuning : public testing::TestWithParam<std::tuple<bool, bool>> {};  // dpo, adapted

TEST_P(Tuning, AResumedRunEndsWithTheSameBits) {
  const auto [dpo, adapted] = GetParam();
  test::TemporaryDirectory whole, halves;
  Bundle straight = small_bundle(adapted);
  {
    const auto recipe = make_recipe(straight, dpo);
    Trainer(straight, *recipe, trainer_config(8), whole.path(), Json::object()).run();
  }
  {
    Bundle first = small_bundle(adapted);
    const auto recipe = make_recipe(first, dpo);
    Trainer(first, *recipe, trainer_config(4), halves.path(), Json::object()).run();
  }
  Bundle second = small_bundle(adapted);
  const auto recipe = make_recipe(second, dpo);
  Trainer trainer(second, *recipe, trainer_config(8), halves.path(), Json::object());
  ASSERT_TRUE(trainer.resume());
  trainer.run();
  EXPECT_EQ(trained_values(straight), trained_values(second));
  const std::string result = adapted ? "/adapter/adapter_model.safetensors" : "/model/model.safetensors";
  EXPECT_TRUE(std::filesystem::exists(whole.path() + result));
}

INSTANTIATE_TEST_SUITE_P(Recipes, Tuning, testing::Combine(testing::Bool(), testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param) ? "dpo" : "sft") +
                                  (std::get<1>(info.param) ? "_lora" : "_full");
                         });

// Gradients of one optimizer step, however its samples are spread over forwards.
std::vector<std::vector<float>> gradients(int64_t batch_tokens, int forwards) {
  Bundle bundle = small_bundle(true);
  bundle.adapters[0]->control().scale = 1;
  TuneConfig config;
  config.batch_tokens = batch_tokens;
  Sft recipe(*bundle.model, nullptr, samples_of(12), {}, config);
  std::vector<std::unique_ptr<MicroBatch>> batches;
  double counted = 0;
  for (int i = 0; i < forwards; ++i) {
    batches.push_back(recipe.next());
    counted += batches.back()->counted;
  }
  for (const auto& batch : batches)
    backward(recipe.loss(*batch, 0), Tensor::full({1}, static_cast<float>(1 / counted)));
  std::vector<std::vector<float>> result;
  bundle.adapters[0]->visit(
      "", [&](const std::string&, Tensor& tensor) { result.push_back(tensor.grad().to_floats()); });
  return result;
}

TEST(SupervisedTuning, PackingAndAccumulationChangeNothing) {
  const auto together = gradients(100000, 1), apart = gradients(1, 12);
  ASSERT_EQ(together.size(), apart.size());
  for (size_t i = 0; i < together.size(); ++i) {
    float largest = 1e-6f;
    for (float x : together[i]) largest = std::max(largest, std::abs(x));
    for (size_t j = 0; j < together[i].size(); ++j) EXPECT_NEAR(together[i][j], apart[i][j], 1e-4f * largest);
  }
}

TEST(SupervisedTuning, OnlyTheAdapterIsTrained) {
  test::TemporaryDirectory directory;
  Bundle bundle = small_bundle(true);
  std::vector<std::vector<float>> before, after;
  bundle.model->visit("", [&](const std::string&, Tensor& tensor) { before.push_back(tensor.to_floats()); });
  const auto recipe = make_recipe(bundle, false);
  const double loss = recipe->evaluate().loss;
  TrainerConfig config = trainer_config(40);
  Trainer(bundle, *recipe, config, directory.path(), Json::object()).run();
  bundle.model->visit("", [&](const std::string&, Tensor& tensor) { after.push_back(tensor.to_floats()); });
  EXPECT_EQ(before, after);
  EXPECT_LT(recipe->evaluate().loss, 0.9 * loss);
}

TEST(PreferenceTuning, TheChosenAnswersAreRewardedMore) {
  for (bool adapted : {false, true}) {
    test::TemporaryDirectory directory;
    Bundle bundle = small_bundle(adapted);
    const auto recipe = make_recipe(bundle, true);
    // At the start the policy is the reference.
    EXPECT_NEAR(recipe->evaluate().loss, std::log(2.0), 1e-5);
    TrainerConfig config = trainer_config(30);
    config.optimizer.lr = adapted ? 1e-2 : 2e-3;
    Trainer(bundle, *recipe, config, directory.path(), Json::object()).run();
    EXPECT_LT(recipe->evaluate().loss, 0.5 * std::log(2.0));
    EXPECT_GE(static_cast<const Dpo&>(*recipe).valid_accuracy(), 0.9);
  }
}

}  // namespace
}  // namespace qkv
