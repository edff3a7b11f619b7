// KTO, ORPO, CPO, SimPO, reward models and distillation: their losses have the gradients of their formulas,
// runs resume to the bit, what is preferred is learned.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "qkv/core/atomic_file.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/train/answers.h"
#include "qkv/train/recipes/cpo.h"
#include "qkv/train/recipes/distill.h"
#include "qkv/train/recipes/dpo.h"
#include "qkv/train/recipes/orpo.h"
#include "qkv/train/recipes/reward.h"
#include "tests/support/test_paths.h"
#include "tests/train/tuning_support.h"

namespace qkv {
namespace {

using namespace test;

constexpr const char* kKinds[] = {"dpo_bco_pair", "kto", "bco", "orpo", "cpo", "simpo", "reward", "distill"};

TuneConfig tune_config(float dropout = 0) {
  TuneConfig config;
  config.batch_tokens = 40;
  config.dropout = dropout;
  config.seed = 5;
  return config;
}

std::unique_ptr<Recipe> recipe_of(const std::string& kind, const Bundle& bundle, const Model& teacher,
                                  const TuneConfig& config) {
  const Model& model = *bundle.model;
  Adapter* adapter = adapter_of(bundle);
  const auto train = pairs_of(30), valid = pairs_of(10, 100);
  if (kind == "dpo_bco_pair") {
    losses::DpoOptions options;
    options.loss = losses::PreferenceLoss::bco_pair;
    return std::make_unique<Dpo>(model, adapter, train, valid, 6, options, config, true);
  }
  if (kind == "orpo") return std::make_unique<Orpo>(model, adapter, train, valid, 6, 0.5, config);
  if (kind == "cpo")
    return std::make_unique<Cpo>(model, adapter, train, valid, 6, losses::CpoOptions{}, 0.7, config);
  if (kind == "simpo")
    return std::make_unique<Simpo>(model, adapter, train, valid, 6, losses::SimpoOptions{}, 0.2, config);
  if (kind == "reward") {
    const RewardOptions options = {6, false, 0.01};
    return std::make_unique<RewardModel>(dynamic_cast<const ScoreModel&>(model), adapter, train, valid,
                                         options, config);
  }
  if (kind == "distill")
    return std::make_unique<Distill>(model, teacher, adapter, samples_of(40), samples_of(10, 100),
                                     losses::DistillationOptions{}, 0.3, config);
  KtoOptions options;
  options.batch_answers = 8;
  options.loss.loss = losses::unpaired_loss_from_name(kind == "bco"   ? "bco"
                                                      : kind == "apo" ? "apo_zero_unpaired"
                                                                      : "kto");
  return std::make_unique<Kto>(model, adapter, labelled_of(60), labelled_of(20, 100), options, config);
}

Bundle bundle_for(const std::string& kind, bool adapted) {
  return small_bundle(adapted, kind == "reward");
}

class OfflineRecipes : public testing::TestWithParam<std::tuple<const char*, bool>> {};

TEST_P(OfflineRecipes, AResumedRunEndsWithTheSameBits) {
  const auto [kind, adapted] = GetParam();
  const Bundle teacher = small_model(false, 9);
  test::TemporaryDirectory whole, halves;
  Bundle straight = bundle_for(kind, adapted), first = bundle_for(kind, adapted),
         second = bundle_for(kind, adapted);
  {
    const auto recipe = recipe_of(kind, straight, *teacher.model, tune_config(0.05f));
    Trainer(straight, *recipe, trainer_config(6), whole.path(), Json::object()).run();
  }
  {
    const auto recipe = recipe_of(kind, first, *teacher.model, tune_config(0.05f));
    Trainer(first, *recipe, trainer_config(3), halves.path(), Json::object()).run();
  }
  const auto recipe = recipe_of(kind, second, *teacher.model, tune_config(0.05f));
  Trainer trainer(second, *recipe, trainer_config(6), halves.path(), Json::object());
  ASSERT_TRUE(trainer.resume());
  trainer.run();
  EXPECT_EQ(trained_values(straight), trained_values(second));
}

TEST_P(OfflineRecipes, TheLossFallsAndIsReported) {
  const auto [kind, adapted] = GetParam();
  const Bundle teacher = small_model(false, 9);
  test::TemporaryDirectory directory;
  Bundle bundle = bundle_for(kind, adapted);
  const auto recipe = recipe_of(kind, bundle, *teacher.model, tune_config());
  const double before = recipe->evaluate().loss;
  TrainerConfig config = trainer_config(30);
  config.log_interval = 1000;
  if (!adapted) config.optimizer.lr = 2e-3;
  Trainer(bundle, *recipe, config, directory.path(), Json::object()).run();
  EXPECT_LT(recipe->evaluate().loss, before - 0.05);
  const std::string metrics = read_file(directory / "metrics.jsonl");
  const char* wanted = std::string(kind) == "reward"    ? "\"accuracy\":"
                       : std::string(kind) == "distill" ? "\"divergence\":"
                                                        : "\"rewards/chosen\":";
  EXPECT_NE(metrics.find(wanted), std::string::npos) << metrics;
  if (std::string(kind) == "kto") {
    EXPECT_NE(metrics.find("\"kl\":"), std::string::npos);
  }
  if (const auto* pairs = dynamic_cast<const PairRecipe*>(recipe.get())) {
    EXPECT_GE(pairs->valid_accuracy(), 0.9);
  }
  if (const auto* reward = dynamic_cast<const RewardModel*>(recipe.get())) {
    EXPECT_GE(reward->valid_accuracy(), 0.9);
  }
}

INSTANTIATE_TEST_SUITE_P(All, OfflineRecipes, testing::Combine(testing::ValuesIn(kKinds), testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) ? "_lora" : "_full");
                         });

