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
#include "tests/train/tuning_support.h"

namespace qkv {
namespace {

using namespace test;

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
