// Where adapters begin and what else is trained with them: PiSSA, LoftQ, AdaLoRA's ranks, modules to save.
#include "qkv/train/adapter_starts.h"

#include <gtest/gtest.h>

#include <cmath>

#include "qkv/quant/low_rank.h"
#include "qkv/quant/trained_rounding.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/answers.h"
#include "qkv/train/rank_allocation.h"
#include "qkv/train/recipes/sft.h"
#include "tests/support/test_paths.h"
#include "tests/train/tuning_support.h"

namespace qkv {
namespace {

using namespace test;

std::unique_ptr<Sft> sft_of(const Bundle& bundle) {
  TuneConfig config;
  config.batch_tokens = 40;
  config.seed = 5;
  return std::make_unique<Sft>(*bundle.model, adapter_of(bundle), samples_of(40), samples_of(10, 100),
                               config);
}

Bundle started(AdapterConfig::Start start, std::vector<std::string> saved = {}) {
  Bundle bundle = small_model();
  AdapterConfig config = small_adapter();
  config.start = start;
  config.modules_to_save = std::move(saved);
  adapt(bundle, config);
  if (start == AdapterConfig::Start::pissa) start_at_singular_vectors(*adapter_of(bundle), 1);
  return bundle;
}

TrainerConfig config_of(int64_t steps) {
  TrainerConfig config = trainer_config(steps);
  config.target_rank = 2;
  return config;
}

// The run's result in the form PEFT has it, over a fresh base.
void expect_exported_is_trained(const Bundle& trained, int64_t rank) {
  test::TemporaryDirectory directory;
  adapter_of(trained)->save_peft(directory.path());
  EXPECT_EQ(load_json(directory / "adapter_config.json")["r"], rank);
  Bundle fresh = small_model();
  fresh.adapters.push_back(Adapter::load(*fresh.model, directory.path()));
  const std::vector<float> a = logits_of(trained), b = logits_of(fresh);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 2e-5f);
}

TEST(LowRank, FindsTheLeadingSingularVectors) {
  // 40 x 24 with singular values 8, 4, 2, 1, and 0.01.
  constexpr int64_t n = 40, k = 24;
  Tensor noise = Tensor::empty({k, n});
  Rng rng(1);
  for (int64_t i = 0; i < noise.elements(); ++i) noise.data<float>()[i] = rng.normal();
  const LowRank basis =
      leading_singular_vectors(noise, k, 3, 12);  // orthonormal left (k, k) and right (k, n)
  Tensor matrix = Tensor::zeros({n, k});
  const float values[] = {8, 4, 2, 1, 0.01f, 0.01f};
  for (int64_t r = 0; r < 6; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j)
        matrix.data<float>()[i * k + j] +=
            values[r] * basis.right.data<float>()[r * n + i] * basis.left.data<float>()[j * k + r];
    }
  }
  const LowRank found = leading_singular_vectors(matrix, 4, 9);
  for (size_t r = 0; r < 4; ++r) EXPECT_NEAR(found.values[r], values[r], 1e-4f * values[r]);
  // What is left has only the small ones: a norm of 0.01 sqrt(2).
  double left = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      float x = matrix.data<float>()[i * k + j];
      for (int64_t r = 0; r < 4; ++r)
        x -= found.values[static_cast<size_t>(r)] * found.left.data<float>()[i * 4 + r] *
             found.right.data<float>()[r * k + j];
      left += static_cast<double>(x) * static_cast<double>(x);
    }
  }
  EXPECT_NEAR(std::sqrt(left), 0.01 * std::sqrt(2.0), 1e-4);
}

TEST(Pissa, BeginsAtTheBaseWithItsLeadingVectors) {
  const Bundle base = small_model(), bundle = started(AdapterConfig::Start::pissa);
  EXPECT_EQ(logits_of(base), logits_of(bundle));
  const AdapterModule& module = adapter_of(bundle)->modules()[0];
  double norm = 0;
  for (float x : module.a.span<float>()) norm += static_cast<double>(x) * static_cast<double>(x);
  EXPECT_GT(norm, 0.1);
}

TEST(Pissa, IsALoraOfTwiceTheRankInFiles) {
  test::TemporaryDirectory directory;
  Bundle bundle = started(AdapterConfig::Start::pissa);
  const auto recipe = sft_of(bundle);
  const double before = recipe->evaluate().loss;
  Trainer(bundle, *recipe, config_of(20), directory.path(), Json::object()).run();
  EXPECT_LT(recipe->evaluate().loss, 0.9 * before);
  expect_exported_is_trained(bundle, 8);
}