// Along the gradient, the loss changes by its squared norm: f(p + h g) - f(p - h g) = 2 h |g|^2.
TEST(OfflineLosses, GradientsAreThoseOfTheFormulas) {
  const Bundle teacher = small_model(false, 9);
  // kto's and bco's baselines have no gradient though they move with the policy: apo has none.
  for (const char* kind : {"apo", "orpo", "cpo", "simpo", "reward", "distill"}) {
    Bundle bundle = bundle_for(kind, false);
    const auto recipe = recipe_of(kind, bundle, *teacher.model, tune_config());
    const auto batch = recipe->next();
    backward(recipe->loss(*batch, 0));
    double squares = 0;
    std::vector<std::pair<Tensor, Tensor>> gradients;
    bundle.model->visit("", [&](const std::string&, Tensor& parameter) {
      if (!parameter.grad().defined()) return;
      gradients.emplace_back(parameter, parameter.grad().clone());
      for (float g : gradients.back().second.span<float>())
        squares += static_cast<double>(g) * static_cast<double>(g);
    });
    const auto at = [&](double shift) {
      for (auto& [parameter, gradient] : gradients) {
        for (int64_t i = 0; i < parameter.elements(); ++i)
          parameter.data<float>()[i] += static_cast<float>(shift) * gradient.data<float>()[i];
        parameter.mark_modified();
      }
      const NoGrad off;
      return static_cast<double>(recipe->loss(*batch, 0).item());
    };
    // A step that changes the loss by about 0.02 of its unit: far above f32's rounding, far below curvature.
    const double h = 0.01 / squares;
    const double up = at(h), down = at(-2 * h);
    EXPECT_NEAR((up - down) / (2 * h * squares), 1, 0.03) << kind;
  }
}

TEST(OfflineLosses, AKeptReferenceIsTheAdapterOff) {
  Bundle bundle = small_bundle(true);
  std::vector<float> losses;
  for (const bool kept : {false, true}) {
    Dpo recipe(*bundle.model, adapter_of(bundle), pairs_of(12), {}, 6, losses::DpoOptions{}, tune_config(),
               kept);
    const auto batch = recipe.next();
    losses.push_back(recipe.loss(*batch, 0).item());
  }
  EXPECT_NEAR(losses[0], 6 * std::log(2.0), 1e-4);
  EXPECT_NEAR(losses[0], losses[1], 1e-5);
}