TEST(LoftQ, TheAdapterMakesGoodWhatQuantizingLost) {
  Bundle original = small_model(), quantized = small_model();
  const RoundTrip rounding("int2-g32");
  quantized.model->visit_linears("", [&](const std::string&, Linear& linear) {
    linear.set_weight(std::make_unique<DenseWeight>(rounding(linear.weight().dequantize())));
  });
  const std::vector<float> wanted = logits_of(original), rounded = logits_of(quantized);
  AdapterConfig config = small_adapter();
  config.rank = 8;
  config.start = AdapterConfig::Start::loftq;
  adapt(quantized, config);
  const double part = start_at_quantization_error(*adapter_of(quantized), *original.model, 1);
  EXPECT_GT(part, 0.3);
  const std::vector<float> made_good = logits_of(quantized);
  double before = 0, after = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    before += std::pow(static_cast<double>(rounded[i] - wanted[i]), 2);
    after += std::pow(static_cast<double>(made_good[i] - wanted[i]), 2);
  }
  EXPECT_LT(after, before);
}

TEST(AdaLora, RanksFallToTheTargetAndTheFileHasWhatIsLeft) {
  test::TemporaryDirectory directory;
  Bundle bundle = started(AdapterConfig::Start::adalora);
  EXPECT_EQ(logits_of(small_model()), logits_of(bundle));
  const auto recipe = sft_of(bundle);
  const double before = recipe->evaluate().loss;
  Trainer(bundle, *recipe, config_of(40), directory.path(), Json::object()).run();
  EXPECT_LT(recipe->evaluate().loss, 0.9 * before);
  int64_t left = 0, fewest = 4, most = 0;
  for (const AdapterModule& module : adapter_of(bundle)->modules()) {
    int64_t own = 0;
    for (float gate : module.gates.span<float>()) own += gate != 0 ? 1 : 0;
    left += own;
    fewest = std::min(fewest, own);
    most = std::max(most, own);
  }
  EXPECT_EQ(left, 2 * static_cast<int64_t>(adapter_of(bundle)->modules().size()));
  EXPECT_LT(fewest, most) << "ranks go where they matter";
  expect_exported_is_trained(bundle, 4);
}

TEST(AdaLora, TheBudgetFallsAsACube) {
  Bundle bundle = started(AdapterConfig::Start::adalora);
  const RankAllocator ranks(*adapter_of(bundle), 2, 100);
  const auto modules = static_cast<int64_t>(adapter_of(bundle)->modules().size());
  EXPECT_EQ(ranks.budget(10), 4 * modules);
  EXPECT_EQ(ranks.budget(70), 2 * modules);
  EXPECT_EQ(ranks.budget(40), 2 * modules + std::llround(2.0 * static_cast<double>(modules) * 0.125));
}

TEST(ModulesToSave, AreTrainedSavedAndGoneWithTheAdapterOff) {
  test::TemporaryDirectory directory;
  Bundle bundle = started(AdapterConfig::Start::zero, {"lm_head", "embed_tokens"});
  const auto recipe = sft_of(bundle);
  Trainer(bundle, *recipe, config_of(10), directory.path(), Json::object()).run();
  expect_exported_is_trained(bundle, 4);
  EXPECT_NE(logits_of(small_model()), logits_of(bundle));
  {
    const ReferenceMode reference(adapter_of(bundle));
    EXPECT_EQ(logits_of(small_model()), logits_of(bundle));
  }
  EXPECT_NE(logits_of(small_model()), logits_of(bundle));
  Bundle other = small_model();
  AdapterConfig config = small_adapter();
  config.modules_to_save = {"lm_haed"};
  EXPECT_NE(
      test::error_of([&] { adapt(other, config); }).find("the model has no module 'lm_haed'; did you mean"),
      std::string::npos);
}

class Starts : public testing::TestWithParam<std::tuple<AdapterConfig::Start, double>> {};

TEST_P(Starts, AResumedRunEndsWithTheSameBits) {
  const auto [start, ema] = GetParam();
  const auto run = [&, start = start, ema = ema](const std::string& directory, int64_t steps, bool resume) {
    Bundle bundle = started(start, {"lm_head"});
    const auto recipe = sft_of(bundle);
    TrainerConfig config = config_of(steps);
    config.optimizer.ema_decay = ema;
    Trainer trainer(bundle, *recipe, config, directory, Json::object());
    EXPECT_EQ(trainer.resume(), resume);
    trainer.run();
    return trained_values(bundle);
  };
  test::TemporaryDirectory whole, halves;
  const auto straight = run(whole.path(), 6, false);
  run(halves.path(), 3, false);
  EXPECT_EQ(straight, run(halves.path(), 6, true));
}

INSTANTIATE_TEST_SUITE_P(All, Starts,
                         testing::Combine(testing::Values(AdapterConfig::Start::zero,
                                                          AdapterConfig::Start::pissa),
                                          testing::Values(0.0, 0.9)));

}  // namespace
}  // namespace qkv