TEST(Distillation, ATeacherThatIsTheStudentTeachesNothing) {
  const Bundle bundle = small_model(), other = small_model(false, 9);
  const NoGrad off;
  const Tensor hidden = bundle.model->forward({3, 17, 5}, Pass::whole({3}));
  const Tensor taught = other.model->forward({3, 17, 5}, Pass::whole({3}));
  for (const auto kind :
       {losses::DistillationKind::forward, losses::DistillationKind::reverse, losses::DistillationKind::js}) {
    losses::DistillationOptions options;
    options.kind = kind;
    EXPECT_NEAR(distillation_loss(*bundle.model, hidden, *bundle.model, hidden, options).item(), 0, 1e-6);
    EXPECT_GT(distillation_loss(*bundle.model, hidden, *other.model, taught, options).item(), 1e-4);
  }
}

TEST(RewardModels, AreHuggingFacesSequenceClassifiers) {
  test::TemporaryDirectory directory;
  Bundle bundle = small_bundle(false, true);
  const auto scores = [](const Bundle& of) {
    const NoGrad off;
    const auto& model = dynamic_cast<const ScoreModel&>(*of.model);
    const Pass pass = Pass::whole({3, 2});
    return model.scores(model.forward({3, 17, 5, 9, 1}, pass), pass.sequences).to_floats();
  };
  save_bundle(directory.path(), *bundle.model, nullptr);
  const Json config = load_json(directory / "config.json");
  EXPECT_EQ(config["architectures"], Json::array({"LlamaForSequenceClassification"}));
  EXPECT_EQ(config["id2label"], Json({{"0", "LABEL_0"}}));
  EXPECT_EQ(config["num_labels"], 1);
  const auto checkpoint = open_checkpoint(directory.path());
  ASSERT_NE(checkpoint->find("score.weight"), nullptr);
  EXPECT_EQ(checkpoint->find("score.weight")->shape, (Shape{1, 32}));
  EXPECT_EQ(checkpoint->find("lm_head.weight"), nullptr);
  LoadOptions load;
  load.tokenizer_required = false;
  const Bundle again = load_bundle(directory.path(), load);
  EXPECT_EQ(scores(bundle), scores(again));
  EXPECT_EQ(scores(bundle).size(), 2u);
}

TEST(RewardModels, AnAdapterCarriesTheScore) {
  test::TemporaryDirectory base, adapter;
  {
    Bundle language = small_model();
    save_bundle(base.path(), *language.model, nullptr);
  }
  LoadOptions load;
  load.tokenizer_required = false;
  load.score = true;
  Bundle bundle = load_bundle(base.path(), load);
  AdapterConfig config = small_adapter();
  config.modules_to_save = {"score"};
  adapt(bundle, config);
  adapter_of(bundle)->visit("", [](const std::string&, Tensor& tensor) {
    Rng rng(11, static_cast<uint64_t>(tensor.elements()));
    for (int64_t i = 0; i < tensor.elements(); ++i) tensor.data<float>()[i] = 0.1f * rng.normal();
  });
  const auto score = [](const Bundle& of) {
    const NoGrad off;
    const auto& model = dynamic_cast<const ScoreModel&>(*of.model);
    const Pass pass = Pass::whole({3});
    return model.scores(model.forward({3, 17, 5}, pass), pass.sequences).item();
  };
  adapter_of(bundle)->save_peft(adapter.path());
  EXPECT_EQ(load_json(adapter / "adapter_config.json")["task_type"], "SEQ_CLS");
  LoadOptions with;
  with.tokenizer_required = false;
  with.adapters = {{adapter.path(), 1}};
  EXPECT_EQ(score(load_bundle(base.path(), with)), score(bundle));
  EXPECT_NE(score(bundle), 0);
}

}  // namespace
}  // namespace qkv
